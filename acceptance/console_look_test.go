package acceptance

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// consoleViews are the views of an administrator with their titles.
var consoleViews = [][2]string{
	{"chat", "Chat"}, {"memories", "Memories"}, {"runs", "Runs"}, {"approvals", "Approvals"}, {"me", "Who am I"},
	{"can", "What may I do"}, {"active", "Active runs"}, {"decisions", "Decisions"},
	{"usage", "Usage"}, {"diff", "Diff"}, {"health", "Health"},
}

// furnish fills the console with data of each kind: a run that has ended, one with a tool, one that is paused, and a
// memory. It returns the address of a run.
func furnish(c *consoleTab) string {
	c.t.Helper()
	c.says("echo: # A title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode\n```\n\n[a link](https://example.com)")
	c.answered(1)
	c.says(`call tool look_up {"what": "the weather"}`)
	c.answered(2)
	c.says(`call tool delete_account {"id": 7}`)
	c.answered(3)
	c.view("memories", "Memories")
	c.press("Add")
	c.fill("dialog textarea", "Likes tea")
	c.fill("dialog input", "drinks")
	c.click("dialog button[type=submit]")
	c.sees("Likes tea")
	c.view("runs", "Runs")
	return script[string](c, `return (await until(() => [...document.querySelectorAll('.v-runs tbody a')].
		find(a => a.innerText.includes('look_up')))).getAttribute('href').slice(2)`)
}

// settled waits until a view has loaded its data.
func settled(c *consoleTab, id string) {
	c.t.Helper()
	shows := map[string]string{
		"memories": "Likes tea", "active": "Attempt", "approvals": "waits for you", "health": "ok",
		"usage": "Tokens in", "decisions": "the newest first", "diff": "Drop a changed",
	}[id]
	if strings.HasPrefix(id, "runs/") {
		shows = "Steps"
	}
	c.sees(shows)
}

// accessible returns a function that runs axe-core in the page and fails the test for each serious finding.
func accessible(t *testing.T) func(c *consoleTab, where string) {
	t.Helper()
	file := os.Getenv("KEYWAY_AXE")
	if file == "" {
		process.Require(t, "KEYWAY_AXE names no axe.min.js; run make axe, and set the variable that it prints")
	}
	axe, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *consoleTab, where string) {
		t.Helper()
		c.do(chromedp.Evaluate[chromedp.Void](string(axe)))
		for _, finding := range script[[]string](c, `const found = await axe.run(document, {resultTypes: ['violations']});
			return found.violations.filter(v => v.impact === 'serious' || v.impact === 'critical').flatMap(v =>
				v.nodes.map(n => v.id + ' at ' + n.target.join(' ') + ': ' + n.failureSummary))`) {
			t.Errorf("%s: %s", where, finding)
		}
	}
}

func TestConsoleHasNoSeriousFindingOfAccessibility(t *testing.T) {
	t.Parallel()
	check := accessible(t)
	c := startConsole(t, heldAfter(100, nil))
	c.scheme("dark")
	check(c, "sign in, dark")
	c.scheme("light")
	check(c, "sign in")
	c.signIn(consoleToken("admin", "agent_os:admin"), true)
	views := append(consoleViews[:len(consoleViews):len(consoleViews)], [2]string{furnish(c), "Runs"})
	for _, scheme := range []string{"light", "dark"} {
		c.scheme(scheme)
		for _, v := range views {
			c.view(v[0], v[1])
			settled(c, v[0])
			if v[0] == "can" {
				c.press("Run Assistant: allowed")
			}
			check(c, v[1]+", "+scheme)
		}
	}
	c.view("chat", "Chat")
	c.press("Rename")
	c.await(`$('dialog')`)
	check(c, "a dialog")
}

func TestTheLabHasNoSeriousFindingOfAccessibility(t *testing.T) {
	t.Parallel()
	check := accessible(t)
	c := startDevConsole(t)
	for _, scheme := range []string{"light", "dark"} {
		c.scheme(scheme)
		c.view("lab", "Token lab")
		c.press("Run Finance Agent: denied")
		check(c, "the lab, "+scheme)
	}
	c.size(390, 844)
	if wide := script[int](c, `return $('main').scrollWidth`); wide > 390 {
		t.Errorf("the lab has a width of %d", wide)
	}
}

func TestConsoleFitsANarrowWindow(t *testing.T) {
	t.Parallel()
	c := startConsole(t, heldAfter(100, nil))
	c.signIn(consoleToken("admin", "agent_os:admin"), true)
	views := append(consoleViews[:len(consoleViews):len(consoleViews)], [2]string{furnish(c), "Runs"})
	c.size(390, 844)
	for _, v := range views {
		c.view(v[0], v[1])
		settled(c, v[0])
		if over := script[string](c, `const wide = [...document.querySelectorAll('body, main, main .view')].
			filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.tagName + '.' + e.className + ' ' + e.scrollWidth);
			return wide.join(', ')`); over != "" {
			t.Errorf("%s is wider than the window: %s", v[1], over)
		}
	}
	c.lacks("Token lab")
	c.await(`!$('nav').checkVisibility()`)
	c.press("Menu")
	c.await(`$('nav').checkVisibility() && $('#menu').getAttribute('aria-expanded') === 'true'`)
	c.click(`nav a[data-view=health]`)
	c.await(`!$('nav').checkVisibility() && $('h1').innerText === 'Health' && document.activeElement === $('h1')`)
}

// A person without a mouse signs in, and finds each control by the keyboard with a visible focus.
func TestConsoleIsUsedByKeyboard(t *testing.T) {
	t.Parallel()
	c := startConsole(t, heldAfter(100, nil))
	token := consoleToken("ann", "agents:read", "agents:run", "sessions:read")
	c.await(`document.activeElement.id === 'token'`)
	c.do(chromedp.KeyEvent(token))
	c.do(chromedp.KeyEvent("\t"), chromedp.KeyEvent("\t"))
	c.await(`document.activeElement.innerText === 'Sign in' && document.activeElement.matches(':focus-visible')`)
	c.do(chromedp.KeyEvent("\r"))
	c.await(`document.activeElement.id === 'message' && !$('#send').disabled`)
	c.do(chromedp.KeyEvent("echo: by keyboard"), chromedp.KeyEvent("\r"))
	if got := c.answered(1); got != "completed" {
		t.Errorf("the run is %s", got)
	}
	c.sees("by keyboard")
	for i := range 12 { // through the whole page
		c.do(chromedp.KeyEvent("\t"))
		if bare := script[string](c, `const e = document.activeElement;
			return e === document.body || getComputedStyle(e).outlineStyle === 'solid' ? '' : e.outerHTML`); bare != "" {
			t.Errorf("after %d tabs the focus is not visible: %s", i+1, bare)
		}
	}
}

// Each view says what it is: a title, landmarks, and a name for each control.
func TestConsoleTitlesNameTheView(t *testing.T) {
	t.Parallel()
	c := startConsole(t, nil)
	c.signIn(consoleToken("admin", "agent_os:admin"), false)
	for _, v := range consoleViews {
		c.view(v[0], v[1])
		want := fmt.Sprintf("%s · Keyway console", v[1])
		if got := script[string](c, "return document.title"); got != want {
			t.Errorf("the title is %q, want %q", got, want)
		}
		c.await(`$('nav a[aria-current=page]').innerText === ` + jsText(v[1]))
	}
}
