package api_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/follow"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/notes"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/queue/local"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "6") // most tests wait for PostgreSQL; -parallel still overrides it
	os.Exit(storetest.Main(m))
}

// missing is an id in the format of run and memory ids that no row has.
const missing = "00000000-0000-4000-8000-000000000000"

// callers are the principals that the tests use, by the first word of a request.
var callers = map[string]*authz.Principal{
	"ann":         {Subject: "ann", Scopes: everyScope},
	"bob":         {Subject: "bob", Scopes: everyScope},
	"admin":       {Subject: "root", Scopes: []string{"agent_os:admin"}},
	"noname":      {Scopes: everyScope},
	"bound":       {Subject: "ann", SessionID: "bound-session", Scopes: everyScope},
	"bound-admin": {Subject: "root", SessionID: "bound-session", Scopes: []string{"agent_os:admin"}},
	"once":        {Subject: "eve", Limits: limit.Limits{RunsPerDay: 1}, Scopes: everyScope},
	"one":         {Subject: "ann", Scopes: []string{"agents:a:read", "config:read"}},
	"mapped": {Subject: "max", Scopes: []string{"agents:a:run"}, Origins: []string{"groups=staff"},
		ExpiresAt: time.Unix(4_102_444_800, 0)},
	"renamed":   {Subject: "rena", Scopes: []string{"agents:read"}, ScopesClaim: "permissions"},
	"scopeless": {Subject: "sue", Absent: `"secret_claim"`, Unread: "it has groups"},
	"expired":   {Subject: "eve", Scopes: everyScope, ExpiresAt: time.Unix(1, 0)},
	"many":      {Subject: "mia", Scopes: manyScopes()},
	// These have tokens that a test can revoke.
	"leaked": {Subject: "leo", TokenID: "leo-1", Issuer: "i", IssuedAt: time.Unix(1_000_000, 0), Scopes: everyScope},
	"newer":  {Subject: "leo", TokenID: "leo-2", Issuer: "i", IssuedAt: time.Unix(2_000_000, 0), Scopes: everyScope},
	"ann-1":  {Subject: "ann", TokenID: "ann-1", Issuer: "i", Scopes: everyScope},
	"chief":  {Subject: "root", TokenID: "chief-1", Issuer: "i", Scopes: []string{"agent_os:admin"}},
	"onlyb":  {Subject: "ben", Scopes: []string{"agents:b:run"}},
	"noiat":  {Subject: "leo", TokenID: "leo-3", Issuer: "i", Scopes: everyScope},
}

// All tokens are for the door for MCP too.
func init() {
	for _, p := range callers {
		p.Audience = authz.ForBoth
	}
}

var everyScope = []string{
	"agents:read", "agents:run", "teams:read", "workflows:read", "config:read",
	"sessions:read", "sessions:write", "sessions:delete", "memories:read", "memories:write", "memories:delete",
	"metrics:read", "metrics:write",
}

// manyScopes returns scopes for a thousand agents.
func manyScopes() (scopes []string) {
	for n := range 1000 {
		scopes = append(scopes, fmt.Sprintf("agents:a%d:read", n))
	}
	return scopes
}

// scripted is a model that plays its answers in order and repeats the last one.
type scripted struct {
	mu      sync.Mutex
	answers []answer
	calls   int
}

// answer sends the parts of one model answer to emit. emit returns false when the run
// has stopped reading.
type answer func(ctx context.Context, emit func(model.Part) bool) error

func (s *scripted) Describe() model.Description {
	return model.Description{ID: "m-1", Name: "Scripted", Provider: "Test", Family: "Test Chat"}
}

func (s *scripted) Stream(ctx context.Context, _ model.Request) iter.Seq2[model.Part, error] {
	return func(yield func(model.Part, error) bool) {
		s.mu.Lock()
		play := s.answers[min(s.calls, len(s.answers)-1)]
		s.calls++
		s.mu.Unlock()
		if err := play(ctx, func(p model.Part) bool { return yield(p, nil) }); err != nil {
			yield(model.Part{}, err)
		}
	}
}

func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// text answers in the given pieces.
func text(pieces ...string) answer {
	return func(_ context.Context, emit func(model.Part) bool) error {
		for _, p := range pieces {
			if !emit(model.Part{Text: p}) {
				return nil
			}
		}
		emit(model.Part{End: &model.End{Usage: model.Usage{Input: 10, Output: 5, Total: 15}, FinishReason: "stop"}})
		return nil
	}
}

// callTool answers with one call of a tool.
func callTool(name string) answer {
	return func(_ context.Context, emit func(model.Part) bool) error {
		call := model.ToolCall{ID: "call-1", Name: name, Arguments: "{}"}
		emit(model.Part{End: &model.End{ToolCalls: []model.ToolCall{call}, FinishReason: "tool_calls"}})
		return nil
	}
}

// waitFor answers "begun", waits until ch is closed or the run is cancelled, and
// then answers "ended".
func waitFor(ch <-chan struct{}) answer {
	return func(ctx context.Context, emit func(model.Part) bool) error {
		emit(model.Part{Text: "begun "})
		select {
		case <-ch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return text("ended")(ctx, emit)
	}
}

// service is a Server with every resource, on a database of its own. Its agents are
// "a", which has the tool "door" that needs a confirmation, and "b".
type service struct {
	t       *testing.T
	url     string // of the database
	db      *store.DB
	model   *scripted
	handler *api.Server
}

func newService(t *testing.T, answers ...answer) *service {
	t.Helper()
	return newServiceAt(t, storetest.URL(t), answers...)
}

// newServiceAt is newService on a database that storetest has made.
func newServiceAt(t *testing.T, url string, answers ...answer) *service {
	t.Helper()
	if len(answers) == 0 {
		answers = []answer{text("fine")}
	}
	s := &service{
		t: t, url: url, db: storetest.Open(t, store.Options{URL: url}), model: &scripted{answers: answers},
	}
	policy, err := authz.New(route.Table, "agent_os:admin", nil)
	if err != nil {
		t.Fatal(err)
	}
	door := tool.Tool{
		Name: "door", Confirm: true,
		Call: func(context.Context, json.RawMessage) (string, error) { return "opened", nil },
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var listed []wire.Agent
	var agents []run.Agent
	var models notes.Models
	for _, id := range []string{"a", "b"} {
		a := config.Agent{ID: id, Name: "Agent " + id, Timeout: time.Minute, Model: config.Model{Provider: "test", ID: "m-1"}}
		agents = append(agents, run.Agent{Agent: a, Model: s.model, Tools: []tool.Set{door}})
		models = append(models, notes.Model{Model: s.model, Name: "test:m-1", Timeout: time.Minute})
		listed = append(listed, api.Describe(a, wire.AgentModel{Name: "Scripted", Model: "m-1", Provider: "Test"}))
	}
	runner := run.New(run.Options{
		DB: s.db, Agents: agents, Log: log, Now: time.Now, NewID: uuid.New, Queue: local.New(s.db),
		Admit: func(run.Caller) error { return nil },
	})
	isolation, list := api.Isolation{On: true, Owners: s.owners}, api.Agents{List: listed}
	revocations := revoke.New(s.db.Revocations, time.Now, log)
	token := func(p *authz.Principal) revoke.Token {
		of := func(r store.Revocation) bool { return r.Issuer == p.Issuer }
		return revoke.Token{Of: of, ID: p.TokenID, Subject: p.Subject, IssuedAt: p.IssuedAt}
	}
	revoked := func(ctx context.Context, p *authz.Principal) error { return revocations.Check(ctx, token(p)) }
	now := func(ctx context.Context, p *authz.Principal) error { return revocations.CheckNow(ctx, token(p)) }
	s.handler = api.New(
		api.Options{
			Policy: policy, Revoked: revoked, RevokedNow: now, Log: log, Now: time.Now,
		},
		api.OS{
			ID: "test-os", Name: "Test", Version: "1", Digest: "d", Isolation: isolation, Agents: listed, Policy: policy,
			AsWritten: func(text string) string { return text },
			OwnerOf:   func(p *authz.Principal) (string, string, error) { return p.Subject, "", nil },
		},
		&api.Readiness{Check: s.db.Check, Now: time.Now},
		list,
		api.Runs{
			DB: s.db, Runner: runner, Follow: follow.New(s.db), Notes: models, Agents: list, Isolation: isolation,
			Revoked: revoked, Now: time.Now, NewID: uuid.New,
			MCP: mcp.Server{ID: "test-os", Name: "Test", Version: "1"},
		},
		api.Sessions{DB: s.db, Isolation: isolation, Agents: listed, Now: time.Now, NewID: uuid.New},
		api.Memories{DB: s.db, Isolation: isolation, Now: time.Now, NewID: uuid.New},
		api.Metrics{DB: s.db, Isolation: isolation, Now: time.Now},
		api.Revocations{DB: s.db, List: revocations, Issuers: revoke.IssuersOf(config.Auth{Issuer: "i"})},
		api.UserData{DB: s.db},
	)
	return s
}

// owners names owners as a database does whose only issuer has no name.
func (s *service) owners() (*owner.Record, error) {
	return (*owner.Record)(nil).Adopt(owner.File{}, nil)
}

// reply is the answer to one request.
type reply struct {
	*httptest.ResponseRecorder
	request string
}

// do sends a request such as "ann GET /sessions?limit=2". A body that begins with {
// or [ is JSON; any other one is a form.
func (s *service) do(request, body string, headers ...string) reply {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.serve(w, request, body, headers...)
	return reply{w, request + " " + body}
}

// serve is do with an answer of the test's own.
func (s *service) serve(w http.ResponseWriter, request, body string, headers ...string) {
	s.t.Helper()
	words := strings.Fields(request)
	r := httptest.NewRequestWithContext(s.t.Context(), words[1], words[2], strings.NewReader(body))
	if strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
		r.Header.Set("Content-Type", "application/json")
	} else {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r = r.WithContext(authz.WithPrincipal(r.Context(), callers[words[0]]))
	s.handler.ServeHTTP(w, r)
}

// want checks the status and that the body contains each text.
func (r reply) want(t *testing.T, status int, texts ...string) reply {
	t.Helper()
	if r.Code != status {
		t.Errorf("%s: status %d %s, want %d", r.request, r.Code, r.Body, status)
	}
	for _, part := range texts {
		if !strings.Contains(r.Body.String(), part) {
			t.Errorf("%s: %s\nlacks %s", r.request, r.Body, part)
		}
	}
	return r
}

// field returns one member of the JSON body, as JSON without quotes.
func (r reply) field(t *testing.T, name string) string {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(r.Body.Bytes(), &members); err != nil {
		t.Fatalf("%s: %s: %v", r.request, r.Body, err)
	}
	return strings.Trim(string(members[name]), `"`)
}

// run runs agent "a" to its end and returns the run's id.
func (s *service) run(caller, session, message string) string {
	s.t.Helper()
	body := "stream=false&session_id=" + session + "&message=" + message
	return s.do(caller+" POST /agents/a/runs", body).want(s.t, http.StatusOK).field(s.t, "run_id")
}

// remember adds a memory and returns its id.
func (s *service) remember(caller, memory string, topics ...string) string {
	s.t.Helper()
	list, err := json.Marshal(append([]string{}, topics...))
	if err != nil {
		s.t.Fatal(err)
	}
	body := fmt.Sprintf(`{"memory":%q,"topics":%s}`, memory, list)
	return s.do(caller+" POST /memories", body).want(s.t, http.StatusOK).field(s.t, "memory_id")
}

// exchange is a request and the answer that it must get.
type exchange struct {
	request string
	body    string
	status  int
	text    string // part of the answer's body
}

// expect sends each request and checks the answers, in parallel.
func (s *service) expect(t *testing.T, table map[string]exchange) {
	t.Helper()
	for name, e := range table {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.do(e.request, e.body).want(t, e.status, e.text)
		})
	}
}

// expectLikeMissing checks that a caller gets the same answer to a request for a
// row of another owner as to one for a row that does not exist. In requests and bodies
// SESSION, RUN and MEMORY stand for the ids.
func (s *service) expectLikeMissing(caller string, requests []exchange, session, run, memory string) {
	s.t.Helper()
	others := strings.NewReplacer("SESSION", session, "RUN", run, "MEMORY", memory)
	absent := strings.NewReplacer("SESSION", "no-session", "RUN", missing, "MEMORY", missing)
	for _, e := range requests {
		got := s.do(others.Replace(caller+" "+e.request), others.Replace(e.body)).want(s.t, e.status)
		want := s.do(absent.Replace(caller+" "+e.request), absent.Replace(e.body)).want(s.t, e.status)
		body := strings.NewReplacer(session, "no-session", run, missing, memory, missing).Replace(got.Body.String())
		if body != want.Body.String() {
			s.t.Errorf("%s:\n%s\na row that does not exist:\n%s", got.request, got.Body, want.Body)
		}
	}
}
