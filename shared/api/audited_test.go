package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/route"
)

var auditKeys = loghash.Keys{"a key of the tests that has 32 or more bytes"}

// line is one line of the audit log, without its time and the id of its request.
type line struct {
	Actor, Action, Route, Agent string
	Admin                       bool
	Object                      string
	Objects, Owners             []string
	AllOwners                   bool `json:"all_owners"`
	Count                       int
	Source                      string
	Status                      int
}

// audited is a service with an audit log.
type audited struct {
	*service
	out bytes.Buffer
}

func newAudited(t *testing.T) *audited {
	t.Helper()
	a := &audited{service: newService(t)}
	a.handler.Audit = audit.New(slog.New(slog.NewJSONHandler(&a.out, nil)), auditKeys, []string{"a", "b"})
	return a
}

// send sends a request as the caller, from the address 203.0.113.7, and returns the answer and what the audit log got.
func (a *audited) send(caller, request, body string, headers ...string) (reply, []line) {
	a.t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequestWithContext(a.t.Context(), method, path, strings.NewReader(body))
	r.RemoteAddr = "203.0.113.7:50123"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasPrefix(body, "{") {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	p := *callers[caller]
	p.Hash = auditKeys.Subject(p.Issuer, p.Subject)
	r = r.WithContext(authz.WithPrincipal(r.Context(), &p))
	a.out.Reset()
	w := httptest.NewRecorder()
	logging.Requests(slog.New(slog.NewTextHandler(io.Discard, nil)), a.handler).ServeHTTP(w, r)
	var lines []line
	for text := range strings.Lines(a.out.String()) {
		var l struct {
			line
			Msg       string
			Time      time.Time
			RequestID string `json:"request_id"`
		}
		err := json.Unmarshal([]byte(text), &l)
		if err != nil || l.Msg != "audit" || l.Time.IsZero() || l.RequestID != w.Header().Get("X-Request-Id") {
			a.t.Errorf("%s: the line %s: %v", request, text, err)
		}
		lines = append(lines, l.line)
	}
	return reply{w, caller + " " + request + " " + body}, lines
}

// wantLine checks that a request gets the status and causes exactly this line.
func (a *audited) wantLine(caller, request, body string, want line) {
	a.t.Helper()
	got, lines := a.send(caller, request, body)
	got.want(a.t, want.Status)
	want.Source, want.Actor = "203.0.113.7", auditKeys.Subject("", callers[caller].Subject)
	if diff := cmp.Diff([]line{want}, lines); diff != "" {
		a.t.Errorf("%s (-want +got):\n%s", got.request, diff)
	}
}

// hashes returns the hashes of names of a kind.
func hashes(kind string, names ...string) (list []string) {
	for _, n := range names {
		list = append(list, auditKeys.Hash(kind, n))
	}
	return list
}

func TestWhatAnAdministratorReadsAndDeletesIsAudited(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	first, second, third := a.remember("ann", "tea"), a.remember("ann", "milk"), a.remember("bob", "rum")
	id := a.run("ann", "hers", "hello")
	ann, bob := hashes("owner", "ann"), hashes("owner", "bob")

	a.wantLine("admin", "GET /memories?user_id=ann", "", line{Admin: true, Action: "list_memories",
		Route: "GET /memories", Owners: ann, Status: 200})
	a.wantLine("admin", "GET /memories", "", line{Admin: true, Action: "list_memories",
		Route: "GET /memories", AllOwners: true, Status: 200})
	a.wantLine("admin", "GET /memories/"+first, "", line{Admin: true, Action: "get_memory",
		Route: "GET /memories/{memory_id}", Object: "memory", Objects: hashes("memory", first), Owners: ann, Status: 200})
	a.wantLine("admin", "GET /sessions/hers/runs?user_id=ann", "", line{Admin: true, Action: "session_runs",
		Route: "GET /sessions/{session_id}/runs", Object: "session", Objects: hashes("session", "hers"), Owners: ann,
		Status: 200})
	a.wantLine("admin", "GET /agents/a/runs/"+id+"?session_id=hers", "", line{Admin: true, Action: "get_run",
		Route: "GET /agents/{agent_id}/runs/{run_id}", Agent: "a", Object: "run", Objects: hashes("run", id), Owners: ann,
		Status: 200})

	a.wantLine("admin", "DELETE /memories/"+first, "", line{Admin: true, Action: "delete_memory",
		Route: "DELETE /memories/{memory_id}", Object: "memory", Objects: hashes("memory", first), Owners: ann, Status: 204})
	a.wantLine("admin", "DELETE /memories", `{"memory_ids":["`+second+`","`+third+`"]}`, line{Admin: true,
		Action: "delete_memories", Route: "DELETE /memories", Object: "memory", Objects: hashes("memory", second, third),
		Owners: slices.Concat(ann, bob), Status: 204})
	a.wantLine("admin", "DELETE /sessions/hers", "", line{Admin: true, Action: "delete_session",
		Route: "DELETE /sessions/{session_id}", Object: "session", Objects: hashes("session", "hers"), Owners: ann,
		Status: 204})
	// What is no longer there was looked for.
	a.wantLine("admin", "GET /memories/"+first, "", line{Admin: true, Action: "get_memory",
		Route: "GET /memories/{memory_id}", Object: "memory", Objects: hashes("memory", first), AllOwners: true, Status: 404})
}

func TestWhatAUserChangesIsAudited(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	ann := hashes("owner", "ann")
	a.wantLine("ann", "POST /sessions", `{"session_id":"hers"}`, line{Action: "create_session",
		Route: "POST /sessions", Object: "session", Objects: hashes("session", "hers"), Owners: ann, Status: 201})
	a.wantLine("ann", "POST /sessions/hers/rename", `{"session_name":"x"}`, line{Action: "rename_session",
		Route: "POST /sessions/{session_id}/rename", Object: "session", Objects: hashes("session", "hers"), Owners: ann,
		Status: 200})
	a.wantLine("bob", "POST /sessions/hers/rename", `{"session_name":"x"}`, line{Action: "rename_session",
		Route: "POST /sessions/{session_id}/rename", Object: "session", Objects: hashes("session", "hers"),
		Owners: hashes("owner", "bob"), Status: 404})
	got, lines := a.send("ann", "POST /agents/a/runs", "message=hello&session_id=hers&stream=true")
	got.want(t, 200, "RunCompleted")
	if len(lines) != 1 || lines[0].Action != "create_run" || lines[0].Agent != "a" || lines[0].Status != 200 ||
		!slices.Equal(lines[0].Owners, ann) {
		t.Errorf("a run: %+v", lines)
	}
	for _, request := range []string{"GET /sessions", "GET /sessions/hers", "GET /sessions/gone", "GET /memories"} {
		if got, lines := a.send("ann", request, ""); len(lines) > 0 {
			t.Errorf("%s, of data of her own: %+v", got.request, lines)
		}
	}
}

// A revoked caller is found by the hash that the decisions have of this caller.
func TestARevocationIsAudited(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	a.wantLine("admin", "POST /revocations", `{"sub":"ann","issuer":"i"}`, line{Admin: true, Action: "revoke",
		Route: "POST /revocations", Object: "subject", Objects: []string{auditKeys.Subject("i", "ann")}, Status: 201})
	a.wantLine("admin", "POST /revocations", `{"jti":"j-1","issuer":"i"}`, line{Admin: true, Action: "revoke",
		Route: "POST /revocations", Object: "token", Objects: hashes("token", "j-1"), Status: 201})
	a.wantLine("admin", "DELETE /revocations", `{"sub":"ann","issuer":"i"}`, line{Admin: true, Action: "undo_revocation",
		Route: "DELETE /revocations", Object: "subject", Objects: []string{auditKeys.Subject("i", "ann")}, Status: 204})
}

// unaudited are the routes that show no data of users and change nothing. They are listed here a second time: a new
// route is audited unless somebody adds it.
var unaudited = []route.Name{
	route.Index, route.Health, route.HealthHead, route.Ready, route.ReadyHead, route.Info, route.OpenAPI, route.Docs,
	route.Console, route.ConsoleFile, route.MCPResource, route.MCPResourceRoot,
	route.MCPCall, // TestACallOfMCPIsAudited
	route.WhoAmI, route.Can, route.Decisions, route.Diff, route.DevSignIn, route.DevToken,
	route.Config, route.ListAgents, route.GetAgent, route.ListTeams, route.ListWorkflows,
}

func TestEveryOtherRouteIsAuditedForAnAdministrator(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	for rt := range route.Table.All() {
		want := 1
		if slices.Contains(unaudited, rt.Name) {
			want = 0
		}
		got, lines := a.send("admin", rt.Method+" "+pathOf(rt), "")
		if len(lines) != want {
			t.Errorf("%s: %d lines, want %d", got.request, len(lines), want)
		}
		for _, l := range lines {
			if l.Action != string(rt.Name) || l.Status != got.Code || !l.Admin || l.Source == "" {
				t.Errorf("%s: %+v for the status %d", got.request, l, got.Code)
			}
		}
		// A request that is refused has a line among the decisions, and none here.
		if _, lines := a.send("one", rt.Method+" "+pathOf(rt), ""); rt.Method != http.MethodGet && len(lines) > 0 {
			t.Errorf("%s, refused: %+v", rt, lines)
		}
	}
}

// An id that nobody has declared is a text of the caller, such as a name.
func TestAnAgentThatIsNotDeclaredIsNotInTheAuditLog(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	got, lines := a.send("ann", "POST /agents/ann.example.com/runs", "message=hello&session_id=hers")
	got.want(t, 404)
	if len(lines) != 1 || lines[0].Agent != "" || lines[0].Action != "create_run" ||
		strings.Contains(a.out.String(), "ann.example") {
		t.Errorf("%s", &a.out)
	}
}

// watched is an answer that notes what the audit log had when the first byte of the answer was written.
type watched struct {
	*httptest.ResponseRecorder
	log   *bytes.Buffer
	first string
}

func (w *watched) note() {
	if w.first == "" {
		w.first = "log: " + w.log.String()
	}
}

func (w *watched) WriteHeader(status int) { w.note(); w.ResponseRecorder.WriteHeader(status) }

func (w *watched) Write(p []byte) (int, error) { w.note(); return w.ResponseRecorder.Write(p) }

// A crash between the two can then lose an answer, and no line.
func TestTheLineOfTheAuditLogIsWrittenBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	for request, status := range map[string]string{
		"POST /sessions":      `"status":201`,
		"POST /agents/a/runs": `"status":200`, // a stream
		"DELETE /sessions/no": `"status":204`,
	} {
		method, path, _ := strings.Cut(request, " ")
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader("message=hello&stream=true"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if method == "POST" && path == "/sessions" {
			r.Header.Set("Content-Type", "application/json")
			r.Body = io.NopCloser(strings.NewReader(`{"session_id":"hers"}`))
		}
		a.out.Reset()
		w := &watched{ResponseRecorder: httptest.NewRecorder(), log: &a.out}
		a.handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), callers["ann"])))
		if !strings.Contains(w.first, `"msg":"audit"`) || !strings.Contains(w.first, status) {
			t.Errorf("%s: at the first byte, %s", request, w.first)
		}
		if n := strings.Count(a.out.String(), "\n"); n != 1 {
			t.Errorf("%s: %d lines", request, n)
		}
	}
}

func TestALineOfTheAuditLogNamesABoundedNumberOfObjectsAndOwners(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := audit.New(slog.New(slog.NewJSONHandler(&out, nil)), auditKeys, nil)
	r := log.Begin(audit.Request{Action: "delete_memories"})
	ids := make([]string, 250)
	for i := range ids {
		ids[i] = fmt.Sprint("id", i)
		r.Owner(fmt.Sprint("owner", i))
	}
	r.Object("memory", ids...)
	r.Write(t.Context(), 204)
	var l line
	err := json.Unmarshal(out.Bytes(), &l)
	if err != nil || len(l.Objects) != 100 || l.Count != 250 || len(l.Owners) != 20 {
		t.Errorf("%d objects, count %d, %d owners, %v", len(l.Objects), l.Count, len(l.Owners), err)
	}
}

// A header is the client's text. Only that of a proxy of the operator could be trusted, and no setting names one.
func TestTheAddressInALogIsThatOfTheConnection(t *testing.T) {
	t.Parallel()
	a := newAudited(t)
	_, lines := a.send("ann", "POST /sessions", `{"session_id":"hers"}`, "X-Forwarded-For", "198.51.100.1",
		"Forwarded", "for=198.51.100.1", "X-Real-Ip", "198.51.100.1", "True-Client-Ip", "198.51.100.1")
	if len(lines) != 1 || lines[0].Source != "203.0.113.7" || strings.Contains(a.out.String(), "198.51") {
		t.Errorf("%s", &a.out)
	}
}
