package acceptance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// attackedOS is a server that the tests attack. It has the agents a and b with the models
// model-a and model-b. ann owns a run, a session and a memory on it.
type attackedOS struct {
	*server
	issuer forge
	db     *pgx.Conn
	run    string // the ID of ann's run
	memory string // the ID of ann's memory

	// The run whose message begins with "wait" closes holding, then waits for release.
	holding, release chan struct{}
}

// startAttacked starts an attackedOS that accepts the issuer's tokens. auth are further
// lines of the section auth in its keyway.yaml.
func startAttacked(t *testing.T, issuer forge, auth ...string) *attackedOS {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	text := fmt.Sprintf(`id: fort
auth:
  algorithms: [%s]
  keys: ["${JWT_VERIFICATION_KEY}"]
  %s
agents:
  - {id: a, model: "openai:model-a"}
  - {id: b, model: "openai:model-b"}
`,
		issuer.alg, strings.Join(append(auth, "verify_audience: true"), "\n  "))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &attackedOS{issuer: issuer, holding: make(chan struct{}), release: make(chan struct{})}
	f.server = start(t, file, modeltest.NewServerFunc(t, f.answer), "JWT_VERIFICATION_KEY", issuer.verifies)
	f.Tokens = map[string]string{"ann": issuer.token(payload())}
	var err error
	if f.db, err = pgx.Connect(t.Context(), f.server.DB); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.db.Close(context.Background()) })
	f.run = field(t, f.server.Run("ann", "a", "message", private, "session_id", "hers", "stream", "true"), "run_id")
	f.memory = field(t, f.json("ann", "POST", "/memories", `{"memory":"`+private+`","topics":["`+private+`"]}`),
		"memory_id")
	return f
}

// answer is the model of both agents.
func (f *attackedOS) answer(r modeltest.Request) modeltest.Script {
	if strings.HasPrefix(lastMessage(r), "wait") {
		close(f.holding)
		return modeltest.Text("a ").Wait(f.release).Text("b")
	}
	return modeltest.Text("the " + private)
}

// tables returns every row of every table as text, without lease_until, which changes
// while a run executes.
func tables(t *testing.T, db *pgx.Conn) string {
	t.Helper()
	rows, err := db.Query(t.Context(),
		"SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'keyway' ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) < 5 {
		t.Fatalf("tables %v: %v", names, err)
	}
	var all strings.Builder
	for _, name := range names {
		var content string
		of := "SELECT coalesce(jsonb_pretty(jsonb_agg(to_jsonb(x) - 'lease_until' ORDER BY to_jsonb(x)::text)), '') " +
			"FROM keyway." + pgx.Identifier{name}.Sanitize() + " x"
		if err := db.QueryRow(t.Context(), of).Scan(&content); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s: %s\n", name, content)
	}
	return all.String()
}

// raw sends a request byte by byte as given. An HTTP client would normalize it.
func (r *server) raw(requestLine string, lines []string, body string) process.Reply {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	lines = append([]string{requestLine + " HTTP/1.1", "Host: localhost", "Connection: close"}, lines...)
	if body != "" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	// The server may reject the request and close the connection before it has read all.
	_, _ = io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"+body)
	method, _, _ := strings.Cut(requestLine, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		r.t.Fatalf("%.200q: %v", requestLine, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%.200q: %v", requestLine, err)
	}
	return process.Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(data)}
}

// bearer is an Authorization header with a token.
func bearer(token string) []string { return []string{"Authorization: Bearer " + token} }

// contentType is the Content-Type header for a body: JSON if it begins with {, else a form.
func contentType(body string) string {
	if strings.HasPrefix(body, "{") {
		return "Content-Type: application/json"
	}
	return "Content-Type: application/x-www-form-urlencoded"
}

// attack is a request without a valid token. It may carry a token in the wrong place.
type attack struct {
	name  string
	lines []string // header lines
	query string   // added to the query
	field string   // added to the form
	says  string   // how the error detail begins, in AgentOS's words
}

// targets are requests that an administrator's token allows, for each kind of resource.
// RUN and MEMORY are replaced by the IDs of ann's run and memory.
var targets = []struct{ request, body string }{
	{"GET /config", ""},
	{"GET /agents", ""},
	{"GET /agents/a", ""},
	{"POST /agents/a/runs", "message=hi&stream=false"},
	{"GET /agents/a/runs/RUN?session_id=hers", ""},
	{"POST /agents/a/runs/RUN/resume", "session_id=hers"},
	{"POST /agents/a/runs/RUN/cancel", "session_id=hers"},
	{"POST /agents/a/runs/RUN/continue", "session_id=hers"},
	{"GET /sessions/hers", ""},
	{"POST /sessions", `{"session_id":"planted"}`},
	{"DELETE /sessions", `{"session_ids":["hers"],"session_types":["agent"]}`},
	{"GET /memories", ""},
	{"POST /memories", `{"memory":"planted"}`},
	{"DELETE /memories/MEMORY", ""},
	{"POST /optimize-memories", `{"apply":true}`},
	{"POST /mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"message":"hi"}}}`},
	{"GET /nope", ""},
}

// checkRejected sends an attack to every target. Each must answer 401.
func (f *attackedOS) checkRejected(t *testing.T, a attack) {
	t.Helper()
	for _, target := range targets {
		request := strings.NewReplacer("RUN", f.run, "MEMORY", f.memory).Replace(target.request)
		if a.query != "" {
			and := "?"
			if strings.Contains(request, "?") {
				and = "&"
			}
			request += and + a.query
		}
		lines, body := a.lines, target.body
		if a.field != "" && !strings.HasPrefix(body, "{") {
			body = strings.TrimPrefix(body+"&"+a.field, "&")
		}
		if body != "" {
			lines = append([]string{contentType(body)}, lines...)
		}
		got := f.raw(request, lines, body)
		var says struct{ Detail string }
		if err := json.Unmarshal([]byte(got.Body), &says); err != nil || got.Status != 401 ||
			!strings.HasPrefix(says.Detail, a.says) {
			t.Errorf("%s at %s: %d %.300s, want 401 %q", a.name, target.request, got.Status, got.Body, a.says)
		}
		if got.Header.Get("WWW-Authenticate") == "" || strings.Contains(got.Body, private) {
			t.Errorf("%s at %s: %v %.300s", a.name, target.request, got.Header, got.Body)
		}
	}
}

// rejectsAll sends the attacks. All must be rejected, no model asked and no row changed.
func (f *attackedOS) rejectsAll(t *testing.T, attacks []attack) {
	t.Helper()
	before, asked := tables(t, f.db), len(f.Model.Requests())
	f.Call("ann", "GET", "/config", nil).Want(t, "the valid token", 200)
	for _, a := range attacks {
		f.checkRejected(t, a)
		if n := len(f.Model.Requests()); n != asked {
			t.Errorf("%s: the model was asked %d times", a.name, n-asked)
			asked = n
		}
	}
	if after := tables(t, f.db); after != before {
		t.Errorf("the tables changed from\n%s\nto\n%s", before, after)
	}
	f.Call("ann", "GET", "/config", nil).Want(t, "the valid token, after the attacks", 200)
}

// forEveryIssuer runs a test against a server for each kind of key: HMAC, RSA and ECDSA.
func forEveryIssuer(t *testing.T, test func(t *testing.T, f *attackedOS)) {
	t.Helper()
	for name, issuer := range honestIssuers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, startAttacked(t, issuer))
		})
	}
}
