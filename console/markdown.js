// The text of a model is data. marked turns it into HTML, and DOMPurify leaves of that only
// the elements below. HTML inside the text is shown as it was written, an image becomes a link,
// and a link leads to http or https only.
import {Marked} from './marked.esm.js'
import './purify.min.js'

const escape = s => s.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)

const marked = new Marked({gfm: true, breaks: true, async: false, renderer: {
  html: token => escape(token.text ?? token.raw),
  image: token => `<a href="${escape(token.href)}">${escape(token.text || token.href)}</a>`,
  checkbox: ({checked}) => checked ? '☑ ' : '☐ ',
}})

const purifier = globalThis.DOMPurify
const allowed = {
  RETURN_DOM_FRAGMENT: true,
  ALLOWED_TAGS: ['p', 'br', 'hr', 'strong', 'em', 'del', 'code', 'pre', 'blockquote', 'ul', 'ol', 'li', 'a',
    'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'table', 'thead', 'tbody', 'tr', 'th', 'td'],
  ALLOWED_ATTR: ['href', 'title', 'start', 'align'],
  ALLOWED_URI_REGEXP: /^https?:\/\//i,
  ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false,
}
purifier.addHook('afterSanitizeAttributes', e => {
  if (e.tagName !== 'A') return
  e.setAttribute('rel', 'noopener noreferrer nofollow')
  e.setAttribute('target', '_blank')
})

// longest is the length of a text that is still formatted.
const longest = 400_000
// paragraph is the length from which a paragraph may be cut.
const paragraph = 4000
// budget is how long one frame may format, in milliseconds.
const budget = 12

const frame = () => new Promise(done => requestAnimationFrame(done))

// divided cuts a paragraph that is too long for one frame into several, at spaces.
function divided(token) {
  if (token.type !== 'paragraph' || token.raw.length < 2 * paragraph) return [token]
  const parts = []
  for (let rest = token.raw; rest;) {
    let end = rest.length < paragraph ? -1 : rest.indexOf(' ', paragraph)
    if (end < 0) end = rest.length
    parts.push(...marked.lexer(rest.slice(0, end)))
    rest = rest.slice(end + 1)
  }
  return parts
}

// render formats a text into the element, some blocks a frame, so that a long answer blocks
// no frame. The text is replaced when all of it is ready.
export async function render(target, text) {
  if (text.length > longest) return
  const out = document.createElement('div')
  const tokens = marked.lexer(text).flatMap(divided)
  for (let i = 0; i < tokens.length;) {
    const until = performance.now() + budget
    while (i < tokens.length && performance.now() < until) {
      out.append(purifier.sanitize(marked.parser(tokens.slice(i, i + 1)), allowed))
      i++
    }
    if (i < tokens.length) await frame()
  }
  // A link that leads elsewhere is its text.
  for (const a of out.querySelectorAll('a:not([href])')) a.replaceWith(...a.childNodes)
  // A block of code or a table can be wider than the window: it scrolls, also by keyboard.
  for (const wide of out.querySelectorAll('pre, table')) {
    wide.setAttribute('tabindex', '0')
  }
  if (text.length > longest / 20) target.classList.add('long')
  target.replaceChildren(...out.childNodes)
  target.classList.add('formatted')
}
