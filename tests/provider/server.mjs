// The authorization server of the conformance suite: oidc-provider on a free loopback port, with plain http.
//
// Argument 1 is JSON: {"clients": [client metadata, RFC 7591 names], "access_token_ttl": seconds}.
// It prints one line, {"issuer": "http://127.0.0.1:<port>"}, as soon as it listens, and ends with its standard input.
//
// In addition to the protocol's routes (discovery names them) it has two for the suite:
//   GET  /test/requests  the requests to the token and revocation endpoints, in order, without secrets:
//                        [{route, grant_type, client_id, auth, status, error}]
//   POST /test/faults    sets faults: a JSON list with one entry for each of the next token requests, "pass",
//                        "unavailable" (503 without processing) or "lost" (processed, but the answer is never sent)
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import * as pages from './pages.mjs';

// The library prints warnings about production use, some of them to stdout. Tests parse stdout, so silence them.
console.info = () => {};
console.warn = () => {};
const { Provider } = await import('oidc-provider');

const { clients, access_token_ttl: ttl = 3600 } = JSON.parse(process.argv[2] ?? '{"clients": []}');
const requests = [];
let faults = [];

const server = createServer();
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: clients.map((client) => ({
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    ...client,
  })),
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
  scopes: ['openid', 'offline_access', 'read', 'write'],
  pkce: { required: () => true },
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  expiresWithSession: () => false,
  ttl: { AccessToken: ttl, AuthorizationCode: 60, RefreshToken: 86400, Grant: 86400, Session: 3600, Interaction: 600, IdToken: 600 },
  features: { devInteractions: { enabled: false }, revocation: { enabled: true } },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  cookies: { keys: [randomBytes(32).toString('base64url')] },
  jwks: { keys: [{ ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] },
});

function authentication(ctx) {
  const body = ctx.oidc.body ?? {};
  const used = [];
  if (ctx.get('authorization')) used.push('client_secret_basic');
  if (body.client_secret !== undefined) used.push('client_secret_post');
  if (body.client_assertion !== undefined) used.push('private_key_jwt');
  return used.join('+') || 'none';
}

provider.use(async (ctx, next) => {
  await next();
  const route = ctx.oidc?.route;
  if (route !== 'token' && route !== 'revocation') return;
  requests.push({
    route,
    grant_type: ctx.oidc.params?.grant_type,
    client_id: ctx.oidc.client?.clientId,
    auth: authentication(ctx),
    status: ctx.status,
    error: ctx.body?.error,
  });
});

async function body(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function decide(details, form) {
  const { prompt, params, session, grantId } = details;
  if (form.get('prompt') !== prompt.name) return { error: 'invalid_request', error_description: 'the form is of another prompt' };
  if (prompt.name === 'login') return { login: { accountId: form.get('login') } };
  if (form.get('decision') !== 'allow') return { error: 'access_denied', error_description: 'the user denied access' };
  const grant = (grantId && await provider.Grant.find(grantId))
    || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope((prompt.details.missingOIDCScope ?? []).join(' '));
  return { consent: { grantId: await grant.save() } };
}

async function interaction(req, res) {
  const details = await provider.interactionDetails(req, res);
  if (req.method === 'POST') {
    const result = await decide(details, new URLSearchParams(await body(req)));
    return provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });
  }
  const action = `/interaction/${details.uid}`;
  res.setHeader('content-type', 'text/html; charset=utf-8');
  return res.end(details.prompt.name === 'login'
    ? pages.login(action)
    : pages.consent(action, details.params.client_id, details.prompt.details.missingOIDCScope ?? []));
}

const own = {
  'GET /test/requests': (_req, res) => res.setHeader('content-type', 'application/json').end(JSON.stringify(requests)),
  'POST /test/faults': async (req, res) => {
    faults = JSON.parse(await body(req));
    res.end();
  },
};

const oauth = provider.callback();
function token(req, res) {
  const fault = faults.shift() ?? 'pass';
  if (fault === 'unavailable') {
    requests.push({ route: 'token', status: 503 });
    req.resume();
    return res.writeHead(503).end();
  }
  if (fault === 'lost') res.end = () => req.socket.destroy();
  return oauth(req, res);
}

server.on('request', async (req, res) => {
  try {
    const { pathname } = new URL(req.url, issuer);
    const handler = own[`${req.method} ${pathname}`];
    if (handler) await handler(req, res);
    else if (pathname.startsWith('/interaction/')) await interaction(req, res);
    else if (pathname === '/token' && req.method === 'POST') await token(req, res);
    else await oauth(req, res);
  } catch (error) {
    console.error(error);
    if (!res.headersSent) res.writeHead(error.statusCode ?? 500);
    res.end();
  }
});

process.stdin.on('end', () => process.exit(0)).resume();
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
