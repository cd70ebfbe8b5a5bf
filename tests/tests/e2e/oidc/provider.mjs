// A real OpenID Connect provider for the farm's tests, with its own pages for signing in.
// Usage: node provider.mjs SECRET_FILE. Prints its issuer, then serves until it is killed.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const server = createServer((request, response) => callback(request, response));
let callback;
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const groups = { alice: ['dev', 'ops'], bob: ['dev'], mallory: [] };
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'mote',
      client_secret: readFileSync(process.argv[2], 'utf8').trim(),
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code'],
      redirect_uris: [],
      response_types: [],
    }],
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups'], email: ['email'] },
    // The farm reads the id token, not the user info endpoint.
    conformIdTokenClaims: false,
    cookies: { keys: ['of the tests'] },
    features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: () => ({ sub: id, preferred_username: id, groups: groups[id] ?? [], email: `${id}@example.com` }),
    }),
  });
  callback = provider.callback();
  console.log(issuer);
});
