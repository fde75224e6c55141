// Prints a fresh ES256 key for `private_key_jwt`: {"pem": the private key (PKCS#8), "jwk": the public one}.
import { generateKeyPairSync } from 'node:crypto';

const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'test-key', alg: 'ES256', use: 'sig' };
console.log(JSON.stringify({ pem: privateKey.export({ format: 'pem', type: 'pkcs8' }), jwk }));
