// Who the token speaks for, and what it allows. Every answer is the server's: the console decides nothing.
import {el, put, badge, code, facts, table, when, left, say, problem, every, shorten, json} from './dom.js'
import {call, decide, esc, base} from './api.js'

export async function whoami(root, at, signal, me) {
  const clock = el('span', {class: 'clock'})
  put(root,
    facts([
      ['OS', code(me.os_id)],
      ['Subject', me.sub ? code(me.sub) : '–'],
      me.user_id && me.user_id !== me.sub && ['Stored as', code(me.user_id)],
      ['Issuer', me.issuer ? code(me.issuer) : '–'],
      me.session_id && ['Only session', code(me.session_id)],
      ['Administrator', me.admin ? badge('yes', 'warn') : 'no'],
      ['User isolation', me.user_isolation ? 'on: you see your own data' : 'off: you see the data of all users'],
      ['Issued', when(me.issued_at)],
      ['Expires', when(me.expires_at), ' ', clock],
    ]),
    el('h2', {}, 'Scopes, and where each came from'),
    table('Scopes', ['Scope', 'From'], (me.scopes || []).map(s => [code(s.scope), s.from || '–']), 'The token has no scopes.'),
    me.limits ? [el('h2', {}, 'Limits'), el('pre', {tabindex: '0'}, json(me.limits))] : '')
  every(1000, signal, () => {
    const l = left(me)
    put(clock, badge(l.text, l.expired ? 'bad' : l.soon ? 'warn' : 'good'))
    if (l.expired && !clock.dataset.announced) {
      clock.dataset.announced = 'yes'
      say('Your token has expired. Sign in again.')
    }
  })
}

// others are the requests of the second table, by what they are about.
const others = [
  ['Sessions', [['List', 'GET', '/sessions'], ['Change', 'PATCH', '/sessions/any'], ['Delete', 'DELETE', '/sessions/any']]],
  ['Memories', [['List', 'GET', '/memories'], ['Add', 'POST', '/memories'], ['Delete', 'DELETE', '/memories/any']]],
  ['Configuration', [['Read', 'GET', '/config']]],
  ['Active runs', [['List', 'GET', '/active-runs'], ['Cancel', 'DELETE', '/active-runs']]],
  ['Revocations', [['List', 'GET', '/revocations'], ['Revoke', 'POST', '/revocations']]],
]

// agentsOf lists the agents that the token can see, and those that its scopes name: the id, the name and the names of
// the tools.
async function agentsOf(me, options) {
  const named = (me.scopes || []).map(s => /^agents:([^:*]+):\w+$/.exec(s.scope)?.[1]).filter(Boolean)
  let listed = []
  try { listed = await call('GET', '/agents', options) } catch (e) { if (e.status !== 403) throw e }
  const found = listed.map(a => [a.id, a.name || a.id, (a.tools?.tools || []).map(t => t.name)])
  for (const id of new Set(named)) if (!found.some(a => a[0] === id)) found.push([id, id, []])
  return found
}

// matrix shows what a token allows, a button for each decision, with its explanation below.
async function matrix(root, me, options = {}) {
  const agents = await agentsOf(me, options)
  const cells = agents.flatMap(([id]) => [['GET', `/agents/${esc(id)}`], ['POST', `/agents/${esc(id)}/runs`]])
  const rest = others.flatMap(([, list]) => list.map(([, method, path]) => [method, path]))
  const answers = await decide([...cells, ...rest], options)
  const why = el('section', {class: 'card why', id: 'why', 'aria-live': 'polite', 'aria-label': 'Explanation'},
    el('p', {class: 'dim'}, 'Choose a cell to see why.'))
  const cell = (label, d) => {
    const b = el('button', {type: 'button', class: 'cell ' + (d.allowed ? 'yes' : 'no'), 'aria-pressed': 'false',
      'aria-label': `${label}: ${d.allowed ? 'allowed' : 'denied'}. Explain`, 'data-path': d.method + ' ' + d.path},
      el('span', {'aria-hidden': 'true'}, d.allowed ? '✓ allowed' : '✕ denied'))
    b.addEventListener('click', () => {
      for (const other of root.querySelectorAll('.cell')) other.setAttribute('aria-pressed', String(other === b))
      put(why, ...explain(label, d))
      if (matchMedia('(max-width: 860px)').matches) why.scrollIntoView({block: 'nearest'})
    })
    return b
  }
  // The tools of an agent have the decision about its run.
  const tools = (name, names, run) => names.length ? [cell(`Tools of ${name} (${names.join(', ')})`, run),
    el('div', {class: 'dim small'}, names.join(', '))] : el('span', {class: 'dim'}, 'none')
  let i = 0
  put(root, el('div', {class: 'two'}, el('div', {},
    el('h2', {}, 'Agents'),
    table('What the token allows for each agent', ['Agent', 'See', 'Run', 'Tools'], agents.map(([id, name, names]) =>
      [[el('b', {}, name), name === id ? '' : [' ', el('span', {class: 'dim'}, id)]],
        cell('See ' + name, answers[i++]), cell('Run ' + name, answers[i]), tools(name, names, answers[i++])]), 'The token shows no agent.'),
    el('p', {class: 'dim small'}, 'The tools of an agent need no scope of their own: the decision about its run is that about them. A caller confirms those that ask for it.'),
    el('h2', {}, 'Everything else'),
    el('div', {class: 'rest'}, others.map(([name, list]) => el('div', {class: 'line'}, el('span', {class: 'name'}, name),
      list.map(([label]) => el('div', {}, el('span', {class: 'dim small'}, label), cell(`${label}: ${name}`, answers[i++]))))))),
  why))
}

// explain says why a request is allowed or denied, in the words of the decision.
function explain(label, d) {
  return [
    el('h2', {}, label, ' ', badge(d.allowed ? 'allowed' : 'denied', d.allowed ? 'good' : 'bad')),
    el('p', {}, code(`${d.method} ${d.path}`), d.status ? [' → ', code(String(d.status))] : ''),
    facts([
      d.route && ['Route', code(d.route)],
      ['Needs', d.needs?.length ? d.needs.map(s => [code(s), ' ']) : 'no scope'],
      ['Granted by', d.granted?.length ? el('ul', {}, d.granted.map(g => el('li', {}, code(g.scope), g.from ? ' from ' + g.from : '',
        g.covers ? [', covers ', code(g.covers)] : ''))) : 'no scope of the token'],
      d.missing?.length && ['Missing', d.missing.map(s => [code(s), ' '])],
    ]),
    d.reasons?.length ? el('ul', {class: 'reasons'}, d.reasons.map(r => el('li', {}, typeof r === 'string' ? r : json(r)))) : '',
  ]
}

export async function can(root, at, signal, me) {
  const place = el('div', {})
  root.append(place)
  await matrix(place, me, {signal})
}

// lab makes tokens with chosen scopes and shows what each would allow. Its route exists with --dev only.
export async function lab(root, at, signal, me) {
  const agents = await agentsOf(me, {signal})
  const choices = ['agents:read', 'agents:run', ...agents.flatMap(([id]) => [`agents:${id}:read`, `agents:${id}:run`]),
    'sessions:read', 'sessions:write', 'sessions:delete', 'memories:read', 'memories:write', 'memories:delete',
    'config:read', 'agent_os:admin']
  const start = new Set(['agents:read', 'sessions:read'])
  const sub = el('input', {id: 'lab-sub', value: 'ann', autocomplete: 'off'})
  const more = el('input', {id: 'lab-more', autocomplete: 'off', placeholder: 'any other scopes, separated by spaces'})
  const boxes = choices.map(s => el('input', {type: 'checkbox', name: 'scope', value: s, checked: start.has(s)}))
  const curl = el('pre', {tabindex: '0', id: 'curl', 'aria-label': 'The same request with curl'})
  const place = el('div', {id: 'lab'}), wrong = el('div', {})
  let token = '', turn = 0
  const copy = (text, what) => navigator.clipboard.writeText(text).then(() => say(what + ' copied.'), () => say('The browser refused to copy.'))
  const form = el('form', {class: 'card lab', 'aria-label': 'Token'},
    el('label', {}, 'Subject', sub),
    el('fieldset', {}, el('legend', {}, 'Scopes'), el('div', {class: 'scopes'}, boxes.map(b => el('label', {class: 'check'}, b, code(b.value))))),
    el('label', {}, 'Other scopes', more), curl,
    el('div', {class: 'row'}, el('button', {type: 'button', onclick: () => copy(curl.dataset.text, 'The command')}, 'Copy curl'),
      el('button', {type: 'button', onclick: () => copy(token, 'The token')}, 'Copy the token')), wrong)
  root.append(form, place)
  async function change() {
    const mine = ++turn
    const scopes = [...boxes.filter(b => b.checked).map(b => b.value), ...more.value.split(/\s+/).filter(Boolean)]
    try {
      const made = await call('POST', '/dev/token', {data: {scopes, sub: sub.value, expires_in: 3600}, signal})
      if (mine !== turn) return
      token = made.token
      const agent = agents[0]?.[0] || 'assistant'
      const command = t => `curl -N -H "Authorization: Bearer ${t}" -F message=Hello "${new URL(`agents/${esc(agent)}/runs`, base)}"`
      curl.dataset.text = command(token)
      curl.textContent = command(shorten(token, 24))
      put(wrong)
      await matrix(place, {scopes: [...scopes, ...agents.map(([id]) => `agents:${id}:see`)].map(scope => ({scope}))}, {as: token, signal})
      say('The matrix shows the new token.')
    } catch (e) {
      if (e.name !== 'AbortError') put(wrong, problem(e))
    }
  }
  form.addEventListener('submit', e => e.preventDefault())
  form.addEventListener('change', change)
  await change()
}

