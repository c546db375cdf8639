package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

func TestWhoAmIShowsWhatTheServerReadsInTheToken(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("one GET /whoami", "").want(t, 200, `{"os_id":"test-os","sub":"ann","user_id":"ann","issuer":"","admin":false,`+
		`"scopes":[{"scope":"agents:a:read","from":"scopes"},{"scope":"config:read","from":"scopes"}],`+
		`"user_isolation":true,"local":false}`)
	s.do("admin GET /whoami", "").want(t, 200, `"admin":true`)
	s.do("bound GET /whoami", "").want(t, 200, `"session_id":"bound-session"`)
	s.do("once GET /whoami", "").want(t, 200, `"limits":{"runs_per_day":1}`)
	s.do("leaked GET /whoami", "").want(t, 200, `"issued_at":1000000`)
	s.do("noname GET /whoami", "").want(t, 200, `"sub":"","user_id":""`)
	s.do("mapped GET /whoami", "").want(t, 200, `{"scope":"agents:a:run","from":"groups=staff"}`,
		`"expires_at":4102444800`)
	s.do("renamed GET /whoami", "").want(t, 200, `"scopes":[{"scope":"agents:read","from":"permissions"}]`)
	s.do("scopeless GET /whoami", "").want(t, 200, `"scopes":[]`)
}

// Every valid token opens the two routes, and nothing else does.
func TestTheRoutesAboutTheOwnTokenNeedAValidTokenAndNoScope(t *testing.T) {
	t.Parallel()
	s := newService(t)
	body := `{"requests":[{"method":"GET","path":"/agents"}]}`
	s.do("scopeless POST /can", body).want(t, 200, `"allowed":false`)
	for _, caller := range []string{"nobody", "expired"} {
		s.do(caller+" GET /whoami", "").want(t, 401)
		s.do(caller+" POST /can", body).want(t, 401)
	}
	s.do("chief POST /revocations", `{"jti":"ann-1","note":"lost"}`).want(t, 201)
	s.do("ann-1 GET /whoami", "").want(t, 401, "Token has been revoked")
	s.do("ann-1 POST /can", body).want(t, 401, "Token has been revoked")
}

// POST /can answers what the server decides about each route, for each kind of caller.
func TestCanAnswersAsTheServerDecides(t *testing.T) {
	t.Parallel()
	s := newService(t)
	policy, err := authz.New(route.Table, "agent_os:admin", nil)
	if err != nil {
		t.Fatal(err)
	}
	var asked []map[string]string
	for r := range route.Table.All() {
		path := r.Path(func(string) string { return "a" })
		asked = append(asked, map[string]string{"method": r.Method, "path": path})
	}
	asked = append(asked, map[string]string{"method": "POST", "path": "/agents/%61/runs?x=1"},
		map[string]string{"method": "post", "path": "/agents/a/runs"},
		map[string]string{"method": "PUT", "path": "/agents"}, map[string]string{"method": "GET", "path": "/none"})
	body, err := json.Marshal(map[string]any{"requests": asked})
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[int]int{}
	for _, caller := range []string{"ann", "admin", "one", "mapped", "scopeless"} {
		var got wire.Decisions
		reply := s.do(caller+" POST /can", string(body)).want(t, 200)
		if err := json.Unmarshal(reply.Body.Bytes(), &got); err != nil || len(got.Decisions) != len(asked) {
			t.Fatalf("%s: %d decisions, %v", caller, len(got.Decisions), err)
		}
		asCaller := *callers[caller]
		asCaller.Absent = "" // TestCanHidesWhichClaimsTheServerReads
		for i, d := range got.Decisions {
			want, err := policy.DecideAt(&asCaller, asked[i]["method"], asked[i]["path"])
			if err != nil {
				t.Fatal(err)
			}
			status, name := 200, ""
			if err := want.Err(""); err != nil {
				status = fault.KindOf(err).Status()
			}
			if want.Route != nil {
				name = string(want.Route.Name)
			}
			statuses[status]++
			expected := wire.Decision{
				Method: asked[i]["method"], Path: asked[i]["path"], Status: status, Allowed: want.Allow, Route: name,
				Needs: want.Needs(), Granted: d.Granted, Missing: want.Lacks(),
				Reasons: want.Reasons(func(text string) string { return text }),
			}
			if diff := cmp.Diff(expected, d); diff != "" {
				t.Errorf("%s %s %s (-decided +answered):\n%s", caller, d.Method, d.Path, diff)
			}
			if covered := len(d.Needs) > 0 && d.Allowed; covered != (len(d.Granted) > 0 && d.Allowed) {
				t.Errorf("%s %s %s needs %q, and these count: %v", caller, d.Method, d.Path, d.Needs, d.Granted)
			}
		}
	}
	if statuses[200] == 0 || statuses[403] == 0 || statuses[404] == 0 || statuses[405] == 0 {
		t.Errorf("not all kinds of decisions were compared: %v", statuses)
	}
	s.do("mapped POST /can", `{"requests":[{"method":"GET","path":"/agents/a/runs"}]}`).want(t, 200, `{"decisions":[`+
		`{"method":"GET","path":"/agents/a/runs","status":403,"allowed":false,"route":"list_runs",`+
		`"needs":["agents:a:read","agents:a:run"],`+
		`"granted":[{"scope":"agents:a:run","from":"groups=staff","covers":"agents:a:run"}],"missing":["agents:a:read"],`+
		`"reasons":["the route is GET /agents/{agent_id}/runs","it needs agents:read, agents:run",`+
		`"the token does not grant agents:a:read","its scopes: agents:a:run from groups=staff"]}]}`)
	// An asked request is not executed.
	s.do("ann POST /can", `{"requests":[{"method":"POST","path":"/agents/a/runs"}]}`).want(t, 200, `"allowed":true`)
	if n := s.model.count(); n != 0 {
		t.Errorf("the model was called %d times", n)
	}
}

// The names of configured claims are for the operator: a 403 doesn't show them either.
func TestCanHidesWhichClaimsTheServerReads(t *testing.T) {
	t.Parallel()
	s := newService(t)
	got := s.do("scopeless POST /can", `{"requests":[{"method":"GET","path":"/agents"}]}`).want(t, 200, "it has groups")
	if strings.Contains(got.Body.String(), "secret_claim") {
		t.Errorf("%s", got.Body)
	}
}

func TestCanRefusesWhatItCannotDecide(t *testing.T) {
	t.Parallel()
	s := newService(t)
	many := func(n int) string {
		return `{"requests":[` + strings.TrimSuffix(strings.Repeat(`{"method":"GET","path":"/agents"},`, n), ",") + `]}`
	}
	s.do("ann POST /can", many(200)).want(t, 200)
	s.do("ann POST /can", many(0)).want(t, 200, `{"decisions":[]}`)
	long := strings.Repeat("x", 1025)
	for body, want := range map[string]string{
		many(201):          `"loc":["body","requests"],"msg":"List should have at most 200 items after validation, not 201"`,
		`{}`:               `"loc":["body","requests"],"msg":"Field required"`,
		`{"requests":{}}`:  `"loc":["body","requests"],"msg":"Input should be a valid list"`,
		`{"requests":[7]}`: `"loc":["body","requests",0],"msg":"Input should be a valid dictionary or object`,
		`{"requests":[{"method":"GET","path":"/"},{"method":"GET"}]}`: `"loc":["body","requests",1,"path"],` +
			`"msg":"Field required"`,
		`{"requests":[{"method":null,"path":"/"}]}`: `"loc":["body","requests",0,"method"],` +
			`"msg":"Input should be a valid string"`,
		`{"requests":[{"method":"","path":"/"}]}`: `"msg":"String should have at least 1 character"`,
		`{"requests":[{"method":"GET","path":"agents"}]}`: `"loc":["body","requests",0,"path"],` +
			`"msg":"Value error, it is no path of a request`,
		fmt.Sprintf(`{"requests":[{"method":"GET","path":"/%s"}]}`, long): `"loc":["body","requests",0,"path"],` +
			`"msg":"String should have at most 1024 bytes, not 1026"`,
	} {
		s.do("ann POST /can", body).want(t, 422, want)
	}
}

// An answer about a token with thousands of scopes is not thousands of times as large.
func TestCanNamesABoundedNumberOfScopes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	got := s.do("many POST /can", `{"requests":[{"method":"GET","path":"/agents"}]}`).
		want(t, 200, "the list is filtered to ", " and 980 more")
	if n := strings.Count(got.Body.String(), `"covers"`); n != 20 || got.Body.Len() > 4<<10 {
		t.Errorf("%d scopes in %d bytes", n, got.Body.Len())
	}
}

// The answer of POST /can is the status that the request itself gets, if there is what it asks for.
func TestCanKnowsWhichPathsAndMethodsMatchNoRoute(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, request := range []string{
		"POST /agents/a%2Fruns", "POST /agents/a%2fruns", "GET /agents%2Fa", "GET /agents/a%2F", "GET /agents%2F",
		"DELETE /memories%2Fx", "get /agents", "post /agents/a/runs", "GET /none",
	} {
		method, path, _ := strings.Cut(request, " ")
		body := `{"requests":[{"method":"` + method + `","path":"` + path + `"}]}`
		var got wire.Decisions
		if err := json.Unmarshal(s.do("admin POST /can", body).want(t, 200).Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if status := s.do("admin "+request, "").Code; got.Decisions[0].Status != status || status < 404 || status > 405 {
			t.Errorf("%s: can says %d, the server answers %d", request, got.Decisions[0].Status, status)
		}
	}
}
