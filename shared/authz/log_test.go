package authz

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
)

// written returns the line about one decision, without time, level and duration.
func written(t testing.TB, e Entry) string {
	t.Helper()
	var b bytes.Buffer
	e.Began = time.Now()
	NewLog(slog.New(slog.NewJSONHandler(&b, nil)), strings.Repeat("0123456789abcdef", 4), []string{"web"}).
		Write(t.Context(), e)
	line := regexp.MustCompile(`^\{"time":"[^"]+","level":"INFO","msg":"decision",`).ReplaceAllString(b.String(), "{")
	return strings.TrimSpace(regexp.MustCompile(`,"us":\d+\}`).ReplaceAllString(line, "}"))
}

// about returns the Entry that the gateway and the functions make of a request.
func about(o *Policy, p *Principal, request string) Entry {
	method, path, _ := strings.Cut(request, " ")
	d := o.Decide(p, method, path)
	return Entry{RequestID: "r", Method: method, Principal: p, Decision: d, Err: d.Err("r")}
}

func ann(scopes ...string) *Principal {
	return &Principal{Subject: "ann", Hash: "8899aabbccddeeff", TokenHash: "0011223344556677", Scopes: scopes}
}

func TestALineContainsTheDecision(t *testing.T) {
	t.Parallel()
	o := policy(t, admin, Mapping{"POST", "/agents/*/runs", []string{"app:run"}})
	caller := `"principal":"` + ann().Hash + `","token":"0011223344556677"`
	for name, row := range map[string]struct {
		entry Entry
		want  string
	}{
		"allowed": {about(o, ann("agents:read", "x"), "GET /agents/web"), `"allow":true,` + caller +
			`,"scopes":["agents:read","x"],"method":"GET","route":"GET /agents/{agent_id}",` +
			`"agent":"web","need":["agents:read"]`},
		"filtered": {about(o, ann("agents:web:read"), "GET /agents"), `"allow":true,` + caller +
			`,"scopes":["agents:web:read"],"method":"GET","route":"GET /agents","need":["agents:read"],"filtered":true`},
		"an administrator's": {about(o, ann(admin), "GET /agents"), `"allow":true,` + caller +
			`,"scopes":["agent_os:admin"],"method":"GET","route":"GET /agents","need":["agents:read"],"admin":true`},
		"mapped and refused": {about(o, ann(), "POST /agents/web/runs"), `"allow":false,"status":403,` + caller +
			`,"method":"POST","route":"POST /agents/{agent_id}/runs","agent":"web","need":["app:run"],` +
			`"missing":["app:run"],"mapping":"POST /agents/*/runs"`},
		"refused for one": {about(o, ann(), "GET /agents/web"), `"allow":false,"status":403,` + caller +
			`,"method":"GET","route":"GET /agents/{agent_id}","agent":"web","need":["agents:read"],` +
			`"missing":["agents:web:read"]`},
		"refused for an id that nobody has declared": {about(o, ann(), "GET /agents/ann.example.com"),
			`"allow":false,"status":403,` + caller + `,"method":"GET","route":"GET /agents/{agent_id}",` +
				`"need":["agents:read"],"missing":["agents:read"]`},
		"allowed for an id that nobody has declared": {about(o, ann("agents:read"), "GET /agents/ann.example.com"),
			`"allow":true,` + caller + `,"scopes":["agents:read"],"method":"GET","route":"GET /agents/{agent_id}",` +
				`"need":["agents:read"]`},
		"refused for an id that is not logged": {about(o, ann(), "GET /agents/<web>"),
			`"allow":false,"status":403,` + caller + `,"method":"GET","route":"GET /agents/{agent_id}",` +
				`"need":["agents:read"],"missing":["agents:read"]`},
		"not served": {about(o, ann(), "GET /secret-path"),
			`"allow":false,"status":404,"reason":"Not Found",` + caller + `,"method":"GET"`},
		"another method": {about(o, ann(), "PUT /agents"),
			`"allow":false,"status":405,"reason":"Method Not Allowed",` + caller + `,"method":"PUT"`},
		"a text that is not a method": {about(o, ann(), "SECRETMETHOD /agents"),
			`"allow":false,"status":405,"reason":"Method Not Allowed",` + caller + `,"method":"other"`},
		"no token": {about(o, nil, "GET /agents/web"),
			`"allow":false,"status":401,"reason":"Authorization header missing","method":"GET",` +
				`"route":"GET /agents/{agent_id}","agent":"web"`},
		"a long list of scopes": {about(o, ann("agents:read", strings.Repeat("x", 9000)), "GET /agents"),
			`"allow":true,` + caller + `,"scopes_bytes":9011,"method":"GET","route":"GET /agents","need":["agents:read"]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, want := written(t, row.entry), `{"request_id":"r",`+row.want+`,"config":"0123456789ab"}`; got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

// The origins are what keyway diff computes the effect of changed grants from.
func TestALineHasTheOriginsOfScopes(t *testing.T) {
	t.Parallel()
	o := policy(t, admin)
	p := ann("agents:read", "agents:web:run")
	p.Realm, p.Origins = "https://i", []string{"scope", "groups=web"}
	caller := `{"request_id":"r","allow":true,"principal":"` + p.Hash + `","token":"0011223344556677",` +
		`"scopes":["agents:read","agents:web:run"],`
	for origins, want := range map[string]string{
		"groups=web": `"origins":["scope","groups=web"],"issuer":"https://i",`,
		"groups=" + strings.Repeat("g", maxScopeText): `"origins_bytes":8204,"issuer":"https://i",`,
	} {
		p := *p
		p.Origins = []string{"scope", origins}
		if got := written(t, about(o, &p, "GET /agents")); !strings.HasPrefix(got, caller+want+`"method":"GET"`) {
			t.Errorf("%.80s: %.300s", origins, got)
		}
	}
	none := ann()
	none.Absent, none.Unread = `"scopes"`, "it has scope, realm_access"
	got := written(t, about(o, none, "GET /agents"))
	if !strings.Contains(got, `"no_scopes":"no claim \"scopes\"; it has scope, realm_access","method"`) {
		t.Error(got)
	}
}

// What was expected is for the operator. The log bounds it.
func TestALineHasTheCauseOfARefusedToken(t *testing.T) {
	t.Parallel()
	e := about(policy(t, admin), nil, "GET /agents")
	e.Err, e.Cause = fault.Public(fault.Unauthenticated, "Invalid token: Invalid issuer", nil), `iss is "a", expected "b"`
	want := `{"request_id":"r","allow":false,"status":401,"reason":"Invalid token: Invalid issuer",` +
		`"cause":"iss is \"a\", expected \"b\"","method":"GET"`
	if got := written(t, e); !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s…", got, want)
	}
	e.Cause = strings.Repeat("é", maxCause)
	if got := written(t, e); len(got) > maxCause+300 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestReasonsNameTheOriginOfScopes(t *testing.T) {
	t.Parallel()
	o := policy(t, admin)
	p := ann("agents:read", "agents:web:run", "agents:*:run", "sessions:read", "a:b", "c:d")
	p.Origins = []string{"scope", "groups=web", "groups=all\n", "scope", "scope", "scope"}
	for request, want := range map[string]string{
		"GET /agents":           "its scopes: agents:read from scope",
		"POST /agents/web/runs": `its scopes: agents:web:run from groups=web, agents:*:run from "groups=all\n"`,
		"DELETE /sessions/s": `its scopes: agents:read from scope, agents:web:run from groups=web, agents:*:run from ` +
			`"groups=all\n", sessions:read from scope, a:b from scope and 1 more`,
	} {
		method, path, _ := strings.Cut(request, " ")
		reasons := o.Decide(p, method, path).Reasons(strings.Clone)
		if got := reasons[len(reasons)-1]; got != want {
			t.Errorf("%s:\n got %s\nwant %s", request, got, want)
		}
	}
	root := ann("x:y", admin)
	root.Origins = []string{"scope", "groups=boss"}
	if got := strings.Join(o.Decide(root, "GET", "/sessions").Reasons(strings.Clone), "; "); !strings.HasSuffix(got,
		"; its scopes: agent_os:admin from groups=boss") {
		t.Error(got)
	}
	for _, request := range []string{"GET /nope", "PUT /agents", "GET /health"} {
		method, path, _ := strings.Cut(request, " ")
		reasons := o.Decide(p, method, path).Reasons(strings.Clone)
		if got := strings.Join(reasons, "; "); strings.Contains(got, "its scopes") {
			t.Errorf("%s: %s", request, got)
		}
	}
}

func TestReasonsSayThatTheAgentOfTheBodyIsDecidedAbout(t *testing.T) {
	t.Parallel()
	o := policy(t, admin)
	const decides = "each agent that the request names or lists is decided about as POST /agents/{agent_id}/runs"
	for request, said := range map[string]bool{
		"POST /v1/chat/completions": true, "POST /v1/responses": true, "GET /v1/models": true,
		"GET /v1/models/web": false, "POST /agents/web/agui": false, "POST /agents/web/runs": false,
	} {
		method, path, _ := strings.Cut(request, " ")
		reasons := strings.Join(o.Decide(ann("agents:web:run"), method, path).Reasons(strings.Clone), "; ")
		if strings.Contains(reasons, decides) != said || strings.Contains(reasons, "grants all of it") == said {
			t.Errorf("%s: %s", request, reasons)
		}
	}
}

// The hint names what the caller's own token has. Which claims are read is the operator's business.
func TestA403OfATokenWithoutScopesSaysWhatItHas(t *testing.T) {
	t.Parallel()
	o, p := policy(t, admin), ann()
	p.Absent, p.Unread = `"scopes"`, "it has scope, realm_access"
	_, _, body := fault.Answer(o.Decide(p, "GET", "/agents").Err(""))
	const hint = `"hint":"This server found no scopes in the token: it has scope, realm_access. ` +
		`Ask the operator of this server which claims it reads, or the issuer for a token with scopes"}`
	if !strings.HasSuffix(string(body), hint) || strings.Contains(string(body), `\"scopes\"`) {
		t.Errorf("%s", body)
	}
	p.Unread = ""
	if _, _, body := fault.Answer(o.Decide(p, "GET", "/agents").Err("")); strings.Contains(string(body), "hint") {
		t.Errorf("%s", body)
	}
	reasons := strings.Join(o.Decide(p, "GET", "/agents").Reasons(strings.Clone), "; ")
	if !strings.HasSuffix(reasons, `the token has no scopes: no claim "scopes"`) {
		t.Error(reasons)
	}
}

func TestARefusedTokenIsNamedByItsHash(t *testing.T) {
	t.Parallel()
	e := about(policy(t, admin), nil, "GET /agents")
	e.Token, e.Err = "8899aabbccddeeff", fault.Public(fault.Unauthenticated, "Token has expired", errors.New("cause"))
	want := `{"request_id":"r","allow":false,"status":401,"reason":"Token has expired","token":"8899aabbccddeeff",` +
		`"method":"GET","route":"GET /agents","config":"0123456789ab"}`
	if got := written(t, e); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestRequestsThatNeedNoTokenAreNotLogged(t *testing.T) {
	t.Parallel()
	o := policy(t, admin)
	for _, request := range []string{"GET /health", "GET /", "PUT /health", "OPTIONS /agents", "OPTIONS /nope"} {
		for _, p := range []*Principal{nil, ann()} {
			if got := written(t, about(o, p, request)); got != "" {
				t.Errorf("%s: %s", request, got)
			}
		}
	}
	(*Log)(nil).Write(t.Context(), about(o, nil, "GET /agents")) // a nil Log writes nothing
}

func TestA403CommentsOnScopesThatLookMeant(t *testing.T) {
	t.Parallel()
	o := policy(t, admin)
	d := o.Decide(ann("sessions:read", "agents:*", "agents:finance:run", "AGENTS:web:RUN"), "POST", "/agents/web/runs")
	_, _, body := fault.Answer(d.Err("d-1"))
	const hint = `,"decision_id":"d-1","hint":"In the token, \"agents:*\" grants nothing here: ` +
		`write \"agents:web:run\", or \"agents:run\" for all; ` +
		`\"AGENTS:web:RUN\" grants nothing here: write \"agents:web:run\""}`
	if !strings.HasSuffix(string(body), hint) {
		t.Errorf("%s does not end in %s", body, hint)
	}
	reasons := strings.Join(d.Reasons(strings.Clone), "\n")
	if !strings.Contains(reasons, `"agents:*" grants nothing here`) || strings.Contains(reasons, "finance") {
		t.Errorf("reasons:\n%s", reasons)
	}
	long := strings.Repeat("agents:read ", 300) + "agents:run"
	_, _, body = fault.Answer(o.Decide(ann(long, long, long, long), "GET", "/agents").Err(""))
	if n := strings.Count(string(body), "grants nothing"); n != maxLookalikes || len(body) > 1000 {
		t.Errorf("%d scopes in %d bytes: %s", n, len(body), body)
	}
	_, _, body = fault.Answer(o.Decide(ann("agents:finance:run"), "POST", "/agents/web/runs").Err(""))
	if strings.Contains(string(body), "hint") {
		t.Errorf("a correct scope for another agent is commented on: %s", body)
	}
}

func BenchmarkDecisionLine(b *testing.B) {
	o, err := New(route.Table, admin, nil)
	if err != nil {
		b.Fatal(err)
	}
	log := NewLog(slog.New(slog.NewJSONHandler(io.Discard, nil)), strings.Repeat("0", 64), []string{"web"})
	p := ann("agents:web:run", "agents:web:read", "sessions:read", "sessions:write")
	for name, request := range map[string]string{
		"allowed": "POST /agents/web/runs", "refused": "POST /agents/finance/runs",
	} {
		b.Run(name, func(b *testing.B) {
			e := about(o, p, request)
			e.Began = time.Now()
			b.ReportAllocs()
			for b.Loop() {
				log.Write(b.Context(), e)
			}
		})
	}
}
