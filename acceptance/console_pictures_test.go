package acceptance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// picture writes a screenshot of the window into the directory of "make screenshots", if it is set.
func picture(c *consoleTab, name string) {
	c.t.Helper()
	png, err := chromedp.Run(c.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		c.t.Fatal(err)
	}
	dir := os.Getenv("KEYWAY_SCREENSHOTS")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), png, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// The pictures of the documents are of a server that has executed the runs which they show.
func TestConsolePicturesShowRealData(t *testing.T) {
	t.Parallel()
	scripts := []modeltest.Script{
		modeltest.ToolCall("look_up", `{"what": "order 4711"}`),
		modeltest.Text("Your order **4711** left the warehouse this morning.\n\n",
			"| Parcel | Status |\n|---|---|\n| 1 of 2 | delivered |\n| 2 of 2 | on its way |\n\n",
			"The second parcel arrives tomorrow, between 9 and 12."),
		modeltest.Text("I can delete your account. ").ToolCall("delete_account", `{"id": 7}`),
	}
	r := startWith(t, process.WithTools, "testdata/clients/console.yaml",
		modeltest.NewServerFunc(t, func(asked modeltest.Request) modeltest.Script {
			answer := modeltest.Text("Here is what I found.")
			if asked.N <= len(scripts) {
				answer = scripts[asked.N-1]
			}
			return answer.Usage(model.Usage{Input: 412, Output: 90 + asked.N, Total: 502 + asked.N})
		}))
	c := openConsole(t, r.URL)
	c.r = r
	c.size(1280, 900)
	c.signIn(consoleToken("ann@example.com", "agents:read", "agents:support:run", "sessions:read", "sessions:write",
		"memories:read", "memories:write"), true)
	c.says("Where is my order 4711?")
	c.answered(1)
	c.says("Thank you. Please delete my account after that.")
	c.sees("The agent waits for you")
	script[bool](c, `$('#log').scrollTop = 0; document.activeElement.blur(); return true`)
	picture(c, "console-chat.png")
	c.scheme("dark")
	c.size(1280, 740)
	c.view("can", "What may I do")
	c.press("Run Billing: denied")
	c.await(`$('#why').innerText.includes('agents:billing:run')`)
	script[bool](c, `document.activeElement.blur(); return true`)
	picture(c, "console-matrix.png")
	c.scheme("light")
	c.view("runs", "Runs")
	c.click(".v-runs tbody tr:nth-child(2) a")
	c.sees("Steps")
	script[bool](c, `document.activeElement.blur(); return true`)
	picture(c, "console-run.png")
	c.size(390, 780)
	c.view("chat", "Chat")
	c.sees("4711")
	picture(c, "console-narrow.png")

	c.size(1280, 740)
	for i, agent := range []string{"billing", "research", "support", "research", "support", "support", "billing"} {
		sub := []string{"bob@example.com", "cleo@example.com"}[i%2]
		body, kind := process.Form(t, "message", "a question", "stream", "false")
		r.Call("-", "POST", "/agents/"+agent+"/runs", body, "Content-Type", kind,
			"Authorization", "Bearer "+consoleToken(sub, "agents:run")).Want(t, "a run of "+sub, 200)
	}
	c.press("Sign out")
	c.signIn(consoleToken("admin", "agent_os:admin"), false)
	c.view("usage", "Usage")
	c.sees("Tokens in")
	picture(c, "console-usage.png")
}
