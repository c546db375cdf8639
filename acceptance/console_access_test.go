package acceptance

import (
	"strings"
	"testing"
	"time"
)

func TestConsoleSignsInAndExplainsWhatTheTokenAllows(t *testing.T) {
	t.Parallel()
	c := startConsole(t, nil)
	c.expect("status of 401")
	token := consoleToken("ann", "agents:assistant:read", "agents:assistant:run", "agents:plain:read", "sessions:read")

	c.fill("#token", "two words")
	c.press("Sign in")
	c.sees("This is not a token")
	c.fill("#token", "eyJh.bbbb.cccc")
	c.press("Sign in")
	c.sees("401")
	c.signIn(token, false)
	c.lacks("Decisions")
	c.lacks("Memories")

	c.view("me", "Who am I")
	c.sees("agents:assistant:run")
	c.sees("expires in 59 min")
	c.view("can", "What may I do")
	c.press("Run Assistant: allowed")
	c.await(`$('#why').innerText.includes('POST /agents/assistant/runs')`)
	c.await(`$('#why').innerText.includes('agents:assistant:run')`)
	c.press("Tools of Assistant (look_up, delete_account, book, sign): allowed")
	c.await(`$('#why').innerText.includes('POST /agents/assistant/runs')`)
	c.press("Run Plain: denied")
	c.await(`$('#why').innerText.includes('403') && $('#why').innerText.includes('agents:plain:run')`)
	c.press("Delete: Memories: denied")
	c.await(`$('#why').innerText.includes('memories:delete')`)

	// The chat offers only what the token runs.
	c.view("chat", "Chat")
	c.await(`[...document.querySelectorAll('#agent option')].map(o => o.value).join() === 'assistant'`)

	// The token is gone after a reload, unless the person keeps it in the tab.
	c.load("")
	c.await(`$('#token')?.checkVisibility()`)
	c.signIn(token, true)
	c.load("#/me")
	c.sees("Scopes, and where each came from")
	c.press("Sign out")
	c.load("")
	c.await(`$('#token')?.checkVisibility()`)
}

// The chat does not offer an agent that the token may not run. Here the page asks for one all the same, as if the rules
// had changed since it was loaded.
func TestConsoleShowsWhyARunIsDenied(t *testing.T) {
	t.Parallel()
	c := startConsole(t, nil)
	c.expect("status of 403")
	c.signIn(consoleToken("ann", "agents:read", "agents:assistant:run", "sessions:read"), false)
	c.await(`[...document.querySelectorAll('#agent option')].map(o => o.value).join() === 'assistant'`)
	script[bool](c, `$('#agent option').value = 'plain'; return true`)
	c.says("hello")
	c.sees("403 Insufficient permissions")
	c.await(`$('article.agent .problem').innerText.includes('agents:plain:run')`)
	c.sees("Ask the issuer of your token for these scopes")
	if asked := c.r.Model.Requests(); len(asked) > 0 {
		t.Errorf("%d requests reached the model", len(asked))
	}
}

func TestConsoleShowsThatATokenHasExpired(t *testing.T) {
	t.Parallel()
	c := startConsole(t, nil)
	c.expect("status of 401")
	c.fill("#token", expiring(time.Now().Add(-time.Hour), `["agents:read"]`))
	c.press("Sign in")
	c.sees("Token has expired")
	c.sees("Sign in again with a new token")

	c.signIn(expiring(time.Now().Add(4*time.Second), `["agents:read","sessions:read"]`), false)
	c.view("me", "Who am I")
	c.await(`$('.clock').innerText === 'expired' && $('#say').innerText.includes('has expired')`)
	c.await(`$('#who').innerText.includes('expired')`)
}

// The view of runs asks the server every few seconds, so it finds out by itself.
func TestConsoleSignsOutWhenTheServerRefusesTheToken(t *testing.T) {
	t.Parallel()
	c := startConsole(t, nil)
	c.expect("status of 401")
	c.signIn(consoleToken("ann", "sessions:read"), true)
	c.view("runs", "Runs")
	c.sees("No runs yet")
	c.r.Call("admin", "POST", "/revocations", strings.NewReader(`{"sub":"ann"}`), "Content-Type", "application/json").
		Want(t, "the revocation", 201)
	c.sees("401")
	c.sees("Sign in again with a new token")
	c.lacks("No runs yet")
	if kept := script[int](c, "return sessionStorage.length"); kept != 0 {
		t.Errorf("after the sign-out the tab keeps %d values", kept)
	}
}

func TestConsoleAddsEditsAndDeletesMemories(t *testing.T) {
	t.Parallel()
	c := startConsole(t, nil)
	c.signIn(consoleToken("ann", "memories:read", "memories:write", "memories:delete"), false)
	c.view("memories", "Memories")
	c.press("Add")
	c.fill("dialog textarea", "Likes tea")
	c.fill("dialog input", "drinks, mornings")
	c.click("dialog button[type=submit]")
	c.sees("Likes tea")
	c.sees("mornings")
	c.press("Edit Likes tea")
	c.fill("dialog textarea", "Likes coffee")
	c.click("dialog button[type=submit]")
	c.sees("Likes coffee")
	c.fill("#search", "nothing like this")
	c.sees("No memories yet")
	c.fill("#search", "")
	c.press("Delete Likes coffee")
	c.click("dialog button[type=submit]")
	c.sees("No memories yet")
}
