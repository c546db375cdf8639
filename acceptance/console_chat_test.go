package acceptance

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// pausingModel obeys commands. pause returns what each chunk of "slow N" waits for.
func pausingModel(t *testing.T, pause func(chunk int) <-chan struct{}) *modeltest.Server {
	t.Helper()
	return modeltest.NewServerFunc(t, modeltest.Commands{Pause: pause}.Obey)
}

// heldAfter holds back all chunks after the first n, until the channel is closed.
func heldAfter(n int, release <-chan struct{}) func(chunk int) <-chan struct{} {
	return func(chunk int) <-chan struct{} {
		if chunk < n {
			return done
		}
		return release
	}
}

func TestConsoleStreamsAnAnswerAndStopsARun(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c := startConsole(t, heldAfter(1, release))
	c.signIn(consoleToken("ann", "agents:read", "agents:run", "sessions:read", "sessions:write", "sessions:delete"), false)

	c.says("slow 3")
	c.sees("chunk-0")
	c.lacks("chunk-1")
	c.press("Stop")
	if got := c.answered(1); got != "cancelled" {
		t.Errorf("the stopped run is %s", got)
	}
	c.sees("stopped")

	close(release)
	c.says("slow 3")
	if got := c.answered(2); got != "completed" {
		t.Errorf("the next run is %s", got)
	}
	c.sees("chunk-0 chunk-1 chunk-2")

	c.says("echo: # Title\n\n- one\n- two\n\n**bold** and `code`")
	c.answered(3)
	c.await(`$('article.agent:last-of-type h1')?.innerText === 'Title' && $('article.agent:last-of-type li')`)

	// The session is in the list, and can be renamed, opened and deleted.
	c.press("Rename slow 3")
	c.fill("dialog input", "My first session")
	c.click("dialog button[type=submit]")
	c.sees("My first session")
	c.press("New session")
	c.sees("A new session begins")
	c.press("My first session")
	c.sees("chunk-0 chunk-1 chunk-2")
	c.press("Delete My first session")
	c.click("dialog button[type=submit]")
	c.sees("No sessions yet")

	// An error of the model shows its reason.
	c.says("fail 500")
	if got := c.answered(1); got != "error" {
		t.Errorf("the failed run is %s", got)
	}
	c.await(`$('article.agent .problem')`)
}

func TestConsoleResumesARunAfterAReload(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c := startConsole(t, heldAfter(1, release))
	scopes := []string{"agents:read", "agents:run"}
	for _, keep := range []bool{true, false} {
		if !keep { // without the scope to list sessions, and with a token that is pasted again
			c.load("")
			c.press("Sign out")
		} else {
			scopes = append(scopes, "sessions:read")
		}
		token := consoleToken("ann", scopes...)
		scopes = scopes[:2]
		c.signIn(token, keep)
		c.says("slow 2")
		c.sees("chunk-0")
		c.load("")
		if !keep {
			c.signIn(token, false)
		}
		c.sees("chunk-0")
		if stored := script[string](c, `return sessionStorage.getItem('keyway.run')`); strings.Contains(stored, "eyJ") {
			t.Errorf("the session storage has %s", stored)
		}
		c.press("Stop")
		if got := c.answered(1); got != "cancelled" {
			t.Errorf("the resumed run is %s", got)
		}
	}
	close(release)
	c.says("slow 2")
	c.answered(2)
	c.sees("chunk-0 chunk-1")
}

func TestConsoleAsksAPersonBeforeAToolIsCalled(t *testing.T) {
	t.Parallel()
	c := startConsole(t, heldAfter(100, nil))
	c.signIn(consoleToken("ann", "agents:read", "agents:run", "sessions:read"), true)

	c.says(`call tool look_up {"what": "cats"}`)
	c.answered(1)
	c.sees("tool look_up returned: cats, for ann")
	c.await(`$('.tool summary').innerText.includes('done')`)

	c.says(`call tool delete_account {"id": 7}`)
	c.sees("The agent waits for you")
	c.press("Confirm")
	c.sees("tool delete_account returned: account 7 is gone")

	c.says(`call tool delete_account {"id": 8}`)
	c.sees("The agent waits for you")
	c.fill(".consent input", "not this one")
	c.press("Reject")
	c.sees("tool delete_account returned: not this one")

	c.says(`call tool book {"film": "Heat"}`)
	c.sees("seats")
	c.fill(".consent input", "3")
	c.press("Confirm")
	c.sees("3 seats for Heat")

	// A paused run is still there after a reload, and among the approvals.
	c.says(`call tool sign {"text": "a contract"}`)
	c.sees("Result of the call")
	c.load("")
	c.sees("The agent waits for you")
	c.view("approvals", "Approvals")
	c.sees("a contract")
	c.fill(".consent textarea", "signed by ann")
	c.press("Confirm")
	c.sees("tool sign returned: signed by ann")

	// The run's steps are on a time line.
	c.view("runs", "Runs")
	c.await(`document.querySelectorAll('.v-runs tbody tr').length === 5`)
	c.click(".v-runs tbody a")
	c.await(`[...document.querySelectorAll('.steps li .name')].map(e => e.innerText).join() === 'Model,sign,Model'`)
}
