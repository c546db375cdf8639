package acceptance

import (
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// startOperated is a server whose models have prices, with a run of ann's and one of bob's.
func startOperated(t *testing.T) *consoleTab {
	t.Helper()
	r := startWith(t, process.WithTools, "testdata/clients/console.yaml", pausingModel(t, nil))
	r.Run("ann", "support", "message", "echo: one two three").Want(t, "a run of ann's", 403)
	r.Run("admin", "support", "message", "echo: one two three").Want(t, "a run", 200)
	r.Run("admin", "billing", "message", "echo: four").Want(t, "another run", 200)
	r.Run("admin", "billing", "message", `call tool nothing {}`).Want(t, "a third run", 200)
	c := openConsole(t, r.URL)
	c.r = r
	c.signIn(consoleToken("admin", "agent_os:admin"), true)
	return c
}

func TestConsolePlotsUsageByAgentUserAndModel(t *testing.T) {
	t.Parallel()
	c := startOperated(t)
	c.view("usage", "Usage")
	c.sees("Tokens in")
	legend := `[...document.querySelectorAll('.plot:first-child .legend li')].map(l => l.innerText).join()`
	c.await(legend + ` === 'billing,support'`)
	c.await(`document.querySelectorAll('.plot rect').length >= 5`)
	c.await(`/^Runs by day: [0-9-]+ 3$/.test(document.querySelectorAll('.plot svg')[1].getAttribute('aria-label'))`)
	c.fill("#by", "model")
	c.await(legend + ` === 'gpt-4o'`)
	c.fill("#by", "user_id")
	c.await(legend + ` === 'admin'`)
	c.await(`document.querySelectorAll('.v-usage tbody tr').length === 2`)
	c.await(`/\$0\.\d+/.test($('.v-usage tbody').innerText)`)
}

func TestConsoleListsAndCancelsActiveRuns(t *testing.T) {
	t.Parallel()
	c := startOperated(t)
	c.r.Run("admin", "support", "message", `call tool delete_account {"id": 1}`).Want(t, "a paused run", 200)
	c.view("active", "Active runs")
	c.sees("paused")
	c.press("Cancel all runs")
	c.sees("The runs of all users are cancelled")
	c.click("dialog button[type=submit]")
	c.sees("No run is in progress")
	c.sees("1 runs are cancelled")
	c.view("health", "Health")
	c.sees("AgentOS 3.1.10")
	c.await(`$('.v-health .badge').innerText === 'ok'`)
}
