package edge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/token"
)

const (
	key   = "TEST KEY ONLY: thirty-two bytes at the very least"
	api   = "arn:aws:execute-api:us-east-1:123456789012:s4x3opwd6i/test"
	admin = "agent_os:admin"
)

var now = time.Unix(1_893_456_000, 0).UTC() // 2030-01-01

func clock() time.Time { return now }

// tester holds the methods that testing.TB and rapid.T share.
type tester interface {
	Helper()
	Fatal(...any)
	Errorf(string, ...any)
}

// declaring returns the configuration of an OS with these agents.
func declaring(ids ...string) *config.Config {
	c := &config.Config{ID: "test-os", Auth: config.Auth{
		Algorithms: []string{"HS256"}, Keys: []config.Key{{Literal: key}}, AdminScope: admin, RequireExp: true,
	}}
	open := config.Door{Enabled: new(true)}
	c.Doors = config.Doors{MCP: config.MCPDoor{Enabled: open.Enabled}, OpenAI: open, AGUI: open}
	for _, id := range ids {
		c.Agents = append(c.Agents, config.Agent{ID: id})
	}
	return c
}

func newAuthorizer(t tester, c *config.Config) *edge.Authorizer {
	t.Helper()
	a, err := edge.New(c, edge.Outside{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sign signs a token that is valid for an hour, unless the claims have another expiry.
func sign(t tester, c token.Claims) string { return signFor(t, c) }

// signFor is sign with audiences.
func signFor(t tester, c token.Claims, audience ...string) string {
	t.Helper()
	s, err := token.LoadSigner(token.SigningKey{HMAC: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	if c.ExpiresAt.IsZero() {
		c.ExpiresAt = now.Add(time.Hour)
	}
	raw, err := s.Sign(token.Draft{Claims: c, Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// event returns testdata/request.json, an event of a REST API, with the header
// authorization (lower case, as HTTP/2 clients send it) set to value.
func event(t tester, value string) (e events.APIGatewayCustomAuthorizerRequestTypeRequest) {
	t.Helper()
	data, err := os.ReadFile("testdata/request.json")
	if err == nil {
		err = json.Unmarshal(bytes.ReplaceAll(data, []byte("TOKEN"), []byte(value)), &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// authorize sends a token with these scopes through the authorizer.
func authorize(t tester, a *edge.Authorizer, scopes ...string) events.APIGatewayCustomAuthorizerResponse {
	t.Helper()
	answer, err := a.Authorize(context.Background(),
		event(t, "Bearer "+sign(t, token.Claims{Subject: "ann", Scopes: scopes})))
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// statements writes a policy as lines: "Allow GET/agents".
func statements(t tester, answer events.APIGatewayCustomAuthorizerResponse) (lines []string) {
	t.Helper()
	if answer.PolicyDocument.Version != "2012-10-17" {
		t.Errorf("policy version %q", answer.PolicyDocument.Version)
	}
	for _, s := range answer.PolicyDocument.Statement {
		if diff := cmp.Diff([]string{"execute-api:Invoke"}, s.Action); diff != "" {
			t.Errorf("action %s", diff)
		}
		for _, r := range s.Resource {
			rest, ok := strings.CutPrefix(r, api+"/")
			if !ok || len(r) > 512 {
				t.Errorf("resource %q (%d characters) is not one of this API", r, len(r))
			}
			lines = append(lines, s.Effect+" "+rest)
		}
	}
	return lines
}

// opensAlways is what the policy of every valid token has.
var opensAlways = []string{"Allow GET/whoami", "Allow POST/can"}

// isDoor reports whether a statement is about a door whose path isn't below an agent's. Every scope to run an agent
// opens it, and TestScopeToRunAnyAgentOpensTheDoors checks it.
func isDoor(statement string) bool {
	for r := range route.Table.All() {
		if r.Door == "" || strings.HasPrefix(r.Pattern, "/agents/") {
			continue
		}
		before, _, _ := strings.Cut(r.Pattern, "{")
		rest, ok := strings.CutPrefix(statement, "Allow "+r.Method+before)
		if ok && (rest == "") == (before == r.Pattern) {
			return true
		}
	}
	return false
}

func TestScopeToRunAnyAgentOpensTheDoors(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("web", "finance"))
	runs, reads := statements(t, authorize(t, a, "agents:web:run")), statements(t, authorize(t, a, "agents:read"))
	wide := statements(t, authorize(t, a, "agents:run"))
	for r := range route.Table.All() {
		if r.As == "" || r.Door == "" {
			continue
		}
		fill := func(agent string) string {
			return "Allow " + r.Method + r.Path(func(param string) string {
				if param == "agent_id" {
					return agent
				}
				return "*"
			})
		}
		one, other := fill("web"), fill("finance")
		if !slices.Contains(runs, one) || slices.Contains(runs, other) && one != other {
			t.Errorf("a scope to run one agent gives %q, which opens not exactly %s", runs, one)
		}
		if !slices.Contains(wide, fill("*")) {
			t.Errorf("a scope to run all agents doesn't open %s", r)
		}
		if slices.Contains(reads, fill("*")) || slices.Contains(reads, fill("web")) {
			t.Errorf("a scope to read agents opens %s", r)
		}
	}
}

// byScopes returns the statements that follow from the scopes of a token, without those about doors.
func byScopes(t tester, answer events.APIGatewayCustomAuthorizerResponse) (out []string) {
	t.Helper()
	all := slices.DeleteFunc(statements(t, answer), isDoor)
	for _, line := range all {
		if !slices.Contains(opensAlways, line) {
			out = append(out, line)
		}
	}
	if len(all) != len(out)+len(opensAlways) {
		t.Errorf("%q has not what every token opens", all)
	}
	return out
}

func TestTokenIsReadFromAuthorizationHeaderOnly(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("a"))
	raw := sign(t, token.Claims{Subject: "ann"})
	type headers = map[string]string
	type multi = map[string][]string
	for name, row := range map[string]struct {
		headers headers
		multi   multi
		refusal string // "": accepted
	}{
		"lower case":                         {headers{"authorization": raw}, multi{"authorization": {raw}}, ""},
		"upper case":                         {headers{"AUTHORIZATION": raw}, multi{"AUTHORIZATION": {raw}}, ""},
		"with its scheme":                    {nil, multi{"Authorization": {"Bearer " + raw}}, ""},
		"single values only":                 {headers{"Authorization": raw}, nil, ""},
		"single values if the list is empty": {headers{"Authorization": raw}, multi{"Authorization": {}}, ""},
		"no headers at all":                  {nil, nil, "Authorization header missing"},
		"an empty value": {headers{"authorization": ""}, multi{"authorization": {""}},
			"Authorization header missing"},
		"only similar names": {headers{"X-Authorization": raw, "Proxy-Authorization": raw},
			multi{"Cookie": {"authorization=" + raw}}, "Authorization header missing"},
		"twice": {headers{"authorization": raw}, multi{"authorization": {raw, raw}},
			"Ambiguous Authorization header"},
		"in two spellings": {nil, multi{"authorization": {raw}, "Authorization": {raw}},
			"Ambiguous Authorization header"},
		"two spellings among single values": {headers{"authorization": raw, "Authorization": raw}, nil,
			"Ambiguous Authorization header"},
		"nonsense": {nil, multi{"authorization": {"nonsense"}}, "Invalid token: Not enough segments"},
		"changed": {nil, multi{"authorization": {raw[:len(raw)-8] + "AAAAAAAA"}},
			"Invalid token: Signature verification failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := event(t, "")
			e.Headers, e.MultiValueHeaders = row.headers, row.multi
			answer, err := a.Authorize(t.Context(), e)
			if row.refusal == "" {
				if err != nil || answer.PrincipalID == "" {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, fault.Unauthenticated) || fault.Detail(err) != row.refusal {
				t.Errorf("%v, want %q", err, row.refusal)
			}
			if diff := cmp.Diff(events.APIGatewayCustomAuthorizerResponse{}, answer); diff != "" {
				t.Errorf("the rejection has a policy: %s", diff)
			}
		})
	}
}

func TestExpiredTokenIsRejected(t *testing.T) {
	t.Parallel()
	c := declaring("a")
	c.Auth.Leeway = 10 * time.Second
	a := newAuthorizer(t, c)
	for age, refused := range map[time.Duration]bool{-time.Second: false, 9 * time.Second: false, 10 * time.Second: true,
		time.Hour: true} {
		_, err := a.Authorize(t.Context(), event(t, sign(t, token.Claims{Subject: "ann", ExpiresAt: now.Add(-age)})))
		if got := fault.Detail(err) == "Token has expired"; (err != nil) != refused || got != refused {
			t.Errorf("expired for %s: %v", age, err)
		}
	}
}

func TestAudienceIsVerifiedOnlyIfConfigured(t *testing.T) {
	t.Parallel()
	c := declaring("a")
	c.Auth.Audience = []string{"test-os"}
	raw := sign(t, token.Claims{Subject: "ann"}) // without an audience
	if _, err := newAuthorizer(t, c).Authorize(t.Context(), event(t, raw)); err != nil {
		t.Errorf("not configured: %v", err)
	}
	c.Auth.VerifyAudience = true
	if _, err := newAuthorizer(t, c).Authorize(t.Context(), event(t, raw)); !strings.Contains(fault.Detail(err),
		`missing the "aud" claim`) {
		t.Errorf("configured: %v", err)
	}
}

func TestMalformedMethodARNIsInternalError(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("a"))
	for _, arn := range []string{"", "GET/agents", "arn:aws:execute-api:r:1:id", "arn:aws:execute-api:r:1:id/stage",
		"http://id/stage/GET/agents"} {
		e := event(t, sign(t, token.Claims{Subject: "ann", Scopes: []string{admin}}))
		e.MethodArn = arn
		answer, err := a.Authorize(t.Context(), e)
		if !errors.Is(err, fault.Internal) || len(answer.PolicyDocument.Statement) > 0 {
			t.Errorf("%q: %v, %+v", arn, err, answer)
		}
		e.MultiValueHeaders = map[string][]string{"Authorization": {"nonsense"}}
		if _, err := a.Authorize(t.Context(), e); !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("%q without a valid token: %v", arn, err)
		}
	}
}

func TestConfigurationErrorsDoNotRevealSecrets(t *testing.T) {
	t.Parallel()
	mapping := func(method, path, scope string) func(*config.Auth) {
		return func(a *config.Auth) {
			a.ScopeMappings = []config.ScopeMapping{{Method: method, Pattern: path, Scopes: []string{scope}}}
		}
	}
	for want, change := range map[string]func(*config.Auth){
		"keys[1]: the algorithm HS256": func(a *config.Auth) {
			a.Keys = append(a.Keys,
				config.Key{JWKSURL: "https://sesame.example"})
		},
		"keys[0]: not the ARN":     func(a *config.Auth) { a.Keys[0] = config.Key{Secret: "arn:aws:secretsmanager:sesame"} },
		"keys[0]: the HMAC secret": func(a *config.Auth) { a.Keys[0].Literal = "sesame" },
		"keys[0]: not PEM":         func(a *config.Auth) { a.Keys[0].Literal = "-----BEGIN PUBLIC KEY-----sesame" },
		"keys: none given":         func(a *config.Auth) { a.Keys = nil },
		`"GET /nope" matches no`:   mapping("GET", "/nope", "a:b"),
		`"GET /health" matches no`: mapping("GET", "/health", "a:b"),
		"which is not a scope":     mapping("GET", "/agents", "a"),
	} {
		c := declaring("a")
		change(&c.Auth)
		if _, err := edge.New(c, edge.Outside{Now: clock}); err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "sesame") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The function decodes only a part of an event. Its answer is the same as with all of it.
func TestAnEventIsAuthorizedAsItsRequestIs(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("a"))
	good := sign(t, claims("ann", "agents:read"))
	const head = `{"type":"REQUEST","methodArn":"arn:aws:execute-api:us-east-1:1:api/test/GET/agents",`
	for name, row := range map[string]struct {
		members string
		good    bool
	}{
		"in both":                      {`"headers":{"authorization":"T"},"multiValueHeaders":{"authorization":["T"]}`, true},
		"in one":                       {`"headers":{"Authorization":"T","Host":"h"},"multiValueHeaders":null`, true},
		"in the other, in capitals":    {`"headers":{},"multiValueHeaders":{"AUTHORIZATION":["T"],"X":["y"]}`, true},
		"without a header":             {`"headers":null,"multiValueHeaders":{"Accept":["*/*"]}`, false},
		"two values":                   {`"multiValueHeaders":{"authorization":["T","x"]}`, false},
		"two spellings":                {`"multiValueHeaders":{"authorization":["T"],"Authorization":["x"]}`, false},
		"two spellings of one":         {`"headers":{"authorization":"x","Authorization":"T"}`, false},
		"an empty list, and the other": {`"headers":{"authorization":"T"},"multiValueHeaders":{"authorization":[]}`, true},
		"null":                         {`"headers":{"authorization":null}`, false},
	} {
		text := []byte(head + strings.ReplaceAll(row.members, `"T"`, `"`+good+`"`) + "}")
		var whole edge.Request
		if err := json.Unmarshal(text, &whole); err != nil {
			t.Fatal(err)
		}
		answer, err := a.Authorize(t.Context(), whole)
		var want bytes.Buffer
		if err == nil {
			encoder := json.NewEncoder(&want)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(answer); err != nil {
				t.Fatal(err)
			}
		}
		got, err2 := a.Answer(t.Context(), text)
		if (err == nil) != row.good || fmt.Sprint(err) != fmt.Sprint(err2) ||
			strings.TrimSpace(want.String()) != string(got) {
			t.Errorf("%s: %v and %v\n%s%s", name, err, err2, &want, got)
		}
	}
}

func TestAuthorizerLogsRejectedTokens(t *testing.T) {
	t.Parallel()
	a := newAuthorizer(t, declaring("a"))
	var log bytes.Buffer
	a.Log = authz.NewLog(slog.New(slog.NewJSONHandler(&log, nil)), "0123456789abcdef", a.Agents)
	e := event(t, sign(t, claims("ann", "agents:read")))
	if _, err := a.Authorize(t.Context(), e); err != nil || log.Len() > 0 {
		t.Fatalf("an accepted token: error %v, log %s", err, log.String())
	}
	e = event(t, "Bearer header-marker.payload-marker.signature-marker")
	e.HTTPMethod, e.Path, e.RequestContext.RequestID = "GET", "/agents/a/runs", "r-1"
	if _, err := a.Authorize(t.Context(), e); !errors.Is(err, fault.Unauthenticated) {
		t.Fatal(err)
	}
	want := `"msg":"decision","request_id":"r-1","source":"203.0.113.7","allow":false,"status":401,` +
		`"reason":"Invalid token: Invalid header ` +
		`padding","token":"` +
		token.Hash([]string{"header-marker.payload-marker.signature-marker"}) +
		`","method":"GET","route":"GET /agents/{agent_id}/runs","agent":"a","config":"0123456789ab","us":`
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), want) {
		t.Errorf("%d lines: %s, want %s", n, log.String(), want)
	}
}

// The operator sees both issuers. The caller of a token with a good signature sees neither, and without one nothing
// is said.
func TestAuthorizerLogsWhatWasExpectedOfATokenWithAGoodSignature(t *testing.T) {
	t.Parallel()
	c := declaring("a")
	c.Auth.Issuer = "http://127.0.0.1:21001/realms/acme"
	a := newAuthorizer(t, c)
	var log bytes.Buffer
	a.Log = authz.NewLog(slog.New(slog.NewJSONHandler(&log, nil)), "0123456789abcdef", a.Agents)
	other := claims("ann", "agents:read")
	other.Issuer = "http://localhost:21001/realms/acme"
	signed := sign(t, other)
	_, err := a.Authorize(t.Context(), event(t, signed))
	if _, _, body := fault.Answer(err); !errors.Is(err, fault.Unauthenticated) || strings.Contains(string(body), "acme") {
		t.Errorf("the caller gets %s, %v", body, err)
	}
	want := `"reason":"Invalid token: Invalid issuer","cause":"iss is \"http://localhost:21001/realms/acme\", ` +
		`expected \"http://127.0.0.1:21001/realms/acme\"","token":`
	if !strings.Contains(log.String(), want) || strings.Contains(log.String(), "ann") {
		t.Errorf("%s, want %s", log.String(), want)
	}
	log.Reset()
	if _, err = a.Authorize(t.Context(), event(t, signed+"A")); err == nil || strings.Contains(log.String(), "acme") {
		t.Errorf("a wrong signature: %v, log %s", err, log.String())
	}
}

// What an event allocates is what the garbage collector has to collect. The bound has room for the race detector.
func TestAnEventAllocatesLittle(t *testing.T) { //nolint:paralleltest // it counts what the whole process allocates
	const most = 40
	a := newAuthorizer(t, declaring("a"))
	data, err := json.Marshal(event(t, "Bearer "+sign(t, claims("ann", "agents:read", "agents:a:run"))))
	if err != nil {
		t.Fatal(err)
	}
	got := testing.AllocsPerRun(100, func() {
		if _, err := a.Answer(t.Context(), data); err != nil {
			t.Fatal(err)
		}
	})
	if t.Logf("%g allocations", got); got > most {
		t.Errorf("an event makes %g allocations", got)
	}
}
