package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/gateway"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/token"
	"github.com/keyway-agents/keyway/shared/wire"
)

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// office is a gateway in front of the real functions that need no database. Both write to one
// decision log.
type office struct {
	*gate
	authorizer *edge.Authorizer
	functions  http.Handler
	decisions  *syncBuffer
	behind     atomic.Int64 // nanoseconds that the functions' clock is ahead of the gateway's
}

// hashes are the keys of the hashes in logs.
var hashes = loghash.Keys{"TEST KEY ONLY: the hashes in the logs of the tests"}

func newOffice(t *testing.T, agents ...string) *office {
	t.Helper()
	o := &office{gate: &gate{t: t, log: &syncBuffer{}}, decisions: &syncBuffer{}}
	c := &config.Config{ID: "test-os", Auth: config.Auth{
		Algorithms: []string{"HS256"}, Keys: []config.Key{{Literal: key}}, AdminScope: "agent_os:admin", RequireExp: true,
	}}
	var listed []wire.Agent
	for _, id := range agents {
		c.Agents = append(c.Agents, config.Agent{ID: id})
		listed = append(listed, wire.Agent{ID: id})
	}
	now := func() time.Time { return start.Add(time.Duration(o.later.Load())) }
	a, err := edge.New(c, edge.Outside{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	a.Hash = hashes
	a.Log = authz.NewLog(slog.New(slog.NewJSONHandler(o.decisions, nil)), digest, a.Agents)
	list := api.Agents{List: listed}
	o.authorizer = a
	o.functions = api.New(api.Options{
		Policy: a.Policy, Log: slog.New(slog.DiscardHandler), Decisions: a.Log,
		Now: func() time.Time { return now().Add(time.Duration(o.behind.Load())) },
		// without memories; a run panics
	}, api.OS{Policy: a.Policy, OwnerOf: subject}, list, api.Runs{Agents: list},
		api.Sessions{Isolation: api.Isolation{On: true}})
	server := httptest.NewServer(logging.Requests(logging.NewLogger(o.log, false), gateway.New(a, o.functions, now)))
	t.Cleanup(server.Close)
	o.addr = server.Listener.Addr().String()
	return o
}

// line holds the members of a decision's line that a test reads.
type line struct {
	RequestID string `json:"request_id"`
	Allow     bool
	Status    int
	Reason    string
	Principal string
	Token     string
	Route     string
	Missing   []string
	Filtered  bool
	Config    string
	US        *int64
}

// lines returns the decisions that were logged for one request.
func (o *office) lines(id string) (out []line) {
	o.t.Helper()
	for text := range strings.Lines(o.decisions.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			o.t.Fatalf("%s: %v", text, err)
		}
		if l.RequestID == id {
			out = append(out, l)
		}
	}
	return out
}

func TestEachRequestHasOneDecisionLine(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "a", "b")
	runner := sign(t, "ann", time.Hour, "agents:a:run", "agents:a:read", "sessions:read", "memories:read")
	reader := sign(t, "ann", time.Hour, "agents:read")
	expired := sign(t, "ann", -time.Hour, "agents:read")
	short := sign(t, "ann", time.Minute, "agents:read")
	for name, row := range map[string]struct {
		request, raw string
		status       int // of the answer
		want         *line
	}{
		"allowed":               {"GET /agents/a", runner, 200, &line{Allow: true, Route: "GET /agents/{agent_id}"}},
		"again, from the cache": {"GET /agents/a/", runner, 200, &line{Allow: true, Route: "GET /agents/{agent_id}"}},
		"allowed, unknown":      {"GET /agents/nope", reader, 404, &line{Allow: true, Route: "GET /agents/{agent_id}"}},
		"filtered":              {"GET /agents", runner, 200, &line{Allow: true, Route: "GET /agents", Filtered: true}},
		"no token": {"GET /agents", "", 401,
			&line{Status: 401, Reason: "Authorization header missing", Route: "GET /agents"}},
		"no token, no route": {"GET /nope", "", 401, &line{Status: 401, Reason: "Authorization header missing"}},
		"nonsense": {"GET /agents", "nonsense", 401,
			&line{Status: 401, Reason: "Invalid token: Not enough segments", Route: "GET /agents"}},
		"expired": {"GET /agents", expired, 401,
			&line{Status: 401, Reason: "Token has expired", Route: "GET /agents"}},
		"changed": {"GET /agents", reader[:len(reader)-4] + "AAAA", 401,
			&line{Status: 401, Reason: "Invalid token: Signature verification failed", Route: "GET /agents"}},
		"refused by the policy": {"GET /agents/b", runner, 403,
			&line{Status: 403, Route: "GET /agents/{agent_id}", Missing: []string{"agents:b:read"}}},
		"refused by the function": {"GET /agents/x/runs", reader, 403,
			&line{Status: 403, Route: "GET /agents/{agent_id}/runs", Missing: []string{"agents:run"}}},
		"not served":   {"GET /nope", runner, 404, &line{Status: 404, Reason: "Not Found"}},
		"not this way": {"PUT /agents", runner, 405, &line{Status: 405, Reason: "Method Not Allowed"}},
		"no function for it": {"GET /memories", runner, 404,
			&line{Status: 404, Reason: "Not Found", Route: "GET /memories"}},
		"a panic in the handler": {"GET /sessions", runner, 500, &line{Allow: true, Route: "GET /sessions"}},
		"a wrong input": {"POST /agents/a/runs", runner, 422,
			&line{Allow: true, Route: "POST /agents/{agent_id}/runs"}},
		"public":                   {"GET /health", "", 200, nil},
		"public, with a token":     {"GET /health", runner, 200, nil},
		"public, not this way":     {"PUT /health", "", 405, nil},
		"a browser's first asking": {"OPTIONS /agents", "", 405, nil},
	} {
		var headers []string
		if row.raw != "" {
			headers = []string{bearer(row.raw)}
		}
		o.wantLines(name, o.call(row.request, headers...), row.status, row.raw, row.want)
	}

	// The gateway's cached policy outlives the token on the way to the function.
	o.behind.Store(int64(2 * time.Minute))
	o.wantLines("expired on the way", o.call("GET /agents", bearer(short)), 401, short, &line{
		Status: 401, Reason: "Token has expired", Route: "GET /agents",
		Principal: hashes.Subject("", "ann"),
	})
	two := o.call("GET /agents", bearer(reader), bearer(runner))
	if got := o.lines(two.header.Get("X-Request-Id")); len(got) != 1 ||
		got[0].Reason != "Ambiguous Authorization header" || len(got[0].Token) != 16 {
		t.Errorf("two tokens: %+v", got)
	}
}

func (o *office) wantLines(name string, got reply, status int, raw string, want *line) {
	o.t.Helper()
	if got.status != status {
		o.t.Errorf("%s: %d %s, want %d", name, got.status, got.body, status)
	}
	lines := o.lines(got.header.Get("X-Request-Id"))
	if want == nil {
		if len(lines) > 0 {
			o.t.Errorf("%s: %+v", name, lines)
		}
		return
	}
	if len(lines) != 1 || lines[0].US == nil {
		o.t.Errorf("%s: lines %+v", name, lines)
		return
	}
	want.RequestID, want.Config, want.US = lines[0].RequestID, digest[:12], lines[0].US
	if raw != "" {
		want.Token = token.Hash([]string{raw})
	}
	if want.Status != http.StatusUnauthorized {
		want.Principal = hashes.Subject("", "ann")
	}
	if diff := cmp.Diff(*want, lines[0]); diff != "" {
		o.t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestDecisionLineHasNoPrivateData(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "a")
	s, err := token.LoadSigner(token.SigningKey{HMAC: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(token.Draft{Claims: token.Claims{
		Subject: "telltale-subject", Issuer: "telltale-issuer", ID: "telltale-jti", SessionID: "telltale-session",
		Scopes: []string{"agents:read", "sessions:read"}, ExpiresAt: start.Add(time.Hour),
	}})
	if err != nil {
		t.Fatal(err)
	}
	requests := []string{
		"GET /agents?telltale=query", "GET /agents/telltale%20id", "GET /agents/telltale!id/runs",
		"GET /sessions/telltale-session-id",
		"GET /agents/a/runs/telltale-run-id", "GET /telltale/path", "TELLTALE /agents",
		"DELETE /sessions/telltale-session-id",
	}
	for _, request := range requests {
		for _, headers := range [][]string{nil, {bearer(raw)}, {bearer(raw + "telltale")}, {bearer("telltale-token")},
			{"Cookie: telltale=1", "X-Api-Key: telltale"}} {
			if got := o.call(request, headers...); got.status == http.StatusOK && strings.Contains(request, "/telltale") {
				t.Errorf("%s: %d", request, got.status)
			}
		}
	}
	log := o.decisions.String()
	for _, secret := range append(strings.Split(raw, "."), "elltale", "ELLTALE") {
		if strings.Contains(log, secret) {
			t.Errorf("the decisions hold %q:\n%s", secret, log)
		}
	}
	if n := strings.Count(log, "\n"); n != 5*len(requests) {
		t.Errorf("%d lines of %d requests", n, 5*len(requests))
	}
}

// direct sends a request to the functions without the gateway, with a principal in its context.
func (o *office) direct(p *authz.Principal, request string) reply {
	o.t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, path, nil)
	if p != nil {
		r = r.WithContext(authz.WithPrincipal(r.Context(), p))
	}
	w := httptest.NewRecorder()
	logging.Requests(slog.New(slog.DiscardHandler), o.functions).ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return reply{w.Code, w.Result().Header, string(body)}
}

// comparable returns an answer without the values that identify its request.
func (r reply) comparable() string {
	for _, name := range []string{"X-Request-Id", "Date", "Content-Length", "Connection"} {
		id := r.header.Get(name)
		r.header.Del(name)
		if name == "X-Request-Id" {
			r.body = strings.ReplaceAll(r.body, id, "ID")
		}
	}
	var names []string
	for name := range r.header {
		names = append(names, name)
	}
	slices.Sort(names)
	out := fmt.Sprintf("%d\n", r.status)
	for _, name := range names {
		out += fmt.Sprintf("%s: %q\n", name, r.header[name])
	}
	return out + r.body
}

func TestGatewayAndFunctionDenyWithSameText(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "a", "b")
	callers := map[string][]string{
		"no scopes": {}, "another agent": {"agents:b:read", "agents:b:run"}, "all agents": {"agents:read"},
		"lookalikes": {"agents:*", "AGENTS:A:RUN", "agents::read", "sessions:read sessions:write", "sess*:delete"},
	}
	var requests []string
	for r := range route.Table.All() {
		requests = append(requests, r.Method+" "+r.Path(func(string) string { return "a" }))
		requests = append(requests, "PUT "+r.Path(func(string) string { return "x-1" }))
	}
	requests = append(requests, "GET /nope", "GET //agents", "GET /agents/..%2fsessions", "GET /agents/%2a/runs",
		"PUT /health", "OPTIONS /agents")
	refused := map[int]int{}
	same := func(caller, request string, atGateway, atFunction reply) {
		if atGateway.status < 400 && atFunction.status < 400 {
			return
		}
		refused[atGateway.status]++
		if diff := cmp.Diff(atGateway.comparable(), atFunction.comparable()); diff != "" {
			t.Errorf("%s, %s (-gateway +function):\n%s", caller, request, diff)
		}
	}
	for _, request := range requests {
		for caller, scopes := range callers {
			p := &authz.Principal{Subject: "ann", Scopes: scopes, ExpiresAt: start.Add(time.Hour)}
			if d := o.authorizer.Policy.Decide(p, "GET", "/sessions"); d.Allow {
				t.Fatalf("%s may read sessions, and there are none here", caller)
			}
			same(caller, request, o.call(request, bearer(sign(t, "ann", time.Hour, scopes...))), o.direct(p, request))
		}
		same("nobody", request, o.call(request), o.direct(nil, request))
		past := &authz.Principal{Subject: "ann", Scopes: []string{"agents:read"}, ExpiresAt: start.Add(-time.Hour)}
		same("expired", request, o.call(request, bearer(sign(t, "ann", -time.Hour, "agents:read"))), o.direct(past, request))
	}
	for _, status := range []int{401, 403, 404, 405} {
		if refused[status] == 0 {
			t.Errorf("no request was answered with %d", status)
		}
	}
}

// subject is the owner of a caller's data for api.OS.
func subject(p *authz.Principal) (name, otherwise string, err error) { return p.Subject, "", nil }
