// The chat: runs are streamed, paused runs wait for the person, and a reload continues the
// stream of the run.
import {el, put, badge, say, json, shorten, when, count, problem, ask, byId} from './dom.js'
import {call, open, events, esc, may, learn, Refused} from './api.js'
import {render} from './markdown.js'

const ends = {RunCompleted: 'completed', RunError: 'error', RunCancelled: 'cancelled', RunPaused: 'paused'}
// remembered is the run that this tab follows, so that a reload can resume it. It has no token.
const remembered = 'keyway.run'
// pieceSize is the length from which a piece of a streamed text ends at the next line end, or much later at a space:
// the browser lays out only the last piece when text is added.
const pieceSize = 1500

let agents = []

export async function chat(root, at, signal, me) {
  const list = el('ul', {class: 'list', id: 'sessions'})
  const log = el('div', {class: 'log', id: 'log', tabindex: '0', role: 'log', 'aria-label': 'Conversation', 'aria-live': 'off'})
  const agent = el('select', {id: 'agent', name: 'agent'})
  const message = el('textarea', {id: 'message', rows: '2', required: true, placeholder: 'Ask something'})
  const send = el('button', {type: 'submit', class: 'main', id: 'send', disabled: true}, 'Send')
  const stop = el('button', {type: 'button', class: 'danger', id: 'stop', hidden: true}, 'Stop')
  const side = el('details', {class: 'sessions', open: matchMedia('(min-width: 860px)').matches},
    el('summary', {}, 'Sessions'),
    el('button', {type: 'button', class: 'wide', id: 'new', onclick: () => begin()}, 'New session'), list)
  const form = el('form', {class: 'composer', id: 'composer'},
    el('label', {class: 'inline'}, 'Agent', agent),
    el('label', {class: 'unseen', for: 'message'}, 'Message'), message,
    el('div', {class: 'row end'}, stop, send))
  root.append(el('div', {class: 'chat'}, side, el('section', {class: 'talk', 'aria-label': 'Chat'}, log, form)))

  let session = at.session || '', running = null
  const owners = new Map() // of the listed sessions: several users may have one of the same id

  // follow shows the events of one answer until its end.
  async function follow(view, first, id) {
    const controller = new AbortController()
    running = controller
    signal.addEventListener('abort', () => controller.abort(), {once: true})
    let last = -1, ended = '', agentID = id.agent, runID = id.run, tries = 0
    busy(true)
    stop.onclick = async () => {
      stop.disabled = true
      try {
        await call('POST', `/agents/${esc(agentID)}/runs/${esc(runID)}/cancel`)
        say('The run is being stopped.')
      } catch (e) { view.note(problem(e)) } finally { stop.disabled = false }
    }
    try {
      let response = await first(controller.signal)
      while (!ended) {
        try {
          for await (const e of events(response)) {
            if (e.event_index !== undefined && e.event_index <= last) continue
            if (e.event_index !== undefined) last = e.event_index
            if (e.run_id && e.event === 'RunStarted') {
              runID = e.run_id; agentID = e.agent_id; session = e.session_id
              sessionStorage.setItem(remembered, JSON.stringify({run: runID, agent: agentID, session}))
            }
            view.take(e)
            if (e.event === 'error') throw new Refused(0, {detail: e.error})
            if (ends[e.event]) { ended = ends[e.event]; view.end(e, {agent: agentID, run: runID, session}) }
          }
        } catch (e) {
          if (e.name === 'AbortError' || e instanceof Refused) throw e
        }
        if (ended || !runID || controller.signal.aborted) break
        // The stream was cut: the run continues, and its events are sent again from here.
        if (++tries > 5) throw new Refused(0, {detail: 'The stream ended before the run did'})
        await new Promise(done => setTimeout(done, 300 * tries))
        response = await resume(agentID, runID, last, controller.signal)
        if (response.status === 204) break
      }
    } catch (e) {
      if (e.name !== 'AbortError') view.fail(e)
      if (e.status === 403 || e.status === 404) sessionStorage.removeItem(remembered) // of another caller, or deleted
    } finally {
      if (running === controller) running = null
      if (!signal.aborted) {
        busy(false)
        if (ended && ended !== 'paused') sessionStorage.removeItem(remembered)
        sessions()
      }
    }
  }

  // busy switches between the two buttons of the composer.
  function busy(yes) {
    send.disabled = yes || !agents.length
    stop.hidden = !yes
    if (!yes && document.activeElement === document.body) message.focus()
  }

  form.addEventListener('submit', e => {
    e.preventDefault()
    const text = message.value.trim()
    if (!text || running || send.disabled) return
    message.value = ''
    log.querySelector('.hello')?.remove()
    log.append(person(text))
    const view = answer(log, continued)
    follow(view, s => open('POST', `/agents/${esc(agent.value)}/runs`, {
      form: {message: text, stream: 'true', session_id: session || undefined},
      headers: {'Idempotency-Key': crypto.randomUUID?.() ?? String(Math.random())}, signal: s,
    }), {agent: agent.value})
  })
  message.addEventListener('keydown', e => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); form.requestSubmit() }
  })

  // continued sends the person's decisions about a paused run and follows it.
  function continued(view, id, tools) {
    return follow(view, s => open('POST', `/agents/${esc(id.agent)}/runs/${esc(id.run)}/continue`, {
      form: {tools: JSON.stringify(tools), session_id: id.session, stream: 'true'}, signal: s,
    }), id)
  }

  function begin() {
    running?.abort()
    session = ''
    sessionStorage.removeItem(remembered)
    put(log, el('p', {class: 'hello dim'}, agents.length
      ? 'A new session begins with your first message.' : 'Your token runs no agent. See “What may I do?”.'))
    mark()
    message.focus()
  }

  function mark() {
    for (const li of list.querySelectorAll('[data-id]')) li.firstChild.setAttribute('aria-current', String(li.dataset.id === session))
  }

  // show opens a session: its runs become the conversation.
  async function show(id) {
    running?.abort()
    session = id
    mark()
    try {
      const runs = await call('GET', `/sessions/${esc(id)}/runs`, {query: {limit: 100, user_id: owners.get(id)}, signal})
      put(log)
      for (const run of runs) {
        log.append(person(run.run_input))
        const view = answer(log, continued)
        if (run.status === 'RUNNING' || run.status === 'PENDING') {
          follow(view, s => resume(run.agent_id, run.run_id, undefined, s), {agent: run.agent_id, run: run.run_id})
          continue
        }
        await view.stored(run, id)
      }
      if (runs.length) agent.value = runs.at(-1).agent_id
    } catch (e) {
      if (e.name !== 'AbortError') put(log, problem(e))
    }
    log.scrollTop = log.scrollHeight
  }

  async function sessions() {
    if (!may('GET', '/sessions')) {
      side.hidden = true
      return
    }
    try {
      const page = await call('GET', '/sessions', {query: {type: 'agent', limit: 50, sort_by: 'updated_at'}, signal})
      for (const s of page.data) owners.set(s.session_id, s.user_id)
      put(list, ...page.data.map(s => el('li', {'data-id': s.session_id},
        el('button', {type: 'button', class: 'pick', title: s.session_name, onclick: () => { location.hash = '#/chat/' + esc(s.session_id) }},
          el('span', {}, shorten(s.session_name, 60) || s.session_id), el('small', {class: 'dim'}, s.agent_id, ofAnother(s, me))),
        may('POST', '/sessions/x/rename') && el('button', {type: 'button', class: 'icon', 'aria-label': 'Rename ' + shorten(s.session_name, 40),
          onclick: () => rename(s)}, '✎'),
        may('DELETE', '/sessions/x') && el('button', {type: 'button', class: 'icon', 'aria-label': 'Delete ' + shorten(s.session_name, 40),
          onclick: () => remove(s)}, '✕'))))
      if (!page.data.length) list.append(el('li', {class: 'dim empty'}, 'No sessions yet.'))
      mark()
    } catch (e) {
      if (e.name !== 'AbortError') put(list, el('li', {}, problem(e)))
    }
  }

  async function rename(s) {
    const a = await ask('Rename the session', '', [['name', 'Name', s.session_name]], 'Rename')
    if (!a) return
    try {
      await call('POST', `/sessions/${esc(s.session_id)}/rename`, {query: {user_id: s.user_id}, data: {session_name: a.name}})
      say('Renamed.')
    } catch (e) { log.append(problem(e)) }
    sessions()
  }

  async function remove(s) {
    if (!await ask('Delete the session?', `“${shorten(s.session_name, 80)}” and its runs are deleted for good.`, [], 'Delete', true)) return
    try {
      await call('DELETE', `/sessions/${esc(s.session_id)}`, {query: {user_id: s.user_id}})
      say('Deleted.')
      if (s.session_id === session) begin()
    } catch (e) { log.append(problem(e)) }
    sessions()
  }

  await learn([['GET', '/agents'], ['GET', '/sessions'], ['POST', '/sessions/x/rename'], ['DELETE', '/sessions/x']])
  const known = may('GET', '/agents') ? await call('GET', '/agents', {signal}) : []
  const runnable = known.map(a => ['POST', `/agents/${esc(a.id)}/runs`])
  await learn(runnable)
  agents = known.filter((a, i) => may(...runnable[i]))
  agent.append(...agents.map(a => el('option', {value: a.id}, a.name || a.id)))
  sessions()
  const kept = JSON.parse(sessionStorage.getItem(remembered) || 'null')
  if (session && kept?.session !== session) {
    await show(session)
  } else if (!kept) {
    begin()
  } else { // The page was loaded again during a run.
    session = kept.session
    if (may('GET', '/sessions')) await show(session)
    log.querySelector('.hello')?.remove()
  }
  // Only now, because what is shown above replaces the conversation.
  send.disabled = !agents.length || running !== null
  if (kept && kept.session === session && !running && ![...log.querySelectorAll('[data-run]')].some(e => e.dataset.run === kept.run)) {
    follow(answer(log, continued), s => resume(kept.agent, kept.run, undefined, s), {agent: kept.agent, run: kept.run})
  }
}

const resume = (agent, run, last, signal) => open('POST', `/agents/${esc(agent)}/runs/${esc(run)}/resume`,
  {form: {last_event_index: last === undefined || last < 0 ? undefined : String(last)}, signal})

// ofAnother names the owner of a session, if it is not the person: administrators see the sessions of all users.
export const ofAnother = (s, me) => s.user_id && s.user_id !== me.user_id ? ` · ${s.user_id}` : ''

const person = text => el('article', {class: 'person', 'aria-label': 'You'}, el('div', {class: 'text'}, text))

// answer is the view of one run's answer. take shows an event, end the last one, and stored a run that has ended.
export function answer(log, continued) {
  const body = el('div', {class: 'body'})
  const foot = el('footer', {class: 'dim small'})
  const box = el('article', {class: 'agent', 'aria-label': 'Answer'}, body, foot)
  log.append(box)
  const calls = new Map()
  let block = null, text = '', node = null, waiting = '', scheduled = false

  // Pieces are collected and written once a frame.
  function flush() {
    scheduled = false
    if (!waiting) return
    const stay = log.scrollHeight - log.scrollTop - log.clientHeight < 80
    if (!block) {
      block = el('div', {class: 'text'})
      node = null
      body.append(block)
    }
    text += waiting
    while (waiting) {
      if (!node) {
        node = document.createTextNode('')
        block.append(el('div', {class: 'piece'}, node))
      }
      let end = -1
      if (node.length > pieceSize) end = waiting.indexOf('\n')
      if (end < 0 && node.length > 3 * pieceSize) end = waiting.indexOf(' ')
      node.appendData(end < 0 ? waiting : waiting.slice(0, end))
      waiting = end < 0 ? '' : waiting.slice(end + 1)
      if (end >= 0) node = null
    }
    if (stay) log.scrollTop = log.scrollHeight
  }

  // close ends a block of text and formats it.
  async function close() {
    flush()
    const [b, t] = [block, text]
    block = null
    text = ''
    if (b && t) await render(b, t)
  }

  function tool(t) {
    let card = calls.get(t.tool_call_id)
    if (!card) {
      card = el('details', {class: 'tool'})
      calls.set(t.tool_call_id, card)
      body.append(card)
    }
    const state = t.tool_call_error ? badge('failed', 'bad') : t.result !== null && t.result !== undefined ? badge('done', 'good')
      : t.confirmed === false ? badge('rejected', 'bad') : badge('called', '')
    put(card, el('summary', {}, 'Tool ', el('code', {}, t.tool_name), ' ', state),
      el('h4', {}, 'Arguments'), el('pre', {tabindex: '0'}, json(t.tool_args)),
      t.result !== null && t.result !== undefined ? [el('h4', {}, 'Result'), el('pre', {tabindex: '0'}, t.result)] : '')
  }

  const view = {
    take(e) {
      switch (e.event) {
      case 'RunStarted':
        box.dataset.run = e.run_id
        break
      case 'RunContent':
        waiting += e.content || ''
        if (!scheduled) { scheduled = true; requestAnimationFrame(flush) }
        break
      case 'ToolCallStarted': case 'ToolCallCompleted': case 'ToolCallError':
        close()
        tool(e.tool)
        break
      case 'ModelRequestCompleted':
        foot.textContent = `${e.model} · ${count(e.total_tokens)} tokens`
        break
      }
    },
    async end(e, id) {
      await close()
      box.dataset.status = ends[e.event]
      if (e.event === 'RunCompleted') {
        const m = e.metrics || {}
        foot.textContent = [count(m.total_tokens) + ' tokens', m.duration && m.duration.toFixed(1) + ' s'].filter(Boolean).join(' · ')
        say('The answer is complete.')
      } else if (e.event === 'RunCancelled') {
        body.append(badge('stopped', 'warn'))
        say('The run was stopped.')
      } else if (e.event === 'RunError') {
        body.append(problem({detail: e.content, hint: e.error_type}))
      } else {
        view.pause(e.tools, id)
      }
      foot.append(' ', el('a', {href: `#/runs/${esc(id.session)}/${esc(id.run)}`}, 'Details'))
    },
    // pause asks the person about the calls that the run waits for.
    pause(tools, id) {
      const open = tools.filter(t => t.requires_confirmation || t.requires_user_input || t.external_execution_required)
      const form = el('form', {class: 'consent', 'aria-label': 'Decide about tool calls'},
        el('h3', {tabindex: '-1'}, 'The agent waits for you'), open.map(consent))
      const decided = yes => {
        const answers = tools.map(t => open.includes(t) ? decide(form, t, yes) : t)
        if (answers.includes(null)) return
        form.remove()
        continued(view, id, answers)
      }
      form.append(el('div', {class: 'row'},
        el('button', {type: 'button', class: 'main', onclick: () => form.reportValidity() && decided(true)}, 'Confirm'),
        el('button', {type: 'button', class: 'danger', onclick: () => decided(false)}, 'Reject')))
      form.addEventListener('submit', e => { e.preventDefault(); form.reportValidity() && decided(true) })
      body.append(form)
      say('The run is paused. The agent waits for your decision.')
      form.querySelector('h3').focus()
      log.scrollTop = log.scrollHeight
    },
    note(e) { body.append(e) },
    fail(e) { close(); body.append(problem(e)) },
    async stored(run, session) {
      box.dataset.run = run.run_id
      box.dataset.status = run.status.toLowerCase()
      for (const t of run.tools || []) if (t.result !== null || t.tool_call_error) tool(t)
      if (run.content && run.status !== 'ERROR') {
        const b = el('div', {class: 'text'}, run.content)
        body.append(b)
        await render(b, run.content)
      }
      const m = run.metrics || {}
      foot.append(m.total_tokens ? count(m.total_tokens) + ' tokens · ' : '', when(run.created_at), ' ',
        el('a', {href: `#/runs/${esc(session)}/${esc(run.run_id)}`}, 'Details'))
      if (run.status === 'ERROR') body.append(problem({detail: run.content || 'The run failed'}))
      if (run.status === 'CANCELLED') body.append(badge('stopped', 'warn'))
      if (run.status === 'PAUSED') view.pause(run.tools || [], {agent: run.agent_id, run: run.run_id, session})
    },
  }
  return view
}

// consent shows one call that needs a person: to confirm it, to fill in arguments, or to execute it elsewhere.
function consent(t) {
  const id = 'call-' + t.tool_call_id.replace(/\W/g, '_')
  const inputs = t.requires_user_input ? (t.user_input_schema || []).filter(f => f.value === null || f.value === undefined) : []
  return el('fieldset', {}, el('legend', {}, el('code', {}, t.tool_name)),
    el('pre', {tabindex: '0', 'aria-label': 'Arguments'}, json(t.tool_args)),
    inputs.map(f => el('label', {}, f.name, el('input', {id: id + '-' + f.name.replace(/\W/g, '_'), required: true, 'aria-description': f.description || f.field_type}))),
    t.external_execution_required ? el('label', {}, 'Result of the call, which you execute yourself', el('textarea', {id: id + '-result', rows: '3', required: true})) : '',
    t.requires_confirmation ? el('label', {}, 'Reason, if you reject it (optional)', el('input', {id: id + '-note'})) : '')
}

// decide returns the call with the person's decision.
function decide(form, t, yes) {
  const id = 'call-' + t.tool_call_id.replace(/\W/g, '_')
  const value = name => form.querySelector('#' + CSS.escape(id + '-' + name))?.value
  if (t.requires_confirmation) return {...t, confirmed: yes, confirmation_note: yes ? null : value('note') || null}
  if (!yes) return t
  if (t.external_execution_required) return {...t, result: value('result')}
  return {...t, answered: true, user_input_schema: (t.user_input_schema || []).map(f =>
    f.value !== null && f.value !== undefined ? f : {...f, value: typed(value(f.name.replace(/\W/g, '_')), f.field_type)})}
}

// typed turns what a person typed into the type of the argument, by AgentOS's names of types.
function typed(text, type) {
  if (type === 'int' || type === 'float') return Number(text)
  if (type === 'bool') return /^(true|yes|1)$/i.test(text)
  if (type === 'list' || type === 'dict') try { return JSON.parse(text) } catch { return text }
  return text
}
