package functions_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/route"
)

// planted is a word in every text that the callers of the test choose.
const planted = "oleander"

// Every route is called, through the authorizer, with a word in each value that a caller chooses. No function logs the
// word, a token, or the id of a memory.
func TestNoFunctionLogsWhatACallerSent(t *testing.T) {
	t.Parallel()
	d := deploy(t, `{"agents":[{"id":"a","model":"openai:gpt-4o"}],"auth":{"algorithms":["HS256"],`+
		`"keys":["${JWT_VERIFICATION_KEY}"],"user_isolation":true},"database":{"url":"${DATABASE_URL}"},"id":"test-os"}`)
	d.model = modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script { return modeltest.Text(planted) })
	d.migrate()
	s := hmacSigner()
	f := d.front("JWT_VERIFICATION_KEY="+s.public, loghash.Variable+"=a-key-of-the-tests-of-at-least-32-characters")
	door := f.serve()
	var everything []any
	for scope := range strings.FieldsSeq("agents:read agents:run teams:read workflows:read config:read sessions:read " +
		"sessions:write sessions:delete memories:read memories:write memories:delete") {
		everything = append(everything, scope)
	}
	callers := map[string]string{
		"ann":     s.authorization(t, planted+"-ann", everything),
		"admin":   s.authorization(t, planted+"-root", []any{"agent_os:admin"}),
		"nothing": s.authorization(t, planted+"-nobody", []any{"x"}),
		"garbage": "Bearer " + planted + ".y.z",
	}
	call := func(who, method, path, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, door.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if strings.HasPrefix(body, "{") {
			r.Header.Set("Content-Type", "application/json")
		}
		for _, name := range []string{"User-Agent", "Cookie", "Referer", "X-Other", "Last-Event-Id"} {
			r.Header.Set(name, planted)
		}
		r.Header.Set("X-Request-Id", planted+"@x") // a plain one would be logged
		r.Header.Set("Idempotency-Key", planted+body)
		r.Header.Set("Authorization", callers[who])
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	member := func(name, path, body string) string {
		t.Helper()
		status, text := call("ann", "POST", path, body)
		_, rest, found := strings.Cut(text, `"`+name+`":"`)
		id, _, _ := strings.Cut(rest, `"`)
		if status != 200 || !found {
			t.Fatalf("%s: %d %s", path, status, text)
		}
		return id
	}
	run := member("run_id", "/agents/a/runs", "message="+planted+"&stream=false&session_id="+planted)
	memory := member("memory_id", "/memories", `{"memory":"`+planted+`","topics":["`+planted+`"]}`)

	for _, who := range []string{"garbage", "nothing", "admin", "ann"} {
		for rt := range route.Table.All() {
			path := rt.Path(func(name string) string {
				return map[string]string{"agent_id": "a", "session_id": planted, "run_id": run, "memory_id": memory}[name]
			})
			for _, body := range []string{
				"message=" + planted + "&stream=" + planted, `{"` + planted + `":"` + planted + `"`,
				`{"memory":{"x":"` + planted + `"},"user_id":"` + planted + `","session_name":{"` + planted + `":1},"sub":"` +
					planted + `","jti":"` + planted + `"}`,
			} {
				if status, text := call(who, rt.Method, path+"?limit="+planted+"&user_id="+planted+"-ann", body); status >= 500 {
					t.Errorf("%s: %s: %d %s", who, rt, status, text)
				}
			}
			if status, text := call(who, rt.Method, path, ""); status >= 500 {
				t.Errorf("%s: %s: %d %s", who, rt, status, text)
			}
		}
	}

	functions := map[string]*serial{"authorizer": f.authorizer}
	for name, function := range f.functions {
		functions[string(name)] = function
		function.WaitForLog(`"msg":"decision"`)
		function.WaitForLog(`"msg":"request"`)
	}
	for _, name := range []route.Function{route.Runs, route.Sessions, route.Memories} {
		f.functions[name].WaitForLog(`"msg":"audit"`)
	}
	for name, function := range functions {
		log := fmt.Sprint(function.Stderr)
		if name == "authorizer" && !strings.Contains(log, `"allow":false`) {
			t.Errorf("the authorizer logs no refusal: %s", log)
		}
		for text := range strings.Lines(log) {
			for _, secret := range append([]string{planted, memory, "sk-test"}, signatures(callers)...) {
				if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
					t.Errorf("%s logs %s: %s", name, secret, text)
				}
			}
		}
	}
}

// signatures returns the last parts of tokens.
func signatures(tokens map[string]string) (out []string) {
	for _, t := range tokens {
		if s := t[strings.LastIndexByte(t, '.')+1:]; len(s) > 20 {
			out = append(out, s)
		}
	}
	return out
}
