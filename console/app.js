// Signing in, and which view is shown. A view is in the list only if the token may send its requests.
import {el, put, byId, problem, say, badge, left} from './dom.js'
import {call, useToken, keptToken, signedIn, learn, may, forget, Refused} from './api.js'

// views has for each one the module and function that show it, and the request that it needs: none for any token. Functions
// have none of the local ones.
const views = [
  {id: 'chat', title: 'Chat', load: () => import('./chat.js'), show: 'chat', params: ['session']},
  {id: 'memories', title: 'Memories', load: () => import('./data.js'), show: 'memories', needs: ['GET', '/memories']},
  {id: 'runs', title: 'Runs', load: () => import('./data.js'), show: 'runs', params: ['session', 'run'], needs: ['GET', '/sessions']},
  {id: 'approvals', title: 'Approvals', load: () => import('./data.js'), show: 'approvals', needs: ['GET', '/sessions']},
  {id: 'me', group: 'Access', title: 'Who am I', load: () => import('./access.js'), show: 'whoami'},
  {id: 'can', title: 'What may I do', load: () => import('./access.js'), show: 'can'},
  {id: 'lab', title: 'Token lab', load: () => import('./access.js'), show: 'lab', dev: true},
  {id: 'active', group: 'Operate', title: 'Active runs', load: () => import('./operate.js'), show: 'active', needs: ['GET', '/active-runs']},
  {id: 'decisions', title: 'Decisions', load: () => import('./operate.js'), show: 'decisions', needs: ['GET', '/decisions'], local: true},
  {id: 'usage', title: 'Usage', load: () => import('./operate.js'), show: 'usage', needs: ['GET', '/usage']},
  {id: 'diff', title: 'Diff', load: () => import('./operate.js'), show: 'diff', needs: ['POST', '/diff'], local: true},
  {id: 'health', title: 'Health', load: () => import('./operate.js'), show: 'health', operate: true},
]

const main = byId('main'), nav = byId('nav'), menu = byId('menu'), enter = byId('enter')
const dev = 'keyway.dev'
let me = null, current = null, timer = 0

const shown = v => v.local && !me.local ? false : v.needs ? may(...v.needs) : v.dev ? sessionStorage.getItem(dev) !== null : true

async function signIn(token, keep) {
  useToken(token, keep)
  forget()
  try {
    me = await call('GET', '/whoami')
    await learn(views.filter(v => v.needs).map(v => v.needs))
  } catch (e) {
    useToken('', false)
    throw e
  }
  document.body.className = 'in'
  byId('os').textContent = me.os_id || ''
  const tick = () => {
    const l = left(me)
    put(byId('who'), me.admin ? badge('administrator', 'warn') : '', ' ', el('b', {}, me.sub || 'no subject'), ' ',
      el('span', {class: l.expired || l.soon ? 'bad-text' : 'dim'}, l.text))
  }
  clearInterval(timer)
  timer = setInterval(tick, 1000)
  tick()
  put(nav, el('ul', {}, views.filter(shown).flatMap(v => [
    v.group ? el('li', {class: 'group'}, v.group) : '',
    el('li', {}, el('a', {href: '#/' + v.id, 'data-view': v.id}, v.title))])))
  await go()
}

function signOut(e) {
  current?.abort()
  clearInterval(timer)
  useToken('', false)
  forget()
  me = null
  document.body.className = 'out'
  for (const place of [nav, byId('who'), byId('os')]) put(place)
  put(main, enter)
  put(byId('refused'), ...e ? [problem(e)] : [])
  document.title = 'Keyway console'
  byId('token').focus()
}

// go shows the view that the address names.
async function go() {
  if (!signedIn()) return
  const [id, ...rest] = location.hash.replace(/^#\/?/, '').split('/')
  const view = views.find(v => v.id === id && shown(v)) || views[0]
  const at = Object.fromEntries((view.params || []).map((name, i) => [name, decode(rest[i])]))
  current?.abort()
  const controller = current = new AbortController()
  menuOpen(false)
  for (const a of nav.querySelectorAll('a')) {
    if (a.dataset.view === view.id) a.setAttribute('aria-current', 'page')
    else a.removeAttribute('aria-current')
  }
  document.title = view.title + ' · Keyway console'
  const h1 = el('h1', {tabindex: '-1'}, view.title)
  const root = el('div', {class: 'view v-' + view.id})
  put(main, h1, root)
  h1.focus({preventScroll: true})
  try {
    const module = await view.load()
    if (!controller.signal.aborted) await module[view.show](root, at, controller.signal, me)
  } catch (e) {
    if (e.name !== 'AbortError' && !controller.signal.aborted) put(root, problem(e))
  }
}

const decode = s => { try { return decodeURIComponent(s || '') } catch { return '' } }

function menuOpen(yes) {
  menu.setAttribute('aria-expanded', String(yes))
  nav.classList.toggle('open', yes)
}

addEventListener('hashchange', go)
addEventListener('signed-out', e => { if (me) signOut(e.detail) })
menu.addEventListener('click', () => menuOpen(menu.getAttribute('aria-expanded') !== 'true'))
byId('leave').addEventListener('click', () => {
  sessionStorage.removeItem('keyway.run') // another person may sign in next
  signOut()
  say('You are signed out.')
})
document.querySelector('.skip').addEventListener('click', e => { e.preventDefault(); main.focus() })
enter.addEventListener('submit', async e => {
  e.preventDefault()
  const token = byId('token').value.trim().replace(/^Bearer\s+/i, '')
  const refused = byId('refused')
  put(refused)
  if (!/^[\x21-\x7e]+$/.test(token)) {
    refused.append(problem({detail: 'This is not a token', remedy: 'Paste the whole token, without line breaks. It usually begins with eyJ.'}))
    return
  }
  const button = enter.querySelector('button')
  button.disabled = true
  try {
    await signIn(token, byId('keep').checked)
    byId('token').value = ''
  } catch (e) { put(refused, problem(e)) } finally { button.disabled = false }
})

// start signs in by the one-time code of keyway serve --dev, or by the token of this tab.
async function start() {
  const one = /^#code=([\w.-]+)$/.exec(location.hash)
  if (location.hash.startsWith('#code=')) history.replaceState(null, '', location.pathname + location.search)
  try {
    if (one) {
      const {token} = await call('POST', '/dev/sign-in', {data: {code: one[1]}})
      sessionStorage.setItem(dev, '1')
      await signIn(token, false)
    } else if (keptToken()) {
      await signIn(keptToken(), true)
    } else {
      byId('token').focus()
    }
  } catch (e) {
    signOut(e instanceof Refused ? e : new Refused(0, {detail: String(e)}))
  }
}
start()
