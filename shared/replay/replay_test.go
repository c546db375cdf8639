package replay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
)

const admin = "agent_os:admin"

func policy(t interface {
	Helper()
	Fatal(...any)
}, mappings ...authz.Mapping) *authz.Policy {
	t.Helper()
	p, err := authz.New(route.Table, admin, mappings)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// request is a request with its real path.
type request struct {
	principal, path string
	scopes          []string
	route           *route.Route
	at              time.Time
}

// decide decides about the request. The audience of its token fits.
func (a request) decide(p *authz.Policy) authz.Decision {
	return p.Decide(&authz.Principal{Scopes: a.scopes, Audience: authz.ForBoth}, a.route.Method, a.path)
}

// write logs the decision about a in the format of a server.
func (a request) write(b *bytes.Buffer, p *authz.Policy, config string) authz.Decision {
	d := a.decide(p)
	line := map[string]any{
		"time": a.at, "msg": "decision", "allow": d.Allow, "principal": a.principal, "scopes": a.scopes,
		"method": a.route.Method, "route": a.route.String(), "config": config,
	}
	if !d.Allow {
		line["status"], line["missing"] = 403, texts(d.Missing)
	}
	if id := d.Params["agent_id"]; id != "" {
		line["agent"] = id
	}
	if d.Mapping != "" {
		line["mapping"] = d.Mapping
	}
	if filtered(d) {
		line["filtered"] = true
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	b.Write(append(text, '\n'))
	return d
}

func filtered(d authz.Decision) bool { return d.Allow && d.Route.Lists != "" && !d.AllIDs }

// requests draws requests of all routes. Some have ids that mappings name.
func requests(t *rapid.T) (out []request) {
	var all []*route.Route
	for r := range route.Table.All() {
		if !r.Public {
			all = append(all, r)
		}
	}
	scopes := rapid.SliceOfN(rapid.SampledFrom([]string{
		"agents:read", "agents:run", "agents:a:read", "agents:a:run", "agents:b:run", "agents:*:read", "sessions:read",
		"sessions:write",
		"memories:read", "app:read", "app:run", admin, "no scope",
	}), 0, 4)
	for range rapid.IntRange(1, 30).Draw(t, "requests") {
		r := rapid.SampledFrom(all).Draw(t, "route")
		out = append(out, request{
			principal: rapid.SampledFrom([]string{"aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"}).Draw(t,
				"principal"),
			scopes: scopes.Draw(t, "scopes"),
			route:  r,
			at:     time.Unix(1_700_000_000+int64(rapid.IntRange(0, 100).Draw(t, "at")), 0).UTC(),
			path: r.Path(func(param string) string {
				if param == "agent_id" {
					return rapid.SampledFrom([]string{"a", "b"}).Draw(t, "agent")
				}
				return rapid.SampledFrom([]string{"s-1", "s-2", "t-1"}).Draw(t, "id")
			}),
		})
	}
	return out
}

// exact are mappings that a replay decides exactly: they contain no id but an agent's.
var exact = []string{
	"GET /agents", "GET /agents/*", "GET /agents/a", "GET /agents/a/runs", "GET /agents/*/runs*", "POST /agents/*/runs",
	"POST /agents/b/runs",
	"POST /agents/*", "GET /sessions", "GET /sessions/*", "GET /sessions/*/runs", "GET /s*", "PATCH /sessions/*",
	"GET /memories*", "DELETE /*",
}

// partly are mappings that match some ids of a route only.
var partly = []string{
	"GET /sessions/s-1", "GET /sessions/s-*", "GET /sessions/*1", "GET /sessions/s-1/runs", "GET /sessions/*/runs/t-1",
	"GET /agents/a/runs/s-1",
	"GET /agents/*/runs/s*", "PATCH /sessions/s-2", "GET /*-1", "DELETE /*/s-1",
}

func mappings(t *rapid.T, label string, patterns []string) (out []authz.Mapping) {
	for _, text := range rapid.SliceOfNDistinct(rapid.SampledFrom(patterns), 0, 6, rapid.ID).Draw(t, label) {
		method, path, _ := strings.Cut(text, " ")
		need := rapid.SampledFrom([][]string{{"app:read"}, {"app:run"}, {"app:read", "app:run"}, {"agents:read"},
			{"sessions:read"}})
		out = append(out, authz.Mapping{Method: method, Path: path, Scopes: need.Draw(t, label+" need")})
	}
	return out
}

// For every policy and every caller, the same policy changes nothing.
func TestSamePolicyReportsNoChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rules := mappings(t, "mappings", append(slices.Clone(exact), partly...))
		p := policy(t, rules...)
		var file bytes.Buffer
		all := requests(t)
		for _, a := range all {
			a.write(&file, p, "0123456789ab")
		}
		var log Log
		if err := log.Read(bytes.NewReader(file.Bytes()), time.Time{}); err != nil {
			t.Fatal(err)
		}
		r := log.Replay(Rules{Policy: p, Mappings: rules, Agents: []string{"a"}, Digest: "0123456789abcdef"})
		if len(r.Changes) != 0 || r.Replayed != len(all) {
			t.Fatalf("%d of %d replayed, %+v\n%s", r.Replayed, len(all), r.Changes, file.String())
		}
	})
}

// The oracle decides each request twice, on its real path.
func TestReportMatchesAnOracleForAnotherPolicy(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		was := policy(t, mappings(t, "old", exact)...)
		rules := mappings(t, "new", exact)
		is := policy(t, rules...)
		var file bytes.Buffer
		want, callers := map[string]int{}, map[Verdict]map[string]bool{}
		for _, a := range requests(t) {
			before := a.write(&file, was, "0123456789ab")
			after := a.decide(is)
			v := verdict(before, after)
			if v == "" {
				continue
			}
			want[fmt.Sprint(v, a.route, after.Params["agent_id"])]++
			if callers[v] == nil {
				callers[v] = map[string]bool{}
			}
			callers[v][a.principal] = true
		}
		var log Log
		if err := log.Read(&file, time.Time{}); err != nil {
			t.Fatal(err)
		}
		r := log.Replay(Rules{Policy: is, Mappings: rules, Agents: []string{"a"}, Digest: "fedcba987654"})
		got := map[string]int{}
		for _, c := range r.Changes {
			got[fmt.Sprint(c.Verdict, c.Route, c.Agent)] += c.Requests
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || r.Unsure != 0 {
			t.Fatalf("got  %v\nwant %v (unsure %d)", got, want, r.Unsure)
		}
		for v, who := range callers {
			if r.Counts[v].Callers != len(who) {
				t.Fatalf("%s: %+v, want %d callers", v, r.Counts[v], len(who))
			}
		}
	})
}

// verdict is the oracle. Agent b is not declared.
func verdict(before, after authz.Decision) Verdict {
	switch {
	case before.Allow != after.Allow:
		return map[bool]Verdict{true: Allowed, false: Refused}[after.Allow]
	case filtered(before) != filtered(after):
		return map[bool]Verdict{true: Filtered, false: Unfiltered}[filtered(after)]
	case after.Allow && after.Params["agent_id"] == "b":
		return Undeclared
	}
	return ""
}

func TestMappingOfOneIDIsReportedAsUnsure(t *testing.T) {
	t.Parallel()
	rules := []authz.Mapping{{Method: "GET", Path: "/sessions/s-1", Scopes: []string{"app:read"}}}
	var file bytes.Buffer
	get := route.Table.Match("GET", "/sessions/s-1").Route
	request{principal: "aaaaaaaaaaaaaaaa", path: "/sessions/s-1", scopes: []string{"sessions:read"},
		route: get}.write(&file, policy(t), "")
	var log Log
	if err := log.Read(&file, time.Time{}); err != nil {
		t.Fatal(err)
	}
	r := log.Replay(Rules{Policy: policy(t, rules...), Mappings: rules})
	if r.Unsure != 1 || !slices.Equal(r.Mappings, []string{"GET /sessions/s-1"}) || len(r.Changes) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestOtherLinesAreCountedAndSkipped(t *testing.T) {
	t.Parallel()
	const good = `{"time":"2026-11-21T11:00:00Z","msg":"decision","allow":true,"principal":"aaaaaaaaaaaaaaaa",` +
		`"scopes":["agents:read"],"route":"GET /agents"}`
	const early = `{"time":"2026-11-01T11:00:00Z","msg":"decision","allow":true,"scopes":["agents:read"],"route":"GET ` +
		`/agents"}`
	lines := []string{
		good, "\t" + good + "\r", "2026-11-21T11:00:00.000Z 2026/11/21/[$LATEST]ab " + good, early, "", "  ",
		`{"msg":"request","path":"decision"}`, `{"msg":"request","note":"\"decision\""}`, "START RequestId: 1", "[1]",
		strings.Repeat("x", 2*maxLine),
		`{"msg":"decision"`, `{"msg":"decision"}`, `{"msg":"decision","allow":"yes"}`,
		`{"msg":"decision","allow":true,"scopes":"agents:read"}`,
		`{"time":"2026-11-21T11:00:00Z","msg":"decision","allow":false,"status":401,"reason":"x"}`,
		`{"time":"2026-11-21T11:00:00Z","msg":"decision","allow":false,"status":404}`,
		// This program does not serve the route, or the path was no path of it, and no file changes that.
		`{"time":"2026-11-21T11:00:00Z","msg":"decision","allow":false,"status":404,"scopes":["agents:run"],` +
			`"route":"POST /agents/{agent_id}/runs","agent":"a"}`,
		`{"time":"2026-11-21T11:00:00Z","msg":"decision","allow":true,"route":"GET /teapots"}`,
		`{"time":"2026-11-21T11:00:00Z","msg":"decision","allow":true,"route":"GET /config","scopes_bytes":9000}`,
		`{"time":"2026-11-21T11:00:00Z","msg":"decision","allow":false,"status":403,"route":"GET ` +
			`/agents/{agent_id}","agent":"a|b"}`,
		good, // without a line end
	}
	var log Log
	if err := log.Read(strings.NewReader(strings.Join(lines, "\n")),
		time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%d decisions, %d passed, %d broken, %d old, %+v", log.Decisions, log.Passed, log.Broken, log.Old,
		log.Skipped)
	if want := "10 decisions, 5 passed, 4 broken, 1 old, {NoToken:1 NoScopes:1 NoRoute:3 NoAgent:1}"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if r := log.Replay(Rules{Policy: policy(t)}); r.Replayed != 4 || len(r.Changes) != 0 {
		t.Errorf("%+v", r)
	}
}

// Equal decisions form one group. The order of the scopes does not matter.
func TestEqualDecisionsFormOneGroup(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	list := route.Table.Match("GET", "/agents").Route
	for i := range 10_000 {
		scopes := []string{"agents:a:read", "app:read"}
		if i%2 == 0 {
			slices.Reverse(scopes)
		}
		request{principal: fmt.Sprintf("%016x", i%7), path: "/agents", scopes: scopes, route: list,
			at: time.Unix(int64(i), 0)}.write(&file, policy(t), "ab")
	}
	var log Log
	if err := log.Read(&file, time.Time{}); err != nil {
		t.Fatal(err)
	}
	rules := []authz.Mapping{{Method: "GET", Path: "/agents", Scopes: []string{"app:read"}}}
	r := log.Replay(Rules{Policy: policy(t, rules...), Mappings: rules})
	if len(log.groups) != 1 || len(r.Changes) != 1 {
		t.Fatalf("%d groups, %+v", len(log.groups), r)
	}
	c := r.Changes[0]
	if c.Verdict != Unfiltered || c.Callers != 7 || c.Requests != 10_000 || c.First.Unix() != 0 || c.Last.Unix() != 9_999 {
		t.Errorf("%+v", c)
	}
}

func FuzzReadLog(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range seeds {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	rules := []authz.Mapping{{Method: "GET", Path: "/sessions/s-1", Scopes: []string{"a:b"}},
		{Method: "POST", Path: "/agents/*/runs", Scopes: []string{"c:d"}}}
	p := policy(f, rules...)
	f.Fuzz(func(t *testing.T, data []byte) {
		var log Log
		if err := log.Read(bytes.NewReader(data), time.Time{}); err != nil {
			t.Fatal(err)
		}
		r := log.Replay(Rules{Policy: p, Mappings: rules, Agents: []string{"a"}})
		s := log.Skipped
		if log.Decisions != r.Replayed+s.NoAgent+s.NoRoute+s.NoScopes+s.NoToken {
			t.Errorf("%d decisions, %d replayed, %+v", log.Decisions, r.Replayed, s)
		}
		changed := 0
		for _, c := range r.Changes {
			changed += c.Requests
			if routes[c.Route] == nil || c.Agent != "" && !scope.IsAgentID(c.Agent) || c.Requests < c.Callers {
				t.Errorf("%+v", c)
			}
		}
		if changed > r.Replayed {
			t.Errorf("%d of %d changed", changed, r.Replayed)
		}
	})
}
