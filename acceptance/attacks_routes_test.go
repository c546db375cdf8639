package acceptance

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/scope"
)

// public are the routes without a token. They are listed here a second time, because a
// route that becomes public by mistake would be a security hole.
var public = []route.Name{
	route.Index, route.Health, route.HealthHead, route.Ready, route.ReadyHead, route.Info, route.OpenAPI, route.Docs,
	route.DevSignIn,
	route.Console, route.ConsoleFile, route.MCPResource, route.MCPResourceRoot,
}

// anyToken are the routes that every valid token opens. They are listed a second time for the same reason.
var anyToken = []route.Name{route.WhoAmI, route.Can}

// requestsOf returns requests for ann's data and for the OS: at least one for every route
// that isn't public.
func requestsOf() (list []attempt) {
	list = slices.Clone(attempts)
	for rt := range route.Table.All() {
		if slices.Contains(ownerless, rt.Name) && !slices.Contains(public, rt.Name) {
			list = append(list, attempt{route: rt.Name, request: rt.Method + " " +
				rt.Path(func(string) string { return "assistant" })})
		}
	}
	return list
}

// allBut returns every scope that any route needs, global and for the agent, except the
// missing one.
func allBut(missing scope.Need) (scopes []string) {
	for rt := range route.Table.All() {
		for _, n := range rt.Needs {
			if n != missing {
				scopes = append(scopes, n.String(), n.On("agents", "assistant").String())
			}
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}

func TestEveryRouteRejectsUnauthorizedCallers(t *testing.T) {
	t.Parallel()
	h := startIsolated(t)
	issuer := hmacForge("HS256", config.PublishedSecret)
	for name, scopes := range map[string][]string{
		"nothing": {}, "another agent": {"agents:other:read", "agents:other:run"},
		"blanks": {"x agent_os:admin", "agent_os:admin "},
		"look-alikes": {"*", "*:*", "*:*:*", "agents:*", "agents:*:*", "*:read", "agent_os:*", "agent_os:Admin", "admin",
			"agents::run", "agents::read", "sessions::read", "a:b:c:d"},
	} {
		h.Tokens[name] = issuer.token(scoped(scopes...))
	}
	h.Tokens["garbage"], h.Tokens["stranger"] = "x.y.z", attacker("HS256").token(payload())
	before, asked := tables(t, h.db), len(h.Model.Requests())
	named := map[route.Name]*route.Route{}
	for rt := range route.Table.All() {
		named[rt.Name] = rt
		if rt.Public != slices.Contains(public, rt.Name) {
			t.Errorf("%s: public is %t", rt, rt.Public)
		}
		if rt.AnyToken != slices.Contains(anyToken, rt.Name) {
			t.Errorf("%s: open to every valid token is %t", rt, rt.AnyToken)
		}
	}
	tried := map[route.Name]bool{}
	for _, a := range requestsOf() {
		tried[a.route] = true
		for _, who := range []string{"-", "garbage", "stranger"} {
			h.checkRejected(who, a, 401)
		}
		if slices.Contains(anyToken, a.route) {
			continue
		}
		status := 403
		if named[a.route].Addressed { // the tokens are not for the door
			status = 401
		}
		for _, who := range []string{"nothing", "look-alikes", "blanks"} {
			h.checkRejected(who, a, status)
		}
		if a.route == route.ListAgents || a.route == route.Models { // filtered: the other agent isn't declared
			h.try("another agent", a, h.anns).Want(t, "a list of another agent", 200, "[]")
		} else {
			h.checkRejected("another agent", a, status)
		}
		for _, need := range named[a.route].Needs {
			h.Tokens["the rest"] = issuer.token(scoped(allBut(need)...))
			h.checkRejected("the rest", a, 403)
		}
	}
	if len(tried)+len(public) != len(named) {
		t.Errorf("%d routes were tried and %d are public, of %d", len(tried), len(public), len(named))
	}
	if after := tables(t, h.db); after != before || len(h.Model.Requests()) != asked {
		t.Errorf("the tables changed, or the model was asked:\n%s\n%s", before, after)
	}
}

// checkRejected sends an attempt that must be rejected with this status.
func (h *isolatedOS) checkRejected(who string, a attempt, status int) {
	h.t.Helper()
	got := h.try(who, a, h.anns)
	got.Want(h.t, who+": "+a.request, status, refusal(a.route))
	if strings.Contains(got.Body, private) || got.Header.Get("WWW-Authenticate") == "" {
		h.t.Errorf("%s: %s: %v %s", who, a.request, got.Header, got.Body)
	}
}

// refusal returns the beginning of a refusal in the protocol of the route.
func refusal(name route.Name) string {
	if strings.HasPrefix(string(name), string(route.OpenAI)+".") {
		return `{"error":{"message":"`
	}
	return `{"detail":"`
}

// A path serves no other methods than those of the table, and the answers show no private
// data. Only the two probes, /health and /readyz, serve HEAD.
func TestOtherHTTPMethodsAreRejected(t *testing.T) {
	t.Parallel()
	f := startAttacked(t, hmacForge("HS256", issuerSecret))
	before, asked := tables(t, f.db), len(f.Model.Requests())
	for rt := range route.Table.All() {
		path := rt.Path(func(name string) string {
			return map[string]string{"agent_id": "a", "session_id": "hers", "run_id": f.run, "memory_id": f.memory,
				"response_id": "resp_" + strings.ReplaceAll(f.run, "-", "")}[name]
		})
		for _, method := range []string{"HEAD", "OPTIONS", "TRACE", "CONNECT", "PUT", "PROPFIND",
			strings.ToLower(rt.Method), rt.Method + "X"} {
			if route.Table.Match(method, path).Route != nil {
				if method != "HEAD" || !rt.Public {
					t.Errorf("%s %s is a route", method, path)
				}
				continue
			}
			status := 401
			if rt.Public || method == "OPTIONS" {
				status = 405
			}
			for want, lines := range map[int][]string{status: nil, 405: bearer(f.Tokens["ann"])} {
				got := f.raw(method+" "+path, lines, "")
				if got.Status != want || strings.Contains(got.Body, private) || got.Status == 405 &&
					!strings.Contains(got.Header.Get("Allow"), rt.Method) {
					t.Errorf("%s %s: %d %v %s, want %d", method, path, got.Status, got.Header, got.Body, want)
				}
			}
		}
	}
	if after := tables(t, f.db); after != before || len(f.Model.Requests()) != asked {
		t.Errorf("the tables changed, or the model was asked:\n%s\n%s", before, after)
	}
}

// An admitted run continues after its token has expired. To resume, continue or cancel
// it, a caller needs a valid token.
func TestOnlyTheRunItselfOutlivesItsToken(t *testing.T) {
	t.Parallel()
	f := startAttacked(t, hmacForge("HS256", issuerSecret), "leeway: 0s")
	f.Tokens["expiring"] = f.issuer.token(payload("exp", seconds(10*time.Second)))
	body, kind := process.Form(t, "message", "wait", "session_id", "last", "stream", "true")
	resp := f.Open("expiring", "POST", "/agents/a/runs", body, "Content-Type", kind)
	defer resp.Body.Close()
	stream := bufio.NewReader(resp.Body)
	_, first := must(stream.ReadString('\n')), must(stream.ReadString('\n'))
	id := field(t, process.Reply{Status: resp.StatusCode, Body: first}, "run_id")
	<-f.holding
	status := func() string {
		return field(t, f.Get("ann", "/agents/a/runs/"+id+"?session_id=last"), "status")
	}
	end := time.Now().Add(process.Patience)
	for ; f.Get("expiring", "/config").Status != 401; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the token does not expire")
		}
	}
	for _, action := range []string{"resume", "continue", "cancel"} {
		f.Call("expiring", "POST", "/agents/a/runs/"+id+"/"+action+"?session_id=last", strings.NewReader("session_id=last"),
			"Content-Type", "application/x-www-form-urlencoded").
			Want(t, action+" with an expired token", 401, `{"detail":"Token has expired`)
	}
	if got := status(); got != "RUNNING" {
		t.Errorf("the run is %s", got)
	}
	close(f.release)
	if rest := string(must(io.ReadAll(stream))); !strings.Contains(rest, "event: RunCompleted") {
		t.Errorf("the stream ends with %s", rest)
	}
	if got := status(); got != "COMPLETED" {
		t.Errorf("the run is %s", got)
	}
}
