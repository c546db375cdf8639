package functions_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/console"
)

// below serves a deployment below the base path of a custom domain.
func below(t *testing.T, base string, s signer) (address string) {
	t.Helper()
	d := document(t, "../examples/quickstart/keyway.yaml")
	d.base = base
	door := http.NewServeMux()
	door.Handle(base+"/", http.StripPrefix(base, d.front("JWT_VERIFICATION_KEY="+s.public)))
	server := httptest.NewServer(door)
	t.Cleanup(server.Close)
	return server.URL + base
}

func TestConfigFunctionServesTheConsoleBelowABasePath(t *testing.T) {
	t.Parallel()
	address := below(t, "/team/os", hmacSigner())
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(path string) (status int, header http.Header, body string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", "gzip")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(text)
	}
	if status, header, _ := get("/console"); status != 307 || header.Get("Location") != "console/index.html" {
		t.Errorf("without the slash: %d to %q", status, header.Get("Location"))
	}
	for path, name := range map[string]string{"/console/": console.Index, "/console/app.js": "app.js"} {
		file, _ := console.Lookup(name)
		status, header, body := get(path)
		policy := header.Get("Content-Security-Policy")
		if status != 200 || body != string(file.Content) || header.Get("Content-Encoding") != "" ||
			!strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") {
			t.Errorf("%s: %d, %d bytes, %q", path, status, len(body), header)
		}
	}
}

// The authorizer and five functions answer what the page asks.
func TestConsoleWorksWithTheBuiltFunctions(t *testing.T) {
	t.Parallel()
	ctx := process.Browser(t)
	s := hmacSigner()
	address := below(t, "/team/os", s)
	token := s.authorization(t, "ann", map[string]any{"scopes": []string{"agents:read", "agents:assistant:run"}})
	do := func(javaScript string) string {
		t.Helper()
		got, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(async () => {
			const until = f => new Promise((found, lost) => {
				const end = Date.now() + 60000;
				const look = () => { let v; try { v = f() } catch {} ;
					if (v) found(v);
					else if (Date.now() > end) lost(new Error(f + '\n' + document.body.innerText));
					else setTimeout(look, 20) };
				look() });
			`+javaScript+`})()`, chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(address+"/console")); err != nil {
		t.Fatal(err)
	}
	answer := do(`await until(() => location.pathname === '/team/os/console/index.html');
		await until(() => document.activeElement.id === 'token');
		document.querySelector('#token').value = '` + token + `';
		document.querySelector('#enter button').click();
		await until(() => document.querySelector('#agent option') && !document.querySelector('#send').disabled);
		document.querySelector('#message').value = 'Hello';
		document.querySelector('#send').click();
		return await until(() => document.querySelector('article.agent[data-status=completed]')?.innerText)`)
	if !strings.HasPrefix(answer, "hello") {
		t.Errorf("the agent answered %q", answer)
	}
	matrix := do(`location.hash = '#/can';
		await until(() => document.querySelectorAll('.cell').length > 4);
		const cell = [...document.querySelectorAll('.cell')].find(c => c.ariaLabel.startsWith('Run Finance Agent'));
		cell.click();
		return cell.ariaLabel + '. ' + document.querySelector('#why').innerText`)
	if !strings.Contains(matrix, "denied") || !strings.Contains(matrix, "agents:finance-agent:run") {
		t.Errorf("the matrix explains %q", matrix)
	}
}
