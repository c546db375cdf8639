package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
)

// consoleTab is a browser tab that shows the console of a server. At the end of the test it must have sent no request
// to another host and logged no error.
type consoleTab struct {
	t   *testing.T
	ctx context.Context
	url string // of the API, with a slash at the end
	r   *server
	// code is the fragment that keyway serve --dev has printed. Defaults to "".
	code string

	mu       sync.Mutex
	hosts    map[string]bool
	faults   []string
	expected []string // parts of errors that the test causes on purpose
}

// openConsole opens the console in a new browser. address is that of the API, without a slash at the end.
func openConsole(t *testing.T, address string) *consoleTab {
	t.Helper()
	c := &consoleTab{t: t, ctx: process.Browser(t), url: address + "/", hosts: map[string]bool{}}
	if err := chromedp.Listen(c.ctx, c.collect); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.check)
	c.size(1280, 800)
	c.load("")
	return c
}

// collect keeps what the browser reports.
func (c *consoleTab) collect(event any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err != nil || u.Scheme != "data" {
			c.hosts[e.Request.URL] = true
		}
	case *runtime.EventExceptionThrown:
		c.faults = append(c.faults, "exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			c.faults = append(c.faults, fmt.Sprintf("console.%s: %s", e.Type, e.Args[0].Value))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			c.faults = append(c.faults, e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

// expect allows errors with this text in the browser's log: the browser logs each answer of 4xx.
func (c *consoleTab) expect(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected = append(c.expected, text)
}

func (c *consoleTab) check() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for address := range c.hosts {
		if !strings.HasPrefix(address, c.url) {
			c.t.Errorf("the console sent a request to %s", address)
		}
	}
	for _, fault := range c.faults {
		allowed := false
		for _, text := range c.expected {
			allowed = allowed || strings.Contains(fault, text)
		}
		if !allowed {
			c.t.Errorf("the browser logged: %s", fault)
		}
	}
}

func (c *consoleTab) do(actions ...chromedp.Action[chromedp.Void]) {
	c.t.Helper()
	if err := chromedp.Do(c.ctx, actions...); err != nil {
		c.t.Fatal(err)
	}
}

// load opens the console anew, with a fragment such as #/runs.
func (c *consoleTab) load(fragment string) {
	c.t.Helper()
	c.do(chromedp.Navigate("about:blank"))
	c.do(chromedp.Navigate(c.url + "console/" + fragment))
}

func (c *consoleTab) size(width, height int64) {
	c.t.Helper()
	c.do(chromedp.EmulateViewport(width, height))
}

// scheme sets prefers-color-scheme.
func (c *consoleTab) scheme(value string) {
	c.t.Helper()
	c.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}},
		})
		return err
	}))
}

// script evaluates JavaScript in the page: $ finds an element by its selector, and until(f) waits for a true result.
func script[T any](c *consoleTab, body string) T {
	c.t.Helper()
	const prelude = `const $ = s => document.querySelector(s);
		const until = f => new Promise((found, lost) => {
			const until = Date.now() + 90000, missed = () => new Error('not there: ' + f + '\n' + document.body.innerText);
			const look = () => { let v; try { v = f() } catch {} ;
				if (v) found(v); else if (Date.now() > until) lost(missed()); else setTimeout(look, 20) };
			look();
		});`
	v, err := chromedp.Run(c.ctx, chromedp.Evaluate[T]("(async () => {"+prelude+body+"})()", chromedp.EvalAwaitPromise))
	if err != nil {
		c.t.Fatalf("%s: %v", body, err)
	}
	return v
}

// await waits until a JavaScript condition is true.
func (c *consoleTab) await(condition string) {
	c.t.Helper()
	script[bool](c, "await until(() => "+condition+"); return true")
}

// sees waits until the page shows the text.
func (c *consoleTab) sees(text string) {
	c.t.Helper()
	c.await("document.body.innerText.includes(" + jsText(text) + ")")
}

// lacks fails if the page shows the text.
func (c *consoleTab) lacks(text string) {
	c.t.Helper()
	if script[bool](c, "return document.body.innerText.includes("+jsText(text)+")") {
		c.t.Errorf("the page shows %q", text)
	}
}

// jsText is a text as a string of JavaScript.
func jsText(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string can always be encoded
	}
	return string(data)
}

// click waits for an element and clicks it.
func (c *consoleTab) click(selector string) {
	c.t.Helper()
	script[bool](c, "(await until(() => $("+jsText(selector)+"))).click(); return true")
}

// press clicks the button with this text or label.
func (c *consoleTab) press(name string) {
	c.t.Helper()
	script[bool](c, `const named = b => (b.getAttribute('aria-label') || b.innerText).trim().startsWith(`+jsText(name)+`);
		(await until(() => [...document.querySelectorAll('button, summary')].
			find(b => named(b) && !b.disabled && b.checkVisibility()))).click();
		return true`)
}

// fill sets the value of a field, as a person who types it.
func (c *consoleTab) fill(selector, value string) {
	c.t.Helper()
	script[bool](c, `const e = await until(() => $(`+jsText(selector)+`)); e.focus(); e.value = `+jsText(value)+`;
		for (const name of ['input', 'change']) e.dispatchEvent(new Event(name, {bubbles: true}));
		return true`)
}

// signIn pastes a token and waits for the first view.
func (c *consoleTab) signIn(token string, keep bool) {
	c.t.Helper()
	c.fill("#token", token)
	if keep {
		c.click("#keep")
	}
	c.press("Sign in")
	c.await(`$('nav a')`)
}

// view opens a view and waits for its title.
func (c *consoleTab) view(id, title string) {
	c.t.Helper()
	script[bool](c, `location.hash = '#/`+id+`'; await until(() => $('main h1')?.innerText === `+jsText(title)+
		` && $('main .v-`+strings.Split(id, "/")[0]+`')?.childElementCount > 0); return true`)
}

// says sends a message in the chat. It does not wait for the answer.
func (c *consoleTab) says(text string) {
	c.t.Helper()
	c.await(`$('#agent option') && !$('#send').disabled && $('#stop').hidden`)
	c.fill("#message", text)
	c.click("#send")
}

// answered waits for the end of the n-th run on the page, and returns its status.
func (c *consoleTab) answered(n int) string {
	c.t.Helper()
	return script[string](c, fmt.Sprintf(`return await until(() => $('#stop').hidden &&
		document.querySelectorAll('article.agent')[%d]?.dataset.status)`, n-1))
}

// consoleToken is a token for the quickstart's servers, valid for an hour.
func consoleToken(sub string, scopes ...string) string {
	list, err := json.Marshal(append([]string{}, scopes...))
	if err != nil {
		panic(err) // a list of strings can always be encoded
	}
	return hmacForge("HS256", config.PublishedSecret).
		token(payload("aud", "", "sub", jsText(sub), "scopes", string(list)))
}

// expiring is a token that is valid until then.
func expiring(at time.Time, scopes string) string {
	return hmacForge("HS256", config.PublishedSecret).
		token(payload("aud", "", "exp", fmt.Sprint(at.Unix()), "scopes", scopes))
}

// startConsole starts a server with tools of each kind, whose model obeys commands, and opens its console.
// pause holds chunks of a model's answer back.
func startConsole(t *testing.T, pause func(chunk int) <-chan struct{}) *consoleTab {
	t.Helper()
	r := startWith(t, process.WithTools, clientsConfig, pausingModel(t, pause), "PAGE_ORIGIN", "http://localhost:3000")
	c := openConsole(t, r.URL)
	c.r = r
	return c
}
