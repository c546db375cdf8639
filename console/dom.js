// Elements and texts. A string always becomes a text node here, so that no text of a
// model, a tool or a person can become markup.

// el makes an element: el('a', {href: '…', onclick: f}, 'text', child). Attributes that are
// null, undefined or false are left out.
export function el(name, attributes, ...inside) {
  return fill(document.createElement(name), attributes, inside)
}

// svg is el for a drawing.
export function svg(name, attributes, ...inside) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, inside)
}

function fill(e, attributes, inside) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue
    if (key.startsWith('on')) e.addEventListener(key.slice(2), value)
    else if (key === 'value' || key === 'checked') e[key] = value
    else e.setAttribute(key, value === true ? '' : value)
  }
  e.append(...shown(inside))
  return e
}

const shown = list => list.flat(Infinity).filter(x => x !== null && x !== undefined && x !== false)

// put replaces what is in an element.
export const put = (e, ...inside) => e.replaceChildren(...shown(inside))

export const code = text => el('code', {}, text)
export const badge = (text, kind) => el('span', {class: 'badge ' + (kind || '')}, text)
export const byId = id => document.getElementById(id)

// say makes a screen reader announce a sentence.
export function say(text) { byId('say').textContent = text }

export const json = value => JSON.stringify(value, null, 2)

// shorten cuts a long text for a line in a list.
export const shorten = (text, n = 90) => {
  text = String(text ?? '').replace(/\s+/g, ' ').trim()
  return text.length > n ? text.slice(0, n - 1) + '…' : text
}

const seconds = v => typeof v === 'number' ? v : Date.parse(v) / 1000

// when shows a time: Unix seconds, or a text of ISO 8601.
export function when(v) {
  if (!v) return '–'
  const at = new Date(seconds(v) * 1000)
  return el('time', {datetime: at.toISOString(), title: at.toISOString()}, at.toLocaleString(undefined,
    {month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit'}))
}

// span says a number of seconds in words.
export function span(s) {
  if (s > 0 && s < 0.001) return '< 1 ms'
  if (s < 1) return Math.round(s * 1000) + ' ms'
  if (s < 60) return (s < 10 ? s.toFixed(1) : Math.floor(s)) + ' s'
  if (s < 3600) return Math.floor(s / 60) + ' min ' + Math.floor(s % 60) + ' s'
  if (s < 86400) return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min'
  return Math.floor(s / 86400) + ' d ' + Math.floor(s % 86400 / 3600) + ' h'
}

// left says how long a token is valid, or that it has expired.
export function left(me) {
  if (!me.expires_at) return {text: 'does not expire', expired: false}
  const s = seconds(me.expires_at) - Date.now() / 1000
  return s > 0 ? {text: 'expires in ' + span(s), expired: false, soon: s < 300} : {text: 'expired', expired: true}
}

export const count = n => (n ?? 0).toLocaleString()
export const money = v => v === undefined || v === null ? '–' : '$' + (v < 1 ? Number(v).toFixed(4) : Number(v).toFixed(2))

// table makes a table with a caption, from the names of the columns and rows of cells.
export function table(caption, columns, rows, empty = 'Nothing yet.') {
  if (!rows.length) return el('p', {class: 'dim empty'}, empty)
  return el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption}, el('table', {},
    el('caption', {class: 'unseen'}, caption),
    el('thead', {}, el('tr', {}, columns.map(c => el('th', {scope: 'col', class: c.endsWith(' #') && 'num'}, c.replace(/ #$/, ''))))),
    el('tbody', {}, rows.map(r => r instanceof Node ? r : el('tr', {},
      r.map((c, i) => el('td', {class: columns[i].endsWith(' #') && 'num'}, c)))))))
}

// facts makes a list of names and values.
export const facts = list => el('dl', {class: 'facts'},
  list.filter(Boolean).map(([name, ...value]) => [el('dt', {}, name), el('dd', {}, ...value)]))

// problem shows an error with its remedy.
export function problem(e) {
  return el('div', {class: 'problem', role: 'alert'},
    el('strong', {}, e.status ? e.status + ' ' : '', e.detail || e.message || String(e)),
    e.missing?.length ? el('p', {}, 'Missing: ', e.missing.map(s => [code(s), ' '])) : null,
    e.hint ? el('p', {}, e.hint) : null,
    e.remedy ? el('p', {class: 'dim'}, e.remedy) : null,
    e.id ? el('p', {class: 'dim small'}, 'Request ', code(e.id)) : null)
}

// ask opens a dialog and returns its form's values, or null if it was closed.
// Each field is [name, label, value], and a field with a value of several lines is a textarea.
export function ask(title, text, fields, yes, danger) {
  return new Promise(resolve => {
    const before = document.activeElement
    const inputs = fields.map(([name, label, value, long]) => {
      const input = long ? el('textarea', {name, rows: 4, value}) : el('input', {name, value})
      return el('label', {}, label, input)
    })
    const form = el('form', {method: 'dialog'}, el('h2', {id: 'ask'}, title), text ? el('p', {}, text) : null, inputs,
      el('div', {class: 'row end'}, el('button', {type: 'button', class: 'quiet', onclick: () => d.close()}, 'Cancel'),
        el('button', {type: 'submit', class: danger ? 'danger' : 'main'}, yes)))
    const d = el('dialog', {'aria-labelledby': 'ask'}, form)
    let answer = null
    form.addEventListener('submit', e => {
      e.preventDefault()
      answer = Object.fromEntries(inputs.map(l => l.lastChild).map(i => [i.name, i.value]))
      d.close()
    })
    d.addEventListener('close', () => { d.remove(); before?.focus?.(); resolve(answer) })
    document.body.append(d)
    d.showModal()
    const first = form.querySelector('input, textarea')
    first?.focus()
    first?.select?.()
  })
}

// every calls f now and then every ms, one call after the other, until the signal aborts.
export async function every(ms, signal, f) {
  while (!signal.aborted) {
    await f()
    await new Promise(done => {
      const t = setTimeout(done, ms)
      signal.addEventListener('abort', () => { clearTimeout(t); done() }, {once: true})
    })
  }
}
