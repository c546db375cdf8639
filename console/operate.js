// What an administrator looks at: health, active runs, decisions, usage, and what another configuration would change.
import {el, put, svg, badge, code, table, when, count, money, say, ask, problem, every, facts, json} from './dom.js'
import {call, Refused, may, learn} from './api.js'
import {pages} from './data.js'

export async function health(root, at, signal) {
  const place = el('div', {'aria-live': 'polite'})
  root.append(place)
  await every(5000, signal, async () => {
    const began = performance.now()
    let ready = null, wrong = null
    try { ready = await call('GET', '/readyz', {signal}) } catch (e) { if (e.name === 'AbortError') return; wrong = e }
    const took = Math.round(performance.now() - began)
    const info = await call('GET', '/info', {signal}).catch(() => null)
    const alive = await call('GET', '/health', {signal}).catch(() => null)
    if (signal.aborted) return
    put(place, facts([
      ['Ready', ready ? badge(ready.status || 'ready', 'good') : badge('not ready', 'bad'), ` answered in ${took} ms`],
      ['Process', alive ? [badge(alive.status, 'good'), ' since ', when(alive.instantiated_at)] : badge('no answer', 'bad')],
      info && ['Version', code(info.os_version)], info && ['API', 'AgentOS ' + info.agno_version],
      info && ['Agents', count(info.agent_count)],
    ]), wrong ? problem(wrong) : '')
  })
}

export async function active(root, at, signal) {
  await learn([['DELETE', '/active-runs']])
  const place = el('div', {})
  let page = 1, shown = ''
  const cancel = async (query, text) => {
    if (!await ask('Cancel runs?', text, [], 'Cancel them', true)) return
    try {
      const done = await call('DELETE', '/active-runs', {query})
      say(`${done.cancelled} runs are cancelled.`)
    } catch (e) { root.append(problem(e)) }
    load()
  }
  async function load() {
    try {
      const list = await call('GET', '/active-runs', {query: {limit: 50, page}, signal})
      const now = json(list)
      if (now === shown) return
      shown = now
      put(place, table('Active runs', ['Status', 'Agent', 'User', 'Started', 'Attempt #', ' '], list.data.map(r => [
        badge(r.status.toLowerCase(), r.status === 'PAUSED' ? 'warn' : 'live'), r.agent_id, r.user_id ? code(r.user_id) : '–', when(r.created_at),
        String(r.attempt), may('DELETE', '/active-runs') && r.user_id ? el('button', {type: 'button', class: 'small', onclick: () =>
          cancel({user_id: r.user_id}, `All runs of ${r.user_id} are cancelled.`)}, 'Cancel the user’s runs') : '']),
      'No run is in progress.'), pages(list.meta, p => { page = p; load() }))
    } catch (e) { if (e.name !== 'AbortError') put(place, problem(e)) }
  }
  root.append(el('div', {class: 'row bar'}, may('DELETE', '/active-runs') && el('button', {type: 'button', class: 'danger', onclick: () =>
    cancel({all: 'true'}, 'The runs of all users are cancelled.')}, 'Cancel all runs')), place)
  await every(2000, signal, load)
}

// elsewhere explains a route that only the local server has.
const elsewhere = e => e instanceof Refused && e.status === 404
  ? Object.assign(new Refused(404, {detail: 'This server does not have this view'}), {
    remedy: 'Decisions and Diff are on the local server only, keyway serve. For a deployment there are the logs and the keyway command.'}) : e

export async function decisions(root, at, signal) {
  const body = el('tbody', {})
  const state = el('p', {class: 'dim', role: 'status'}, 'Waiting for decisions …')
  const only = el('input', {type: 'checkbox', id: 'denied'})
  only.addEventListener('change', () => body.classList.toggle('denied-only', only.checked))
  root.append(el('div', {class: 'row bar'}, el('label', {class: 'check'}, only, 'Denied only')), state,
    el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Decisions'}, el('table', {}, el('caption', {class: 'unseen'}, 'Decisions'),
      el('thead', {}, el('tr', {}, ['Time', 'Decision', 'Request', 'Agent', 'Missing or reason', 'Caller'].map(c => el('th', {scope: 'col'}, c)))), body)))
  let after
  await every(1500, signal, async () => {
    try {
      const {decisions, next} = await call('GET', '/decisions', {query: {limit: 200, after}, signal})
      after = next
      for (const d of decisions) { // the oldest first
        body.prepend(el('tr', {class: d.allow ? 'allow' : 'deny'}, [
          when(d.time), badge(d.allow ? 'allowed' : `denied ${d.status || ''}`, d.allow ? 'good' : 'bad'), code(d.route || d.method), d.agent || '',
          d.missing?.length ? d.missing.map(m => [code(m), ' ']) : d.reason || '', d.principal ? code(d.principal) : 'no token',
        ].map(c => el('td', {}, c))))
      }
      while (body.children.length > 500) body.lastChild.remove()
      state.textContent = body.children.length ? `The newest ${body.children.length} decisions, the newest first. Callers are hashes.` : 'No decisions yet.'
    } catch (e) {
      if (e.name === 'AbortError') return
      put(root, problem(elsewhere(e)))
    }
  })
}

// plot draws stacked bars: rows of {day, name, value}.
function plot(title, rows, format) {
  const days = [...new Set(rows.map(r => r.day))].sort(), names = [...new Set(rows.map(r => r.name))].sort()
  const value = (day, name) => rows.filter(r => r.day === day && r.name === name).reduce((s, r) => s + r.value, 0)
  const top = Math.max(1e-9, ...days.map(d => names.reduce((s, n) => s + value(d, n), 0)))
  const [w, h, left] = [360, 170, 56], step = (w - left) / Math.max(days.length, 1)
  const drawing = svg('svg', {viewBox: `0 0 ${w} ${h + 24}`, role: 'img', 'aria-label': `${title} by day: ` +
    days.map(d => `${d} ${format(names.reduce((s, n) => s + value(d, n), 0))}`).join(', ')})
  for (const part of top < 10 ? [0, 1] : [0, 0.5, 1]) {
    const y = h - part * (h - 12)
    drawing.append(svg('line', {x1: left, x2: w, y1: y, y2: y, class: 'grid'}),
      svg('text', {x: left - 6, y: y + 4, 'text-anchor': 'end', class: 'axis'}, format(top * part)))
  }
  days.forEach((d, i) => {
    let y = h
    names.forEach((n, k) => {
      const part = value(d, n) / top * (h - 12)
      if (!part) return
      y -= part
      drawing.append(svg('rect', {x: left + i * step + step * 0.15, y, width: Math.min(step * 0.7, 48), height: part, class: 'series s' + k % 6},
        svg('title', {}, `${d} ${n}: ${format(value(d, n))}`)))
    })
    if (days.length <= 14 || i % Math.ceil(days.length / 14) === 0) {
      drawing.append(svg('text', {x: left + i * step + step * 0.15, y: h + 17, class: 'axis'}, d.slice(5)))
    }
  })
  return el('figure', {class: 'card plot'}, el('figcaption', {}, title), drawing,
    el('ul', {class: 'legend'}, names.slice(0, 12).map((n, k) => el('li', {}, el('i', {class: 'series s' + k % 6}), n))))
}

export async function usage(root, at, signal) {
  const by = el('select', {id: 'by'}, [['agent_id', 'agent'], ['user_id', 'user'], ['model', 'model']].map(([v, t]) => el('option', {value: v}, t)))
  const place = el('div', {})
  root.append(el('div', {class: 'row bar'}, el('label', {class: 'inline'}, 'By', by), el('span', {class: 'dim'}, 'The last 30 days, in UTC.')), place)
  const {data, meta} = await call('GET', '/usage', {query: {limit: 1000}, signal})
  const draw = () => {
    const of = f => data.map(r => ({day: r.day, name: r[by.value] || '–', value: f(r)}))
    put(place,
      data.length ? el('div', {class: 'plots'}, plot('Tokens', of(r => r.input_tokens + r.output_tokens), v => count(Math.round(v))),
        plot('Runs', of(r => r.runs), v => count(Math.round(v))),
        data.some(r => r.cost) && plot('Cost', of(r => r.cost || 0), v => '$' + v.toFixed(v < 1 ? 4 : 2))) : '',
      meta.total_pages > 1 ? el('p', {class: 'dim'}, `The latest ${count(data.length)} of ${count(meta.total_count)} rows.`) : '',
      table('Usage', ['Day', 'Agent', 'User', 'Model', 'Runs #', 'Tokens in #', 'Tokens out #', 'Cost #'], data.map(r => [
        r.day, r.agent_id, r.user_id || '–', r.model, count(r.runs), count(r.input_tokens), count(r.output_tokens), money(r.cost)]), 'No run has ended in these days.'))
  }
  by.addEventListener('change', draw)
  draw()
}

// diff shows what another keyway.yaml would decide differently about the requests in the log of decisions.
export async function diff(root, at, signal) {
  const file = el('input', {type: 'file', id: 'file', accept: '.yaml,.yml'})
  const drop = el('label', {class: 'drop card', for: 'file'}, el('b', {}, 'Drop a changed keyway.yaml here'),
    el('span', {class: 'dim'}, 'or choose one. It is compared with the log of decisions and not put in force; no variable in it is expanded.'), file)
  const place = el('div', {'aria-live': 'polite', id: 'diff'})
  root.append(drop, place)
  const list = (name, rows) => [el('h2', {}, name), table(name, ['Request', 'Agent', 'Needs', 'Missing', 'Callers #', 'Requests #'], rows.map(r => [
    code(r.request), r.agent || 'any', r.needs.map(s => [code(s), ' ']), [...r.missing, ...r.was_missing].map(s => [code(s), ' ']),
    count(r.callers), count(r.count)]), 'Nobody.')]
  async function compare(f) {
    if (!f) return
    put(place, el('p', {class: 'dim'}, `Comparing ${f.name} …`))
    try {
      const d = await call('POST', '/diff', {body: f, type: 'application/yaml', signal})
      put(place, el('p', {}, code(f.name), ` decides ${count(d.replayed)} of ${count(d.decisions)} logged requests again.`,
        d.unsure ? ` ${count(d.unsure)} depend on an id that the log does not have.` : '', d.more ? ` ${count(d.more)} rows are left out.` : ''),
      list('Gains: newly allowed', d.gains), list('Loses: newly refused', d.loses))
    } catch (e) { if (e.name !== 'AbortError') put(place, problem(elsewhere(e))) }
  }
  file.addEventListener('change', () => compare(file.files[0]))
  drop.addEventListener('dragover', e => { e.preventDefault(); drop.classList.add('over') })
  drop.addEventListener('dragleave', () => drop.classList.remove('over'))
  drop.addEventListener('drop', e => { e.preventDefault(); drop.classList.remove('over'); compare(e.dataTransfer.files[0]) })
}
