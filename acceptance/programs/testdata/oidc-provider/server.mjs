// An issuer made of oidc-provider: two users with roles, a client for services and one for people, and keys that
// change with POST /rotate. Arguments: the directory with node_modules, the port.
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { generateKeyPairSync } from 'node:crypto'
import { pathToFileURL } from 'node:url'

const [dir, port] = process.argv.slice(2)
const resolve = createRequire(dir + '/package.json').resolve
const { Provider } = await import(pathToFileURL(resolve('oidc-provider')))

const issuer = `http://127.0.0.1:${port}`
const roles = { ann: ['web-users', 'staff'], bob: ['finance'] }
const scope = 'agents:read agents:web-search-agent:read agents:web-search-agent:run sessions:read'

let serial = 0
const key = (kind, options, extra) => ({
  ...generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' }),
  use: 'sig', kid: `key-${++serial}`, ...extra,
})
const newKeys = () => [key('rsa', { modulusLength: 2048 }, { alg: 'RS256' }), key('ed25519', {}, { alg: 'Ed25519' })]

// Each resource is an API that tokens can be meant for. An opaque token names none.
const resources = {
  'urn:keyway': { audience: 'urn:keyway', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } },
  'urn:keyway:ed25519': { audience: 'urn:keyway', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'Ed25519' } } },
}

// The door for MCP of a server under test: its address is only known when it runs.
const door = (name) => ({ audience: name, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } })

function newProvider(keys) {
  const provider = new Provider(issuer, {
    jwks: { keys },
    cookies: { keys: ['only for tests'] },
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'Ed25519'] },
    clients: [
      { client_id: 'svc', client_secret: 'svc-secret', grant_types: ['client_credentials'], redirect_uris: [],
        response_types: [] },
      { client_id: 'web', client_secret: 'web-secret', grant_types: ['authorization_code'],
        redirect_uris: ['http://127.0.0.1/callback'], response_types: ['code'] },
    ],
    scopes: ['openid', ...scope.split(' ')],
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, roles: roles[id] }) }),
    extraTokenClaims: (_, token) => (token.accountId ? { roles: roles[token.accountId] } : undefined),
    features: {
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, name) => ({ scope, ...(resources[name] ?? door(name)) }),
      },
    },
  })
  return provider.callback()
}

let keys = newKeys()
let answer = newProvider(keys)
createServer((req, res) => {
  if (req.method === 'POST' && req.url === '/rotate') { // the new keys sign, and the old ones are still published
    keys = [...newKeys(), ...keys]
    answer = newProvider(keys)
    res.end()
  } else {
    answer(req, res)
  }
}).listen(Number(port), '127.0.0.1')
