package acceptance

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/store/storetest"
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

func TestConsoleNamesTheOwnerOfASessionOfAnotherUser(t *testing.T) {
	t.Parallel()
	c := startOperated(t)
	token := consoleToken("bob@example.com", "agents:run", "agents:read", "sessions:read")
	body, kind := process.Form(t, "message", "echo: of bob's", "session_id", "bobs", "stream", "false")
	c.r.Call("-", "POST", "/agents/support/runs", body, "Content-Type", kind, "Authorization", "Bearer "+token).
		Want(t, "a run of bob's", 200)
	c.view("chat", "Chat")
	c.press("echo: of bob's")
	c.await(`$('article.agent').innerText.includes("of bob's")`)
	c.await(`$('#sessions').innerText.includes('support · bob@example.com')`)
	c.view("runs", "Runs")
	c.sees("· bob@example.com")

	c.press("Sign out")
	c.signIn(token, false)
	c.sees("echo: of bob's") // the same view, with his own token
	c.lacks("· bob@example.com")
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

func TestConsoleShowsDecisionsAsTheyAreMade(t *testing.T) {
	t.Parallel()
	c := startOperated(t)
	c.view("decisions", "Decisions")
	c.sees("agents:support:run") // ann's request before
	rows := script[int](c, `return document.querySelectorAll('.v-decisions tbody tr').length`)
	c.r.Get("bob", "/memories").Want(t, "bob's memories", 200)
	c.await(`$('.v-decisions tbody tr').innerText.includes('GET /memories')`)
	c.r.Get("nobody", "/memories").Want(t, "a refused request", 403)
	c.await(`$('.v-decisions tbody tr').innerText.includes('denied 403')`)
	c.await(`document.querySelectorAll('.v-decisions tbody tr').length === ` + fmt.Sprint(rows+2))
	c.click("#denied")
	c.await(`[...document.querySelectorAll('.v-decisions tbody tr.allow')].every(r => !r.checkVisibility())`)
	c.await(`$('.v-decisions tbody tr.deny').checkVisibility()`)
}

func TestConsoleComparesADroppedFileWithTheDecisions(t *testing.T) {
	t.Parallel()
	c := startOperated(t)
	c.expect("status of 422")
	c.view("diff", "Diff")
	drop := func(name, text string) {
		t.Helper()
		script[bool](c, `const all = new DataTransfer(); all.items.add(new File([`+jsText(text)+`], `+jsText(name)+`));
			$('.drop').dispatchEvent(new DragEvent('drop', {dataTransfer: all, bubbles: true, cancelable: true}));
			return true`)
	}
	const agents = "agents: [{id: support, model: 'openai:x'}, {id: billing, model: 'openai:x'}]\n"
	drop(markup[0]+".yaml", "id: shop\nauth: {scope_mappings: {'POST /agents/*/runs': ['agents:read']}}\n"+agents)
	c.sees("Gains: newly allowed")
	c.await(`$('#diff table').innerText.includes('POST /agents/{agent_id}/runs')`)
	c.await(`$('#diff table').innerText.includes('agents:support:run')`)
	c.sees(markup[0] + ".yaml")
	unharmed(c, "the name of a file")
	drop("broken.yaml", "id: shop\nagents: [{id: a, model: 'x:y', unknown: 1}]\n")
	c.await(`$('#diff .problem').innerText.includes('422')`)
}

// startDevConsole starts a server with --dev and opens the address that it prints.
func startDevConsole(t *testing.T) *consoleTab {
	t.Helper()
	r := newDevDir(t, "quickstart").serve(t, map[string]string{"DATABASE_URL": storetest.EmptyURL(t)})
	c := openConsole(t, r.URL)
	c.r, c.code = r, r.AwaitLog(`console: http://\S+/console/(#code=\S+)`)[1]
	c.load(c.code)
	c.await(`$('nav a')`)
	return c
}

func TestConsoleOfDevOpensByACodeAndTriesTokens(t *testing.T) {
	t.Parallel()
	c := startDevConsole(t)
	if hash := script[string](c, "return location.href + document.referrer"); strings.Contains(hash, "code=") {
		t.Errorf("the address is %s", hash)
	}
	c.view("lab", "Token lab")
	c.press("Run Finance Agent: denied")
	c.await(`$('#why').innerText.includes('agents:finance-agent:run')`)
	c.click(`input[value="agents:finance-agent:run"]`)
	c.press("Run Finance Agent: allowed")
	c.press("Run Assistant: denied")
	unharmed(c, "the lab")

	// The token of the command does what the matrix shows.
	command := script[string](c, "return $('#curl').dataset.text")
	token := regexp.MustCompile(`Bearer ([^"]+)`).FindStringSubmatch(command)
	if token == nil || !strings.HasPrefix(command, "curl -N ") {
		t.Fatalf("the command is %s", command)
	}
	c.r.Tokens["tried"] = token[1]
	c.r.Run("tried", "finance-agent", "message", "hi").Want(t, "the allowed agent", 200)
	c.r.Run("tried", "assistant", "message", "hi").Want(t, "the denied agent", 403)

	// A code counts once.
	c.expect("status of 401")
	c.load(c.code)
	c.sees("401")
	c.await(`$('#token').checkVisibility() && !location.href.includes('code=')`)
}
