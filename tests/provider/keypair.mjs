// Prints a fresh key for `private_key_jwt`: {"pem": the private key (PKCS#8), "jwk": the public one}.
// Argument 1 is its algorithm: ES256, RS256 or EdDSA.
import { generateKeyPairSync } from 'node:crypto';

const alg = process.argv[2];
const pairs = {
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};
const { publicKey, privateKey } = pairs[alg]();
const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'test-key', alg, use: 'sig' };
console.log(JSON.stringify({ pem: privateKey.export({ format: 'pem', type: 'pkcs8' }), jwk }));
