package acceptance

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// answered is what a page received for a request. Status 0 means that the browser
// blocked the request or hid its answer from the page.
type answered struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
	Type   string `json:"type"`
	ID     string `json:"id"`
}

func (a answered) want(t *testing.T, what string, status int, contains ...string) {
	t.Helper()
	process.Reply{Status: a.Status, Body: a.Body}.Want(t, what, status, contains...)
}

// page serves testdata/clients/page.html on an origin of its own. The channel seen is
// closed when the page has read the first text of a stream.
func page(t *testing.T) (origin string, seen <-chan struct{}) {
	t.Helper()
	ch := make(chan struct{})
	firstText := sync.OnceFunc(func() { close(ch) })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r,
			"testdata/clients/page.html")
	})
	mux.HandleFunc("POST /seen", func(http.ResponseWriter, *http.Request) { firstText() })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL, ch
}

// tab is a browser tab that shows the page of an origin. The page calls the server.
type tab struct {
	t      *testing.T
	ctx    context.Context
	origin string
	r      *server
}

// as opens the page with a caller's token. The returned function evaluates a
// JavaScript expression in the page and returns what the expression answers.
func (b tab) as(sub string) func(expression string) answered {
	b.t.Helper()
	query := url.Values{"os": {b.r.URL}, "token": {b.r.Tokens[sub]}}
	if err := chromedp.Do(b.ctx, chromedp.Navigate(b.origin+"/?"+query.Encode())); err != nil {
		b.t.Fatal(err)
	}
	return func(expression string) answered {
		b.t.Helper()
		a, err := chromedp.Run(b.ctx, chromedp.Evaluate[answered](expression, chromedp.EvalAwaitPromise))
		if err != nil {
			b.t.Fatalf("%s: %v", expression, err)
		}
		return a
	}
}

func TestBrowserPageSendsTheRequestsOfAgentUI(t *testing.T) {
	t.Parallel()
	ctx := process.Browser(t)
	origin, seen := page(t)
	model := modeltest.NewServerFunc(t, modeltest.Commands{Pause: func(chunk int) <-chan struct{} {
		if chunk == 0 {
			return done
		}
		return seen
	}}.Obey)
	r := startWith(t, process.WithTools, clientsConfig, model, "PAGE_ORIGIN", origin)
	window := tab{t, ctx, origin, r}
	do := window.as("ann")

	do(`call("GET", "/health")`).want(t, "health", 200, `"status":"ok"`)
	do(`call("GET", "/agents")`).want(t, "agents", 200, `"id":"assistant"`, `"db_id":"keyway"`)
	do(`call("GET", "/teams")`).want(t, "teams", 200, `[]`)

	streamed := do(`run("assistant", "slow 2")`)
	streamed.want(t, "run", 200)
	events := process.Frames(t, streamed.Body)
	if process.Names(events) != allEvents || events[len(events)-1].Data["content"] != "chunk-0 chunk-1 " {
		t.Errorf("the page read %s", streamed.Body)
	}
	if streamed.Type != "text/event-stream; charset=utf-8" || streamed.ID == "" {
		t.Errorf("content type %q, request id %q", streamed.Type, streamed.ID)
	}

	var sessions struct {
		Data []struct {
			ID   string `json:"session_id"`
			Name string `json:"session_name"`
		}
	}
	list := do(`call("GET", "/sessions?type=agent&component_id=assistant&db_id=keyway")`)
	if err := json.Unmarshal([]byte(list.Body), &sessions); err != nil || len(sessions.Data) != 1 ||
		sessions.Data[0].Name != "slow 2" {
		t.Fatalf("sessions: %v %+v", err, list)
	}
	session := "/sessions/" + sessions.Data[0].ID
	do(`call("GET", "`+session+`/runs?type=agent&db_id=keyway")`).
		want(t, "runs", 200, `"run_input":"slow 2"`, `"content":"chunk-0 chunk-1 "`)
	do(`call("DELETE", "`+session+`?db_id=keyway")`).want(t, "delete", 204)
	do(`call("GET", "`+session+`/runs?type=agent&db_id=keyway")`).want(t, "runs, after", 404, "not found")

	// The page can read the body of an error as well.
	do(`run("nope", "hi")`).want(t, "an unknown agent", 404, "Agent not found")
	window.as("reader")(`call("GET", "/sessions")`).want(t, "a token without the scope", 403, "Insufficient permissions")
	if !strings.Contains(r.Stderr.String(), `"method":"OPTIONS"`) {
		t.Errorf("the browser sent no preflight request: %s", r.Log())
	}
}

func TestBrowserPageOfAnUnlistedOriginIsBlocked(t *testing.T) {
	t.Parallel()
	ctx := process.Browser(t)
	origin, _ := page(t)
	r := startWith(t, process.WithTools, clientsConfig, commandModel(t), "PAGE_ORIGIN", "http://localhost:3000")
	do := tab{t, ctx, origin, r}.as("ann")
	for _, expression := range []string{
		`call("GET", "/agents")`, `call("GET", "/health")`, `call("DELETE", "/sessions/s")`, `run("assistant", "hi")`,
		// needs no preflight
		`fetch(at.get("os") + "/health").then(r => ({status: r.status, body: ""}), e => ({status: 0, body: String(e)}))`,
	} {
		do(expression).want(t, expression, 0, "Failed to fetch")
	}
	if asked := r.Model.Requests(); len(asked) > 0 {
		t.Errorf("%d runs were started for a page of an unlisted origin", len(asked))
	}
}

// done is a closed channel.
var done = func() <-chan struct{} { ch := make(chan struct{}); close(ch); return ch }()
