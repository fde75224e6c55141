// The authorization URLs that the package `grant` makes for all OAuth 2 providers that it knows.
//
// Argument 1 is JSON: {"client_id", "redirect_uri", "scopes": [scope], "subdomain", "host"}. In some of the package's URLs a
// customer's name is a placeholder: `subdomain` replaces it where it is a label, `host` where it is the whole host.
// The script prints one line of JSON: [{name, authorize_url, access_url, scope_delimiter, url}]. `url` is the authorization
// URL; the other fields are the package's own.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const grant = require('grant/lib/grant.js');
const providers = require('grant/config/oauth.json');
const { client_id, redirect_uri, scopes: scope, subdomain, host } = JSON.parse(process.argv[2]);

async function authorize(name, { authorize_url, access_url, scope_delimiter }) {
  const place = authorize_url.startsWith('https://[subdomain]/') ? host : subdomain;
  const config = { [name]: { client_id, redirect_uri, scope, subdomain: place, state: true, pkce: true } };
  const { location } = await grant({ config })({ method: 'GET', params: { provider: name } });
  return { name, authorize_url, access_url, scope_delimiter, url: location };
}

const known = Object.entries(providers).filter(([, { oauth }]) => oauth === 2);
console.log(JSON.stringify(await Promise.all(known.map(([name, fields]) => authorize(name, fields)))));
