package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/gateway"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/token"
)

const key = "TEST KEY ONLY: thirty-two bytes at the very least" // as in testdata/mint.py

var start = time.Unix(1_893_456_000, 0).UTC() // 2030-01-01

// gate is a gateway on a real socket with its own clock. The handler behind it decides again,
// as the API does, and answers with the principal that it sees.
type gate struct {
	t       *testing.T
	addr    string
	log     *syncBuffer
	asked   atomic.Int64 // how often the verifier verified a valid token
	reached atomic.Int64 // how many requests reached the handler
	later   atomic.Int64 // nanoseconds since start
}

// seen is the answer of the handler behind the gateway.
type seen struct {
	Route     string   `json:"route"`
	Subject   string   `json:"subject"`
	Scopes    []string `json:"scopes"`
	Anonymous bool     `json:"anonymous"`
}

func newGate(t *testing.T, agents ...string) *gate {
	t.Helper()
	g := &gate{t: t, log: &syncBuffer{}}
	now := func() time.Time { return start.Add(time.Duration(g.later.Load())) }
	c := &config.Config{ID: "test-os", Auth: config.Auth{
		Algorithms: []string{"HS256"}, Keys: []config.Key{{Literal: key}}, AdminScope: "agent_os:admin", RequireExp: true,
		Leeway: 10 * time.Second,
	}}
	for _, id := range agents {
		c.Agents = append(c.Agents, config.Agent{ID: id})
	}
	a, err := edge.New(c, edge.Outside{Now: func() time.Time { g.asked.Add(1); return now() }})
	if err != nil {
		t.Fatal(err)
	}
	a.Hash = hashes
	behind := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.reached.Add(1)
		p, _ := authz.From(r.Context())
		d := a.Policy.Decide(p, r.Method, r.URL.Path)
		if err := d.Err(logging.RequestID(r.Context())); err != nil {
			fault.Write(w, err)
			return
		}
		s := seen{Route: string(d.Route.Name), Anonymous: p == nil}
		if p != nil {
			s.Subject, s.Scopes = p.Subject, p.Scopes
		}
		_ = json.NewEncoder(w).Encode(s)
	})
	server := httptest.NewServer(logging.Requests(logging.NewLogger(g.log, false), gateway.New(a, behind, now)))
	t.Cleanup(server.Close)
	g.addr = server.Listener.Addr().String()
	return g
}

// at sets the clock.
func (g *gate) at(since time.Duration) { g.later.Store(int64(since)) }

type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) seen(t *testing.T) (s seen) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &s); err != nil || r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.body)
	}
	return s
}

// call sends a request with exactly this path, without cleaning it.
func (g *gate) call(request string, headers ...string) reply {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n", request,
		strings.Join(append(headers, ""), "\r\n"))
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		g.t.Fatalf("%s: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatalf("%s: %v", request, err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

func bearer(raw string) string { return "Authorization: Bearer " + raw }

// pyjwt returns a token of testdata/pyjwt.json.
func pyjwt(t *testing.T, who string) string {
	t.Helper()
	data, err := os.ReadFile("testdata/pyjwt.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]string
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	if all[who] == "" {
		t.Fatalf("no token for %s", who)
	}
	return all[who]
}

// sign signs a token that is valid for this long.
func sign(t *testing.T, sub string, life time.Duration, scopes ...string) string {
	t.Helper()
	s, err := token.LoadSigner(token.SigningKey{HMAC: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(token.Draft{Claims: token.Claims{Subject: sub, Scopes: scopes, ExpiresAt: start.Add(life)}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestPublicRoutesNeedNoToken(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a")
	for _, path := range []string{"/", "/health", "/health/", "/info"} {
		for name, headers := range map[string][]string{
			"without one": nil, "with a bad one": {bearer("nonsense")}, "with two": {bearer("a"), bearer("b")},
			"with a good one": {bearer(pyjwt(t, "admin"))},
		} {
			if s := g.call("GET "+path, headers...).seen(t); !s.Anonymous {
				t.Errorf("%s %s: %+v", path, name, s)
			}
		}
	}
	if n := g.asked.Load(); n != 0 {
		t.Errorf("the authorizer was asked %d times", n)
	}
}

func TestUnknownRouteNeedsTokenThenIsNotFound(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a")
	for request, want := range map[string]struct {
		anonymous, known int
		allow            string
	}{
		"GET /nope":              {401, 404, ""},
		"DELETE /nope/x":         {401, 404, ""},
		"PUT /agents":            {401, 405, "GET"},
		"DELETE /agents/a":       {401, 405, "GET"},
		"PUT /agents/a/runs":     {401, 405, "POST, GET"},
		"HEAD /agents":           {401, 405, "GET"},
		"PUT /sessions/s":        {401, 405, "GET, PATCH, DELETE"},
		"get /agents":            {401, 405, "GET"}, // methods are case-sensitive
		"POST /health":           {405, 405, "GET, HEAD"},
		"HEAD /info":             {405, 405, "GET"},
		"OPTIONS /agents":        {405, 405, "GET"}, // browsers send no token with it
		"OPTIONS /nope":          {404, 404, ""},
		"GET /agents/a/runs/r/x": {401, 404, ""},
	} {
		for who, status := range map[string]int{"": want.anonymous, "nobody": want.known, "admin": want.known} {
			var headers []string
			if who != "" {
				headers = []string{bearer(pyjwt(t, who))}
			}
			got := g.call(request, headers...)
			allow := want.allow
			if status != http.StatusMethodNotAllowed {
				allow = ""
			}
			if got.status != status || got.header.Get("Allow") != allow {
				t.Errorf("%s as %q: %d, Allow %q; want %d, %q", request, who, got.status, got.header.Get("Allow"), status, allow)
			}
			if challenge := got.header.Get("WWW-Authenticate"); (challenge != "") != (status == http.StatusUnauthorized) {
				t.Errorf("%s as %q: challenge %q", request, who, challenge)
			}
		}
	}
}

// These are recorded statuses of AgentOS 3.1.10 for odd paths. AgentOS checks the scope of a
// glob before it looks for a route, so it answers a token without scopes with 403 where
// Keyway answers 404 (marked *).
func TestOddPathsMatchAsInAgentOS(t *testing.T) {
	t.Parallel()
	g := newGate(t, "web-search-agent")
	for path, want := range map[string][2]int{ // with agents:read, with no scope
		"/agents/":                        {200, 403},
		"/agents//":                       {200, 403},
		"/%61gents":                       {200, 403},
		"/agents/web-search-agent/":       {200, 403},
		"/agents%2Fweb-search-agent":      {200, 403},
		"/agents/web-search-agent%2Fruns": {403, 403},
		"/agents/web-search-agent/runs/?session_id=x": {403, 403},
		"/sessions/":                    {403, 403},
		"/sessions?x":                   {403, 403},
		"/sessions/%2e":                 {403, 403},
		"/session%73":                   {403, 403},
		"/config/":                      {403, 403},
		"/config%2f":                    {403, 403},
		"//agents":                      {404, 404},
		"//sessions":                    {404, 404},
		"//config":                      {404, 404},
		"/AGENTS":                       {404, 404},
		"/Agents/web-search-agent":      {404, 404},
		"/AGENTS/web-search-agent/runs": {404, 404},
		"/agents/../sessions":           {404, 404}, // *
		"/agents/..%2fsessions":         {404, 404}, // *
		"/agents/%2e%2e/sessions":       {404, 404}, // *
		"/./sessions":                   {404, 404},
		"/health/../sessions":           {404, 404},
		"/docs/../sessions":             {404, 404},
		"/sessions;x":                   {404, 404},
		"/sessions%20":                  {404, 404},
		"/sessions%00":                  {404, 404},
		"/sessions%3Fx":                 {404, 404},
		`/agents\..\sessions`:           {404, 404},
	} {
		for i, who := range []string{"reader", "nobody"} {
			if got := g.call("GET "+path, bearer(pyjwt(t, who))); got.status != want[i] {
				t.Errorf("%s as %s: %d %s, want %d", path, who, got.status, got.body, want[i])
			}
		}
		if got := g.call("GET " + path); got.status != 401 ||
			!strings.HasPrefix(got.body, `{"detail":"Authorization header missing","hint":"`) {
			t.Errorf("%s without a token: %d %s", path, got.status, got.body)
		}
	}
}

func TestDenialNamesMissingScope(t *testing.T) {
	t.Parallel()
	g := newGate(t, "web-search-agent", "finance-agent")
	got := g.call("POST /agents/finance-agent/runs", bearer(pyjwt(t, "web")))
	id := got.header.Get("X-Request-Id")
	want := `{"detail":"Insufficient permissions. Required scope(s): agents:run",` +
		`"missing":["agents:finance-agent:run"],"decision_id":"` + id + `"}`
	if got.status != 403 || got.body != want || id == "" {
		t.Errorf("%d %s, want %s", got.status, got.body, want)
	}
	if c := got.header.Get("WWW-Authenticate"); c != `Bearer error="insufficient_scope", `+
		`scope="agents:finance-agent:run"` {
		t.Errorf("challenge %q", c)
	}
	if s := g.call("POST /agents/web-search-agent/runs", bearer(pyjwt(t, "web"))).seen(t); s.Route != "create_run" ||
		s.Subject != "web" {
		t.Errorf("%+v", s)
	}
	// An undeclared agent is denied with the same text.
	if got := g.call("POST /agents/nope/runs", bearer(pyjwt(t, "web"))); got.status != 403 ||
		!strings.Contains(got.body, `"missing":["agents:nope:run"]`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	if n := g.reached.Load(); n != 1 {
		t.Errorf("%d requests came through, and one was allowed", n)
	}
}

// A policy can't name an id with a space, and it denies every path that it doesn't name.
func TestUnnameableIDIsDenied(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a")
	if got := g.call("GET /agents/a%20b", bearer(sign(t, "ann", time.Hour, "agents:a b:read"))); got.status != 403 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestRejectedTokenGetsItsReason(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a")
	good := pyjwt(t, "admin")
	for name, row := range map[string]struct {
		headers []string
		want    string
	}{
		"none":     {nil, "Authorization header missing"},
		"two":      {[]string{bearer(good), bearer(good)}, "Ambiguous Authorization header"},
		"nonsense": {[]string{bearer("nonsense")}, "Invalid token: Not enough segments"},
		"expired":  {[]string{bearer(sign(t, "ann", -time.Hour))}, "Token has expired"},
		"changed": {[]string{bearer(good[:len(good)-6] + "AAAAAA")},
			"Invalid token: Signature verification failed"},
		"in a cookie": {[]string{"Cookie: access_token=" + good + "; Authorization=" + good},
			"Authorization header missing"},
		"in similar names": {[]string{"X-Authorization: Bearer " + good, "Proxy-Authorization: Bearer " + good},
			"Authorization header missing"},
		"in another's clothes": {[]string{"Authorization: Basic " + good}, "Invalid token: Invalid header padding"},
	} {
		got := g.call("GET /agents", row.headers...)
		if got.status != 401 || !strings.HasPrefix(got.body, `{"detail":"`+row.want+`","hint":"`) ||
			got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %s, want %s", name, got.status, got.body, row.want)
		}
	}
	if got := g.call("GET /agents?token=" + good + "&access_token=" + good); got.status != 401 {
		t.Errorf("in the query: %d", got.status)
	}
	for _, header := range []string{"authorization: bearer " + good, "AUTHORIZATION: BEARER  " + good,
		"Authorization: " + good} {
		if s := g.call("GET /agents", header).seen(t); s.Subject != "admin" {
			t.Errorf("%.25s: %+v", header, s)
		}
	}
}

func TestHeadersCannotChangePrincipal(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a")
	forged := []string{
		"X-Principal: root", "Principal: root", "X-User-Id: root", "Sub: root", "X-Forwarded-User: root",
		"X-Amzn-Oidc-Identity: root",
		"X-Amzn-Request-Context: {\"authorizer\":{\"sub\":\"root\",\"scopes\":\"[\\\"agent_os:admin\\\"]\"}}",
		"Scopes: [\"agent_os:admin\"]",
		"X-Http-Method-Override: POST", "X-Original-Url: /health", "X-Rewrite-Url: /health", "X-Request-Id: forged",
	}
	got := g.call("GET /agents", append(forged, bearer(pyjwt(t, "reader")))...)
	if diff := cmp.Diff(seen{Route: "list_agents", Subject: "reader", Scopes: []string{"agents:read"}},
		got.seen(t)); diff != "" {
		t.Error(diff)
	}
	if got.header.Get("X-Request-Id") == "forged" {
		t.Error("the client chose the request's id")
	}
	if got := g.call("GET /sessions", append(forged, bearer(pyjwt(t, "reader")))...); got.status != 403 {
		t.Errorf("a forged scope opens sessions: %d", got.status)
	}
	if got := g.call("GET /agents", forged...); got.status != 401 {
		t.Errorf("without a token: %d %s", got.status, got.body)
	}
}

// The log identifies callers by a hash, and never contains a token.
func TestLogHasNoToken(t *testing.T) {
	t.Parallel()
	g := newGate(t, "a")
	good := sign(t, "ann@example.com", time.Hour, "agents:read")
	g.call("GET /agents?secret=query-marker", bearer(good))
	g.call("GET /sessions", bearer(good))
	g.call("GET /agents", bearer(good[:len(good)-6]+"AAAAAA"))
	g.call("GET /agents", bearer("header-marker"))
	log := g.log.String()
	for _, secret := range append(strings.Split(good, "."), "ann@example.com", "header-marker", "query-marker") {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q:\n%s", secret, log)
		}
	}
	if n := strings.Count(log, `"principal":"`+hashes.Subject("", "ann@example.com")+`"`); n != 2 {
		t.Errorf("the caller is named %d times:\n%s", n, log)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }
