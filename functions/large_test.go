package functions_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// long stores a session of ann's with n runs, of which each has an answer of size bytes.
func (d deployment) long(session string, n, size int) {
	d.t.Helper()
	db := storetest.Open(d.t, store.Options{URL: d.owner})
	for i := range n {
		r := store.Run{
			Status: "RUNNING", Attempt: 1, RunID: uuid.New(), Owner: "ann", SessionID: session, AgentID: "a",
			Input: fmt.Sprint("message ", i), CreatedAt: time.Now(),
		}
		if _, err := db.BeginRun(d.t.Context(), r, store.BeginOptions{Leg: &r.RunID}); err != nil {
			d.t.Fatal(err)
		}
		// Quotes and signs of HTML, which JSON within JSON makes longer.
		text := strings.Repeat(`<a "b">`, size/7)
		messages, err := json.Marshal([]map[string]string{
			{"role": "user", "content": r.Input}, {"role": "assistant", "content": fmt.Sprint(text, " answer ", i)},
		})
		if err != nil {
			d.t.Fatal(err)
		}
		r.Status, r.Messages, r.Metrics, r.Content = "COMPLETED", messages, json.RawMessage(`{}`), new(text)
		leg := store.Leg{RunID: r.RunID, Attempt: 1, ID: r.RunID}
		if _, err := db.FinishRun(d.t.Context(), leg, r, nil, store.Usage{}, time.Now()); err != nil {
			d.t.Fatal(err)
		}
	}
}

var jsonType = map[string]string{"Content-Type": "application/json"}

// A buffered function sends 6 MB at most.
func TestALongSessionIsReadByPages(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	d.long("s", 10, 800_000)
	f := d.start("sessions")
	get := func(path string) reply { return f.ask(request{method: "GET", path: path, scopes: everything}) }
	for _, path := range []string{"/sessions/s", "/sessions/s/runs"} {
		get(path).want(t, path, 413, "limit and page")
		seen := 0
		for page := 1; ; page++ {
			got := get(fmt.Sprintf("%s?limit=2&page=%d", path, page))
			if got.StatusCode != http.StatusOK || !strings.Contains(got.Body, " answer ") {
				got.want(t, path, 200)
				break
			}
			for strings.Contains(got.Body, fmt.Sprint(" answer ", seen)) {
				seen++
			}
		}
		if seen != 10 {
			t.Errorf("%s: the pages have %d answers", path, seen)
		}
	}
	get("/sessions/s/run-previews").want(t, "previews", 200, "message 9")
	get("/sessions/s/run-previews?limit=3&page=4").want(t, "the last page of previews", 200, "message 9")
	get("/sessions/s/runs?limit=0").want(t, "no page", 422, `"loc":["query","limit"]`)
	get("/sessions/s/runs?limit=1001").want(t, "a page that is too large", 422, `"loc":["query","limit"]`)
	get("/sessions/s?limit=1&page=0").want(t, "a page of 0", 422, `"loc":["query","page"]`)
}

func TestAChangeOfALongSessionIsAnswered(t *testing.T) {
	t.Parallel()
	const bounds = `{"bounds":{"session_state":4000000,"metadata":1000000},` // together more than Lambda can answer
	d := deploy(t, strings.Replace(keyway, "{", bounds, 1))
	d.long("s", 10, 800_000)
	f := d.start("sessions")
	ask := func(method, path, body string) reply {
		return f.ask(request{method: method, path: path, scopes: everything, headers: jsonType, body: body})
	}
	ask("POST", "/sessions/s/rename", `{"session_name":"second"}`).
		want(t, "rename", 200, `"session_name":"second"`, " answer 9")
	ask("PATCH", "/sessions/s", `{"metadata":{"a":1}}`).want(t, "change", 200, `"metadata":{"a":1}`, " answer 9")

	// What could not be answered does not happen.
	half, all := `{"a":"`+strings.Repeat(`\"`, 800_000)+`"}`, `{"a":"`+strings.Repeat(`\"`, 1_600_000)+`"}`
	ask("PATCH", "/sessions/s", `{"session_state":`+half+`}`).want(t, "half of the limit", 200, `"session_name":"second"`)
	ask("PATCH", "/sessions/s", `{"session_name":"third","session_state":`+all+`}`).
		want(t, "all of it", 413, "Nothing was changed", "session_state, metadata and summary")
	ask("POST", "/sessions", `{"session_id":"t","session_state":`+all+`}`).
		want(t, "a new session", 413, "Nothing was changed")
	ask("GET", "/sessions/t", "").want(t, "there is none", 404)
	ask("GET", "/sessions/s?limit=1", "").want(t, "still", 200, `"session_name":"second"`, `"metadata":{"a":1}`)
	ask("POST", "/sessions/s/rename", `{"session_name":"fourth"}`).want(t, "rename", 200, `"session_name":"fourth"`)
	ask("PATCH", "/sessions/s", `{"session_state":{}}`).want(t, "less again", 200, `"session_state":{}`, " answer 9")
}
