package acceptance

import (
	"bytes"
	"mime/multipart"
	"strings"
	"testing"
)

// markup are texts that would do something if the console took them for markup. Each sets pwned, makes an element, or
// loads something from another host.
var markup = []string{
	`<img src=x onerror="globalThis.pwned=1">`,
	`<script>globalThis.pwned=2</script>`,
	`<svg onload="globalThis.pwned=3"></svg>`,
	`<iframe src="http://evil.example/"></iframe>`,
	`<a href="javascript:globalThis.pwned=4">x</a>`,
	`[click](javascript:globalThis.pwned=5)`,
	`[click](data:text/html,<script>globalThis.pwned=6</script>)`,
	`![picture](http://evil.example/picture.png)`,
	`<style>body { display: none }</style>`,
	`<form action="http://evil.example/"><input name="x"></form>`,
	`<div id="main" onclick="globalThis.pwned=7">x</div>`,
	`"><b id="who">x</b>`,
	`<math><mtext><table><mglyph><style><img src=x onerror="globalThis.pwned=8">`,
	"[a]: http://evil.example/\n\n<http://evil.example/>",
	`<base href="http://evil.example/">`,
	`<meta http-equiv="refresh" content="0;url=http://evil.example/">`,
}

// unharmed fails if a text has become an element, has been executed, or has become a link that leads to a script.
func unharmed(c *consoleTab, where string) {
	c.t.Helper()
	for _, found := range script[[]string](c, `const bad = [];
		if (globalThis.pwned !== undefined) bad.push('pwned ' + globalThis.pwned);
		for (const name of ['img', 'script', 'iframe', 'style', 'base', 'meta', 'math', 'object'])
			for (const e of document.querySelectorAll('main ' + name)) bad.push(e.outerHTML);
		for (const e of document.querySelectorAll('.text *, pre *, .person *, td b, summary b, h1 *, #who #who'))
			for (const a of e.attributes) if (/^(on|style|id|name|src|action)/.test(a.name)) bad.push(e.outerHTML);
		for (const a of document.querySelectorAll('.text a'))
			if (!/^https?:$/.test(a.protocol) || !a.rel.includes('noopener')) bad.push(a.outerHTML);
		for (const id of ['main', 'who', 'nav'])
			if (document.querySelectorAll('#' + id).length !== 1) bad.push('two elements ' + id);
		if (!document.body.checkVisibility()) bad.push('the page is hidden');
		return bad`) {
		c.t.Errorf("%s: %s", where, found)
	}
}

func TestConsoleShowsTextsAsData(t *testing.T) {
	t.Parallel()
	c := startConsole(t, heldAfter(100, nil))
	c.expect("requires 'TrustedHTML' assignment")
	all := strings.Join(markup, "\n\n")
	token := consoleToken("ann"+markup[0], "agents:read", "agents:run", "sessions:read", "sessions:write", "memories:read",
		"memories:write", markup[1], "agents:"+markup[0]+":run")
	c.signIn(token, true)

	// Claims.
	c.sees("ann<img src=x")
	c.view("me", "Who am I")
	c.sees("<script>globalThis.pwned=2</script>")
	unharmed(c, "claims")
	c.view("can", "What may I do")
	c.press("Run Assistant: allowed")
	unharmed(c, "the matrix")

	// What a person and a model write.
	c.view("chat", "Chat")
	c.says("echo: " + all)
	c.answered(1)
	c.await(`$('article.agent .formatted')`)
	c.sees(`<iframe src="http://evil.example/"></iframe>`)
	unharmed(c, "the text of a model")

	// Arguments and results of tools, called and waiting.
	c.says(`call tool look_up {"what": ` + jsText(all) + `}`)
	c.answered(2)
	script[bool](c, `document.querySelectorAll('details').forEach(d => { d.open = true }); return true`)
	unharmed(c, "the result of a tool")
	c.says(`call tool sign {"text": ` + jsText(all) + `}`)
	c.sees("The agent waits for you")
	unharmed(c, "the arguments of a tool")

	// The name of a session, in the list and in a dialog.
	c.press("Rename")
	c.fill("dialog input", strings.Join(markup[:3], " "))
	c.click("dialog button[type=submit]")
	c.sees(markup[1])
	unharmed(c, "the name of a session")
	c.press("Rename <img")
	unharmed(c, "a dialog")
	c.press("Cancel")

	// The stored conversation, the run, approvals, and the name of a file.
	c.load("")
	c.sees("The agent waits for you")
	c.await(`$('article.agent .formatted')`)
	unharmed(c, "the stored conversation")
	c.view("approvals", "Approvals")
	c.sees("The agent waits for you")
	unharmed(c, "approvals")
	uploadNamed(c, token, markup[0]+".txt")
	c.view("runs", "Runs")
	c.sees("about a file")
	unharmed(c, "the list of runs")
	c.click(".v-runs tbody a")
	c.sees("Steps")
	c.sees(`.txt`)
	unharmed(c, "the name of a file")

	// Memories.
	c.view("memories", "Memories")
	c.press("Add")
	c.fill("dialog textarea", all)
	c.fill("dialog input", markup[1])
	c.click("dialog button[type=submit]")
	c.sees(markup[3])
	unharmed(c, "memories")

	// Code of the page that would turn a text into markup without DOMPurify fails.
	got := script[string](c, `try { $('main').innerHTML = '<b>x</b>'; return 'set' } catch (e) { return e.name }`)
	if got != "TypeError" {
		t.Errorf("innerHTML: %s", got)
	}

	// An administrator sees the subject as the owner of an active run.
	c.press("Sign out")
	c.signIn(consoleToken("admin", "agent_os:admin"), false)
	c.view("active", "Active runs")
	c.sees("ann<img src=x")
	unharmed(c, "active runs")
}

// uploadNamed starts a run with a file of this name, which no form of the console sends.
func uploadNamed(c *consoleTab, token, name string) {
	c.t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.WriteField("message", "about a file")
	_ = w.WriteField("stream", "false")
	part, err := w.CreateFormFile("files", name)
	if err != nil {
		c.t.Fatal(err)
	}
	_, _ = part.Write([]byte("text")) // a bytes.Buffer returns no errors
	_ = w.Close()
	c.r.Call("-", "POST", "/agents/assistant/runs", &b, "Content-Type", w.FormDataContentType(),
		"Authorization", "Bearer "+token).Want(c.t, "a run with a file", 200)
}
