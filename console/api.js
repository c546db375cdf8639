// The requests of the console. Each goes to this server: the base is the address of the
// page without "console/", so that it works below the path of a stage too.
export const base = new URL('..', location.href)

let token = ''
const kept = 'keyway.token'

export const signedIn = () => token !== ''
export const tokenNow = () => token

// useToken sets the token of the requests. With keep it survives a reload of this tab.
export function useToken(value, keep) {
  token = value
  if (keep) sessionStorage.setItem(kept, value)
  else sessionStorage.removeItem(kept)
}
export const keptToken = () => sessionStorage.getItem(kept) || ''

// Refused is an answer other than 2xx, or no answer at all (status 0).
export class Refused extends Error {
  constructor(status, body, headers) {
    const detail = body?.detail
    super(typeof detail === 'string' ? detail : 'The request was refused')
    this.status = status
    this.detail = typeof detail === 'string' ? detail
      : Array.isArray(detail) ? detail.map(d => [(d.loc || []).join('.'), d.msg].filter(Boolean).join(': ')).join('; ')
      : this.message
    this.hint = body?.hint
    this.missing = body?.missing || []
    this.id = headers?.get('X-Request-Id') || ''
    this.retry = Number(headers?.get('Retry-After')) || 0
    this.remedy = remedy(this)
  }
}

function remedy(e) {
  switch (e.status) {
  case 0: return 'The server did not answer. Check that it runs and that you are online, and try again.'
  case 401: return 'Sign in again with a new token.'
  case 403: return e.missing.length ? 'Ask the issuer of your token for these scopes.' : 'Another token may be allowed to do this.'
  case 404: return 'It may have been deleted, or it belongs to another user.'
  case 409: return 'Its state has changed. Load the view again.'
  case 413: return 'Send less.'
  case 422: return 'Correct the input and send it again.'
  case 429: case 503: return e.retry ? `Try again in ${e.retry} s.` : 'Try again later.'
  }
  return e.status >= 500 ? 'The log of the server has the reason, under the id of the request.' : ''
}

// open sends a request and returns the response, or throws Refused. form and data become
// the body; path is relative to the base and its variable parts are escaped by the caller.
export async function open(method, path, {query, form, data, body, type, headers = {}, signal, as} = {}) {
  const url = new URL(path.replace(/^\//, ''), base)
  for (const [k, v] of Object.entries(query || {})) if (v !== undefined && v !== '') url.searchParams.append(k, v)
  const init = {method, signal, headers: {...headers}, credentials: 'omit', cache: 'no-store', redirect: 'error'}
  const bearer = as ?? token
  if (bearer) init.headers.Authorization = 'Bearer ' + bearer
  if (form) init.body = new URLSearchParams(Object.entries(form).filter(([, v]) => v !== undefined))
  if (data) { init.body = JSON.stringify(data); init.headers['Content-Type'] = 'application/json' }
  if (body !== undefined) { init.body = body; init.headers['Content-Type'] = type }
  let response
  try {
    response = await fetch(url, init)
  } catch (e) {
    if (e.name === 'AbortError') throw e
    throw new Refused(0, {detail: 'No answer from the server'})
  }
  if (response.ok) return response
  let answer = null
  try { answer = await response.json() } catch { /* a gateway's own page */ }
  const e = new Refused(response.status, answer, response.headers)
  if (e.status === 401 && as === undefined && token) dispatchEvent(new CustomEvent('signed-out', {detail: e}))
  throw e
}

// call sends a request and returns the JSON of the answer, or null for 204.
export async function call(method, path, options) {
  const response = await open(method, path, options)
  return response.status === 204 ? null : response.json()
}

export const esc = encodeURIComponent

// events yields the events of a stream (HTML standard, section 9.2): their data, parsed.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = '', data = []
  for (;;) {
    const {value, done} = await reader.read()
    if (done) return
    const lines = (rest + value).split('\n')
    rest = lines.pop()
    for (let line of lines) {
      if (line.endsWith('\r')) line = line.slice(0, -1)
      if (line === '') {
        if (data.length) yield JSON.parse(data.join('\n'))
        data = []
      } else if (line.startsWith('data:')) {
        data.push(line.slice(line[5] === ' ' ? 6 : 5))
      }
    }
  }
}

// What the token allows. The server decides, by the same decision as for the request itself.
const decisions = new Map()
export function forget() { decisions.clear() }

// decide asks POST /can about requests, each [method, path], and returns its decisions in that order.
export async function decide(requests, options) {
  const out = []
  for (let i = 0; i < requests.length; i += 200) {
    const part = requests.slice(i, i + 200).map(([method, path]) => ({method, path}))
    out.push(...(await call('POST', '/can', {data: {requests: part}, ...options})).decisions)
  }
  return out
}

// learn asks about requests that may() will be asked about.
export async function learn(requests) {
  const unknown = requests.filter(r => !decisions.has(r.join(' ')))
  const answers = unknown.length ? await decide(unknown) : []
  unknown.forEach((r, i) => decisions.set(r.join(' '), answers[i]))
}

// may reports whether the token allows a request that was learned.
export const may = (method, path) => decisions.get(method + ' ' + path)?.allowed === true
