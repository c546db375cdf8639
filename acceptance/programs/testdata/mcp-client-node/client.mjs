// A client of the door for MCP. Arguments: the directory with node_modules, which SDK (client or sdk), the address, and
// auto or legacy. The token is in TOKEN. Without one, the user logs in: the program prints AUTHORIZE and an address, and
// reads the code from its input. It prints one line of JSON with what it saw.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [dir, kind, url, mode] = process.argv.slice(2)
const resolve = createRequire(dir + '/package.json').resolve
const load = async (name) => import(pathToFileURL(resolve(name)))

let Client, Transport, UnauthorizedError, elicit
if (kind === 'client') {
  const all = await load('@modelcontextprotocol/client')
  Client = all.Client; Transport = all.StreamableHTTPClientTransport; UnauthorizedError = all.UnauthorizedError
  elicit = 'elicitation/create'
} else {
  Client = (await load('@modelcontextprotocol/sdk/client/index.js')).Client
  Transport = (await load('@modelcontextprotocol/sdk/client/streamableHttp.js')).StreamableHTTPClientTransport
  UnauthorizedError = (await load('@modelcontextprotocol/sdk/client/auth.js')).UnauthorizedError
  elicit = (await load('@modelcontextprotocol/sdk/types.js')).ElicitRequestSchema
}

const asked = []
function newClient() {
  const options = { capabilities: { elicitation: {} } }
  if (kind === 'client') options.versionNegotiation = { mode }
  const client = new Client({ name: 'test', version: '1' }, options)
  client.setRequestHandler(elicit, (request) => {
    asked.push(request.params.message)
    return { action: 'accept', content: { approve: true } }
  })
  return client
}

// What a client with a browser stores.
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
let authorize = '', saved = {}
const scopes = []
const provider = {
  redirectUrl: 'http://127.0.0.1/callback',
  clientMetadata: { redirect_uris: ['http://127.0.0.1/callback'], scope: process.env.SCOPE },
  clientInformation: () => ({ client_id: 'web', client_secret: 'web-secret' }),
  tokens: () => saved.tokens,
  saveTokens: (tokens) => { saved.tokens = tokens },
  redirectToAuthorization: (address) => { authorize = address.href; scopes.push(address.searchParams.get('scope')) },
  saveCodeVerifier: (verifier) => { saved.verifier = verifier },
  codeVerifier: () => saved.verifier,
  saveDiscoveryState: (state) => { saved.discovery = state },
  discoveryState: () => saved.discovery,
}

function newTransport() {
  if (process.env.TOKEN) {
    return new Transport(new URL(url), { requestInit: { headers: { Authorization: 'Bearer ' + process.env.TOKEN } } })
  }
  return new Transport(new URL(url), { authProvider: provider })
}

// withLogin does something, and once more after the user has logged in.
async function withLogin(transport, f) {
  try {
    return await f()
  } catch (e) {
    if (!(e instanceof UnauthorizedError) || !authorize) throw e
    console.log('AUTHORIZE ' + authorize)
    const { value } = await lines.next()
    const params = new URLSearchParams(value)
    await transport.finishAuth(kind === 'client' ? params : params.get('code'))
    return null
  }
}

let transport = newTransport(), client = newClient()
async function connect() {
  transport = newTransport()
  client = newClient()
  await client.connect(transport)
  return true
}
if (!await withLogin(transport, async () => { await client.connect(transport); return true })) await connect()

const call = (name, args) => client.callTool({ name, arguments: args })
const text = (result) => result.content.map((c) => c.text).join('\n')
const out = { tools: (await client.listTools()).tools.map((t) => t.name), scopes }

if (process.env.TOKEN) {
  const first = await call('assistant', { message: 'hello' })
  out.answer = text(first)
  out.session = first.structuredContent.session_id
  const paused = await call('assistant', { message: 'pay' })
  out.paid = paused.structuredContent.status
  if (out.paid === 'paused') {
    const decisions = paused.structuredContent.tool_calls.map((c) => ({ tool_call_id: c.tool_call_id, decision: 'approve' }))
    const continued = await call('continue_run', { run_id: paused.structuredContent.run_id, decisions })
    out.paid = 'paused, then ' + continued.structuredContent.status
  }
  out.asked = asked
  const begun = call('assistant', { message: 'wait', session_id: 'waiting' }).catch((e) => e)
  const { value } = await lines.next() // the id of the run
  await call('cancel_run', { run_id: value })
  out.cancelled = (await begun).structuredContent.status
  out.fetched = (await call('get_run', { run_id: value })).structuredContent.status
  try {
    await call('finance', { message: 'hello' })
  } catch (e) {
    out.refused = e.message
  }
} else {
  const run = () => call('web-search-agent', { message: 'hello' })
  let result = await withLogin(transport, run)
  if (!result) {
    await connect()
    result = await run()
  }
  out.answer = text(result)
  out.tools = (await client.listTools()).tools.map((t) => t.name)
  out.token = saved.tokens.access_token
}
console.log(JSON.stringify(out))
process.exit(0)
