package acceptance

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/route"
)

// pathSpellings are request targets by which a caller allowed to run only agent a could
// try to run agent b.
var pathSpellings = strings.Fields(`
	/agents/b/runs //agents/b/runs ///agents/b/runs /agents//b/runs /agents/b//runs /agents/b/runs/ /agents/b/runs//
	/agents/b/runs/// //localhost/agents/b/runs
	/agents/a/../b/runs /agents/a/..%2fb/runs /agents/a%2F..%2Fb/runs /agents/a%2f..%2fb%2fruns /agents/a/%2e%2e/b/runs
	/agents/a/%2E%2E/b/runs /agents/a/.%2e/b/runs
	/agents/a/%2e./b/runs /agents/./b/runs /agents/%2e/b/runs /agents/b/./runs /agents/b/runs/. /agents/b/runs/%2e
	/agents/a/runs/../../b/runs /agents/a/.../b/runs
	/agents/a/runs/%2e%2e/%2e%2e/b/runs /agents/a/runs/..%2f..%2fb%2fruns /agents/a%2fruns%2f..%2f..%2fb%2fruns
	/health/../agents/b/runs /./agents/b/runs /../agents/b/runs
	/agents/a%252f..%252fb/runs /agents/%2562/runs /agents/%25%36%32/runs /agents/%62/runs /%61gents/b/runs
	/agents/b/%72uns /agents%2fb%2fruns %2fagents%2fb%2fruns
	/agents/b%00/runs /agents/%00b/runs /agents/a%00b/runs /agents/b%00a/runs /agents/b/runs%00
	/agents/a/runs%00/agents/b/runs
	/agents/B/runs /AGENTS/b/runs /agents/b/RUNS /Agents/b/Runs /agents/b;x/runs /agents/a;/../b/runs /agents;x/b/runs
	/agents/b/runs;x /agents/b/runs;jsessionid=1 /agents/b%3bx/runs
	/agents/*/runs /agents/?/runs /agents/%3f/runs /agents/%2a/runs /agents/**/runs /agents/${b}/runs /agents/$b/runs
	/agents/%24%7bx%7d/runs /agents/{agent_id}/runs /agents/[ab]/runs
	/agents/b#/runs /agents/b/runs#x /agents/a/runs#/agents/b/runs /agents/a%23/../b/runs /agents/a?/../../agents/b/runs
	/agents/a/runs?/../../b/runs /agents/a/runs?agent_id=b
	/agents/a/runs?agent_id=b&id=b&path=/agents/b/runs /agents/b?/runs /agents/b/runs? /agents/b/runs?? /agents/b/runs&x
	/agents/b/runs%3fx
	http://other.example/agents/b/runs http://localhost/agents/b/runs https://a@b:1/agents/b/runs
	http://other.example//agents/b/runs http:/agents/b/runs file:///agents/b/runs
	http://other.example/agents/a/../b/runs urn:agents:b:runs http:///agents/b/runs http://[::1]/agents/b/runs
	/agents/%c0%ae%c0%ae/b/runs /agents/a%c0%af..%c0%afb/runs /agents/%e0%80%af/b/runs /agents/%c1%a2/runs
	/agents/%ef%bc%8fb/runs /agents/%ef%bd%82/runs /agents/b%ff/runs
	\agents\b\runs /agents\b\runs /agents/a\..\b/runs /agents/a%5c..%5cb/runs /agents/b\/runs /agents/b%09/runs
	/agents/b%20/runs /agents/%20b/runs /agents/b%0a/runs /agents/b%0d%0aX:y/runs
	/agents/b%c2%a0/runs /agents/b%e2%80%8b/runs /agents/%d0%ac/runs
	/agents/arn:aws:execute-api:local:000000000000:keyway/local/POST/agents/b/runs
	/agents/arn:aws:execute-api:local:000000000000:keyway%2flocal%2fPOST%2fagents%2fb%2fruns/runs
	arn:aws:execute-api:local:000000000000:keyway/local/POST/agents/b/runs /local/POST/agents/b/runs /POST/agents/b/runs
	/agents/a,b/runs /agents/a|b/runs /agents/a+b/runs /agents/a:b/runs /agents/a@b/runs /agents/b./runs /agents/.b/runs
	/agents/a.b/runs /agents/b..%2f/runs /agents/~b/runs /agents/-b/runs
	/agents/%zz/runs /agents/%/runs /agents/b/runs% /agents/%u0062/runs /agents/b/runs/x /agents/b/runs/x/cancel
	/agents/b/runs/x/continue /agents/b/runs/x/resume
	* agents/b/runs b / /agents/b
`)

// overrideHeaders are headers that make some servers use another path or method.
var overrideHeaders = []string{
	"X-HTTP-Method-Override: POST", "X-HTTP-Method: POST", "X-Method-Override: POST", "X-Original-URL: /agents/b/runs",
	"X-Rewrite-URL: /agents/b/runs", "X-Original-URI: /agents/b/runs",
	"X-Forwarded-Path: /agents/b/runs", "X-Forwarded-Uri: /agents/b/runs", "X-Forwarded-Prefix: /agents/b",
	"X-Forwarded-Host: b", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https",
	"Forwarded: for=127.0.0.1;host=b", "X-Real-IP: 127.0.0.1", "X-Envoy-Original-Path: /agents/b/runs",
	"Destination: /agents/b/runs", "X-Amzn-Request-Context: {\"resourcePath\":\"/agents/b/runs\"}",
	"X-Amz-Invocation-Type: Event", "Upgrade: h2c", "Referer: http://localhost/agents/b/runs",
	"Content-Location: /agents/b/runs", "X-Agent-Id: b", "X-User-Id: ann",
}

// eve is the Authorization header of a caller allowed to read and run agent a only.
func (f *attackedOS) eve() []string {
	return bearer(f.issuer.token(payload("sub", `"eve"`, "scopes", `["agents:a:run","agents:a:read"]`)))
}

// checkOnlyReachedA fails if agent b's model was asked, if agent b has a run, or if any
// row of another user than eve changed.
func (f *attackedOS) checkOnlyReachedA(before string) {
	f.t.Helper()
	for _, r := range f.Model.Requests() {
		if r.Body["model"] != "model-a" {
			f.t.Errorf("the model %v was asked", r.Body["model"])
		}
	}
	var others int
	if err := f.db.QueryRow(f.t.Context(),
		"SELECT count(*) FROM keyway.runs WHERE agent_id <> 'a'").Scan(&others); err != nil || others > 0 {
		f.t.Errorf("there are %d runs of another agent, error %v", others, err)
	}
	for _, table := range []string{"sessions", "session_usage", "runs", "memories"} {
		if _, err := f.db.Exec(f.t.Context(), "DELETE FROM keyway."+table+" WHERE owner = 'eve'"); err != nil {
			f.t.Fatal(err)
		}
	}
	if after := tables(f.t, f.db); after != before {
		f.t.Errorf("the tables changed from\n%s\nto\n%s", before, after)
	}
}

func TestNoPathSpellingReachesAnotherAgent(t *testing.T) {
	t.Parallel()
	f := startAttacked(t, hmacForge("HS256", issuerSecret))
	before, eve := tables(t, f.db), f.eve()
	// the last lists agents, with a query
	open := map[string]bool{"/": true, "/health": true, "/info": true, "/agents/?/runs": true}
	lines := append([]string{contentType("")}, eve...)
	f.raw("POST /agents/a/runs", lines, "message=hi&stream=false").Want(t, "her own agent", 200, private)
	for _, method := range []string{"POST", "GET", "DELETE", "PATCH"} {
		for _, way := range append(pathSpellings, "/agents/"+strings.Repeat("b", 60<<10)+"/runs",
			"/"+strings.Repeat("agents/", 5000)+"b/runs") {
			got := f.raw(method+" "+way, lines, map[bool]string{true: "message=hi&stream=false"}[method == "POST"])
			if got.Status >= 500 || got.Status == 200 && !open[way] && !strings.HasPrefix(way, "/agents/a") {
				t.Errorf("%s %.200s: %d %.300s", method, way, got.Status, got.Body)
			}
		}
	}
	for _, line := range overrideHeaders {
		for request, want := range map[string]int{"POST /agents/a/runs": 200, "POST /agents/b/runs": 403,
			"GET /agents/b": 403, "GET /sessions": 403, "GET /nope": 404} {
			got := f.raw(request, append([]string{line}, lines...),
				map[bool]string{true: "message=hi&stream=false&agent_id=b&_method=POST"}[request[:4] == "POST"])
			if got.Status != want || want != 200 && strings.Contains(got.Body, private) {
				t.Errorf("%s with %s: %d %.300s, want %d", request, line, got.Status, got.Body, want)
			}
		}
	}
	f.checkOnlyReachedA(before)
}

// A scope mapping that protects one agent applies to every spelling of its path.
func TestNoPathSpellingEvadesAScopeMapping(t *testing.T) {
	t.Parallel()
	f := startAttacked(t, hmacForge("HS256", issuerSecret),
		`scope_mappings: {"POST /agents/b/runs": [vault:run], "GET /agents/b": [vault:read], "GET /agents/b/*": `+
			`[vault:read]}`)
	before := tables(t, f.db)
	lines := append([]string{contentType("")}, bearer(f.issuer.token(payload("sub", `"eve"`, "scopes",
		`["agents:run","agents:read"]`)))...)
	f.raw("POST /agents/a/runs", lines, "message=hi&stream=false").Want(t, "an agent without a mapping", 200)
	f.raw("POST /agents/b/runs", lines, "message=hi&stream=false").
		Want(t, "the agent with one", 403, `"missing":["vault:run"]`)
	for _, way := range pathSpellings {
		for method, body := range map[string]string{"POST": "message=hi&stream=false", "GET": ""} {
			got := f.raw(method+" "+way, lines, body)
			// the list has a need of its own
			if got.Status >= 500 || strings.Contains(got.Body, "model-b") && !strings.HasPrefix(got.Body, "[") {
				t.Errorf("%s %s: %d %.300s", method, way, got.Status, got.Body)
			}
		}
	}
	f.checkOnlyReachedA(before)
}

// Request lines that no HTTP client writes are rejected before the request is processed.
func TestMalformedRequestLinesAreRejected(t *testing.T) {
	t.Parallel()
	f := startAttacked(t, hmacForge("HS256", issuerSecret))
	before, lines := tables(t, f.db), append([]string{contentType("")}, f.eve()...)
	for _, request := range []string{
		"POST /agents/a\t/b/runs", "POST /agents/b/runs\t", "POST\t/agents/b/runs", "POST  /agents/b/runs",
		"POST /agents/b/runs x", "POST /agents/b\x00/runs", "POST /agents/\xc0\xae\xc0\xae/b/runs",
		"POST ", "POST", "", "P\x00ST /agents/b/runs", "post /agents/b/runs", "Post /agents/b/runs", "POST\x0b/agents/b/runs",
		"POST /agents/b\r/runs", "POST /agents/ b/runs", "CONNECT b:443", "CONNECT /agents/b/runs",
		"POST /agents/\xef\xbd\x82/runs", "POST /agents/a/runs\x7f/../b/runs",
	} {
		if got := f.raw(request, lines, "message=hi&stream=false"); got.Status < 400 || got.Status > 499 {
			t.Errorf("%q: %d %s", request, got.Status, got.Body)
		}
	}
	f.checkOnlyReachedA(before)
}

// Some servers resolve a path twice and reach another route. Here no spelling lets a
// token for an agent read or delete a session or a memory.
func TestNoPathSpellingReachesOtherResources(t *testing.T) {
	t.Parallel()
	f := startAttacked(t, hmacForge("HS256", issuerSecret))
	before, eve := tables(t, f.db), f.eve()
	for rt := range route.Table.All() {
		if strings.HasPrefix(rt.Pattern, "/agents") || rt.Public || rt.AnyToken || rt.Name == route.Models {
			continue // the list of models has agent a
		}
		path := rt.Path(func(name string) string {
			return map[string]string{"session_id": "hers", "run_id": f.run, "memory_id": f.memory, "agent_id": "b",
				"response_id": "resp_" + strings.ReplaceAll(f.run, "-", "")}[name]
		})
		for _, prefix := range []string{"", "/agents/a/..", "/agents/a/runs/../../..", "/agents/..", "/agents/%2e%2e",
			"/agents/a/runs/x/..%2f..%2f..%2f..", "/agents/a", "/agents/a/runs", "/agents;", "/health/..",
			"//localhost", "http://localhost"} {
			for _, way := range []string{prefix + path, prefix + path + "/", prefix + path + "?user_id=ann",
				prefix + strings.ReplaceAll(path, "/", "%2f")} {
				if got := f.raw(rt.Method+" "+way, eve, ""); got.Status < 400 || got.Status > 499 ||
					strings.Contains(got.Body, private) {
					t.Errorf("%s %s: %d %.300s", rt.Method, way, got.Status, got.Body)
				}
			}
		}
	}
	f.checkOnlyReachedA(before)
}

// An ID in a scope is literal text. It is no pattern, no path and no list.
func TestOddIDInAScopeReachesNoOtherAgent(t *testing.T) {
	t.Parallel()
	f := startAttacked(t, hmacForge("HS256", issuerSecret))
	before := tables(t, f.db)
	for _, text := range []string{
		"agents:?:run", "agents:b*:run", "agents:*b:run", "agents:**:run", "agents:b?:run", "agents:${x}:run",
		"agents:$b:run", "agents:${aws:x}:run", "agents:a/../b:run", "agents:../b:run", "agents:./b:run",
		"agents:B:run", "agents: b:run", "agents:b :run", "agents:b/:run", "agents:/b:run", "agents:b/runs:run",
		"agents:%62:run", "agents:b%00:run", "agents:b\x00:run", "agents:a,b:run", "agents:a agents:b:run",
		"agents:a/*:run", "agents:*/runs:run", "agents:.:run", "agents:..:run", "agents::run", "Agents:b:run", "agents:b:RUN",
		"agents:b:run ", " agents:b:run", "agents:b:*", "agents:*:*", "*:b:run", "agents:b", "agents:run:b",
		"agents:[b]:run", "agents:(b):run", "agents:b|c:run", "agents:.*:run", "agents:\uff42:run", "agents:b\u200b:run",
		"agents:arn%3aaws%3aexecute-api%3alocal%3a0%3akeyway/local/POST/agents/b/runs:run",
		"agents:x\",\"agent_os:admin:run", "agents:x\"]}:run", "agents:" + strings.Repeat("b", 600) + ":run",
		"agents:b\nagents:b:run", "agents:a:run\x00agents:b:run", "a:b:run", "agent:b:run", "system:b:run", "teams:b:run",
	} {
		scopes, err := json.Marshal([]string{"agents:a:run", text, strings.ReplaceAll(text, "run", "read")})
		if err != nil {
			t.Fatal(err)
		}
		lines := append([]string{contentType("")}, bearer(f.issuer.token(payload("sub", `"eve"`,
			"scopes", string(scopes))))...)
		for request, body := range map[string]string{
			"POST /agents/b/runs": "message=hi&stream=false", "GET /agents/b": "", "GET /agents/b/runs?session_id=hers": "",
			"POST /agents/b/runs/x/cancel": "", "GET /sessions": "", "GET /config": "",
		} {
			f.raw(request, lines, body).Want(t, text+": "+request, 403, `"missing":[`)
		}
		if got := f.raw("GET /agents", lines, ""); got.Status != 403 && strings.Contains(got.Body, `"id":"b"`) {
			t.Errorf("%s: lists %d %s", text, got.Status, got.Body)
		}
	}
	f.checkOnlyReachedA(before)
}
