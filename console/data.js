// The person's own data: memories, runs, and runs that wait for a decision.
import {el, put, badge, code, facts, table, when, span, count, money, say, ask, problem, shorten, json, every} from './dom.js'
import {call, open, events, esc, may, learn} from './api.js'
import {answer, ofAnother} from './chat.js'

const topicsOf = text => text.split(',').map(t => t.trim()).filter(Boolean)

export async function memories(root, at, signal) {
  await learn([['POST', '/memories'], ['PATCH', '/memories/x'], ['DELETE', '/memories/x']])
  const search = el('input', {type: 'search', id: 'search', 'aria-label': 'Search memories', placeholder: 'Search'})
  const place = el('div', {'aria-live': 'polite'})
  let page = 1
  const change = async (title, m) => {
    const a = await ask(title, '', [['memory', 'Memory', m?.memory ?? '', true], ['topics', 'Topics, separated by commas', (m?.topics || []).join(', ')]], 'Save')
    if (!a || !a.memory.trim()) return
    const data = {memory: a.memory, topics: topicsOf(a.topics)}
    if (m) data.user_id = m.user_id
    try {
      await (m ? call('PATCH', `/memories/${esc(m.memory_id)}`, {data}) : call('POST', '/memories', {data}))
      say('Saved.')
    } catch (e) { root.append(problem(e)) }
    load()
  }
  const remove = async m => {
    if (!await ask('Delete the memory?', shorten(m.memory, 200), [], 'Delete', true)) return
    try {
      await call('DELETE', `/memories/${esc(m.memory_id)}`, {query: {user_id: m.user_id}})
      say('Deleted.')
    } catch (e) { root.append(problem(e)) }
    load()
  }
  async function load() {
    try {
      const list = await call('GET', '/memories', {query: {limit: 50, page, search_content: search.value}, signal})
      put(place, table('Memories', ['Memory', 'Topics', 'Changed', ' '], list.data.map(m => [
        el('div', {class: 'long'}, m.memory), (m.topics || []).map(t => [badge(t), ' ']), when(m.updated_at),
        el('div', {class: 'row'},
          may('PATCH', '/memories/x') && el('button', {type: 'button', class: 'small', 'aria-label': 'Edit ' + shorten(m.memory, 40), onclick: () => change('Edit the memory', m)}, 'Edit'),
          may('DELETE', '/memories/x') && el('button', {type: 'button', class: 'small', 'aria-label': 'Delete ' + shorten(m.memory, 40), onclick: () => remove(m)}, 'Delete'))]),
      'No memories yet.'), pages(list.meta, p => { page = p; load() }))
    } catch (e) { if (e.name !== 'AbortError') put(place, problem(e)) }
  }
  search.addEventListener('change', () => { page = 1; load() })
  root.append(el('div', {class: 'row bar'}, search,
    may('POST', '/memories') && el('button', {type: 'button', class: 'main', id: 'add', onclick: () => change('New memory')}, 'Add')), place)
  await load()
}

// pages has a button for the page before and the page after.
export function pages(meta, go) {
  if (!meta || meta.total_pages < 2) return ''
  return el('div', {class: 'row pages'},
    el('button', {type: 'button', disabled: meta.page <= 1, onclick: () => go(meta.page - 1)}, 'Previous'),
    el('span', {class: 'dim'}, `Page ${meta.page} of ${meta.total_pages}`),
    el('button', {type: 'button', disabled: meta.page >= meta.total_pages, onclick: () => go(meta.page + 1)}, 'Next'))
}

const kinds = {COMPLETED: 'good', ERROR: 'bad', CANCELLED: 'warn', PAUSED: 'warn', RUNNING: 'live', PENDING: 'live'}
const status = s => badge(s.toLowerCase(), kinds[s])

// latest lists the runs of the sessions that changed last. No route lists the runs of all sessions.
async function latest(query, signal) {
  const page = await call('GET', '/sessions', {query: {type: 'agent', limit: 20, sort_by: 'updated_at', ...query}, signal})
  const lists = await Promise.all(page.data.map(async s => {
    try {
      const runs = await call('GET', `/sessions/${esc(s.session_id)}/run-previews`, {query: {user_id: s.user_id}, signal})
      return runs.reverse().map(r => ({...r, session: s})) // the newest first, also within a second
    } catch (e) {
      if (e.status === 404 || e.status === 409) return [] // deleted meanwhile, or of several users
      throw e
    }
  }))
  return lists.flat().sort((a, b) => String(b.created_at).localeCompare(String(a.created_at)))
}

const link = r => el('a', {href: `#/runs/${esc(r.session.session_id)}/${esc(r.run_id)}`}, shorten(r.run_input, 70) || r.run_id)

export async function runs(root, at, signal, me) {
  if (at.run) return run(root, at, signal)
  const place = el('div', {})
  root.append(el('p', {class: 'dim'}, 'The runs of the 20 sessions that changed last.'), place)
  let shown = ''
  await every(3000, signal, async () => {
    try {
      const list = await latest({}, signal)
      const now = json(list.map(r => [r.run_id, r.status]))
      if (now === shown) return
      shown = now
      put(place, table('Runs', ['Status', 'Input', 'Agent', 'Session', 'Started'], list.slice(0, 100).map(r =>
        [status(r.status), link(r), r.agent_id, [shorten(r.session.session_name, 40), ofAnother(r.session, me)], when(r.created_at)]), 'No runs yet.'))
    } catch (e) { if (e.name !== 'AbortError') put(place, problem(e)) }
  })
}

// steps lists what a run did, in order: its model calls, each with the tool calls that follow it. The start of each
// is the end of what it waited for, because the times of messages are whole seconds.
function steps(run) {
  const out = [], tools = new Map((run.tools || []).map(t => [t.tool_call_id, t]))
  let at = 0
  const add = (step, duration) => out.push({...step, start: at, end: at + duration, duration})
  for (const m of run.messages || []) {
    if (m.role !== 'assistant' || m.from_history) continue
    add({name: 'Model', kind: 'model', tokens: m.metrics?.total_tokens,
      text: m.content || (m.tool_calls || []).map(c => c.function?.name).join(', ')}, m.metrics?.duration || 0)
    at = out.at(-1).end
    const calls = (m.tool_calls || []).map(c => tools.get(c.id)).filter(Boolean)
    for (const t of calls) {
      add({name: t.tool_name, kind: t.tool_call_error ? 'failed' : 'tool', waits: t.result === null && !t.tool_call_error,
        text: t.result ?? '', tool: t}, t.metrics?.duration || 0)
    }
    at = Math.max(at, ...out.slice(out.length - calls.length).map(s => s.end))
  }
  return out
}

async function run(root, at, signal) {
  const place = el('div', {})
  root.append(el('p', {}, el('a', {href: '#/runs'}, '← All runs'), ' · ', el('a', {href: '#/chat/' + esc(at.session)}, 'Open the session')), place)
  await every(1500, signal, async () => {
    try {
      const r = await call('GET', `/sessions/${esc(at.session)}/runs/${esc(at.run)}`, {signal})
      if (place.dataset.status === r.status) return
      place.dataset.status = r.status
      put(place, ...detail(r))
    } catch (e) { if (e.name !== 'AbortError') put(place, problem(e)) }
  })
}

function detail(r) {
  const m = r.metrics || {}, list = steps(r)
  const total = Math.max(0.001, ...list.map(s => s.end))
  return [
    facts([
      ['Status', status(r.status)], ['Agent', code(r.agent_id)], ['Run', code(r.run_id)],
      r.user_id && ['User', code(r.user_id)], ['Started', when(r.created_at)],
      ['Tokens', `${count(m.total_tokens)} (${count(m.input_tokens)} in, ${count(m.output_tokens)} out)`],
      m.cost !== undefined && ['Cost', money(m.cost)], m.duration && ['Duration', span(m.duration)],
      m.time_to_first_token && ['First token', span(m.time_to_first_token)],
    ]),
    r.status === 'ERROR' ? problem({detail: r.content || 'The run failed'}) : '',
    el('h2', {}, 'Steps'),
    list.length ? el('ol', {class: 'steps', 'aria-label': 'Steps'}, list.map(s => {
      const bar = el('i', {class: 'bar ' + s.kind})
      bar.style.left = s.start / total * 100 + '%'
      bar.style.width = Math.max(0.6, (s.end - s.start) / total * 100) + '%'
      return el('li', {}, el('details', {}, el('summary', {}, el('span', {class: 'name'}, s.name),
        el('span', {class: 'track', 'aria-hidden': 'true'}, bar), el('span', {class: 'dim num'}, s.waits ? 'waits' : span(s.duration)),
        el('span', {class: 'dim num'}, s.tokens ? count(s.tokens) + ' tok' : '')),
      s.tool ? [el('h4', {}, 'Arguments'), el('pre', {tabindex: '0'}, json(s.tool.tool_args)), el('h4', {}, s.tool.tool_call_error ? 'Error' : 'Result')] : '',
      el('pre', {tabindex: '0'}, s.text || '–')))
    })) : el('p', {class: 'dim'}, 'No step has ended yet.'),
    el('h2', {}, 'Input'), el('pre', {tabindex: '0'}, r.run_input || ''),
    r.input_media?.files?.length ? el('p', {}, 'Files: ', r.input_media.files.map(f => [code(f.filename), ' '])) : '',
    r.content && r.status !== 'ERROR' ? [el('h2', {}, 'Answer'), el('pre', {tabindex: '0'}, r.content)] : [],
  ].flat()
}

// approvals lists the runs that wait for the person, with the decision beside each.
export async function approvals(root, at, signal) {
  const place = el('div', {class: 'waiting'})
  root.append(el('p', {class: 'dim'}, 'Runs of the 20 sessions that changed last, which wait for a decision.'), place)
  async function load() {
    try {
      const paused = (await latest({}, signal)).filter(r => r.status === 'PAUSED')
      put(place)
      if (!paused.length) place.append(el('p', {class: 'dim empty'}, 'Nothing waits for you.'))
      for (const p of paused) {
        const r = await call('GET', `/sessions/${esc(p.session.session_id)}/runs/${esc(p.run_id)}`, {signal})
        const card = el('section', {class: 'card', 'aria-label': 'Run of ' + r.agent_id},
          el('h2', {}, code(r.agent_id), ' ', shorten(r.run_input, 80)), el('p', {class: 'dim'}, when(r.created_at), ' · ', link(p)))
        place.append(card)
        const view = answer(card, async (v, id, tools) => {
          try {
            const response = await open('POST', `/agents/${esc(id.agent)}/runs/${esc(id.run)}/continue`,
              {form: {tools: JSON.stringify(tools), session_id: id.session, stream: 'true'}, signal})
            for await (const e of events(response)) {
              v.take(e)
              if (/^Run(Completed|Error|Cancelled|Paused)$/.test(e.event)) await v.end(e, id)
            }
          } catch (e) { if (e.name !== 'AbortError') v.fail(e) }
        })
        await view.stored(r, p.session.session_id)
      }
    } catch (e) { if (e.name !== 'AbortError') put(place, problem(e)) }
  }
  root.prepend(el('div', {class: 'row bar'}, el('button', {type: 'button', onclick: load}, 'Load again')))
  await load()
}
