package acceptance

import (
	"net/url"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/route"
)

const multipartKind = "multipart/form-data; boundary=X"

// part is one text field of a multipart body with the boundary X.
func part(name, value string) string {
	return "--X\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
}

func TestInvalidRunInputIsNamedAndStartsNoRun(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	const missing = `{"type":"missing","loc":["body","message"],"msg":"Field required","input":null}`
	for name, row := range map[string]struct {
		kind, body string
		status     int
		says       string
	}{
		"no message":                   {multipartKind, part("stream", "false") + "--X--\r\n", 422, missing},
		"an empty message":             {multipartKind, part("message", "") + "--X--\r\n", 422, missing},
		"no body":                      {"", "", 422, missing},
		"JSON":                         {"application/json", `{"message":"hi"}`, 422, missing},
		"plain text":                   {"text/plain", "message=hi", 422, missing},
		"an invalid content type":      {"///", "message=hi", 422, missing},
		"multipart without a boundary": {"multipart/form-data", "x", 400, "Missing boundary in multipart."},
		"multipart without a body":     {multipartKind, "", 422, missing},
		"multipart without a part":     {multipartKind, "--Y\r\nnope", 400, "Invalid multipart data."},
		"an incomplete part": {multipartKind, part("message", "hi") +
			"--X\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\nfal", 400, "Invalid multipart data."},
		"a file": {multipartKind, part("message", "hi") +
			"--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.exe\"\r\n\r\nMZ\r\n--X--\r\n", 400,
			"Unsupported file type"},
		"a broken escape": {"application/x-www-form-urlencoded", "message=%zz", 400, "error parsing the body"},
		"NUL in the message": {"application/x-www-form-urlencoded", "message=a%00b", 422,
			`"loc":["body","message"]`},
		"invalid UTF-8 in the message": {"application/x-www-form-urlencoded", "message=%ff%fe", 422,
			`"type":"string_unicode","loc":["body","message"]`},
		"NUL in the session id": {"application/x-www-form-urlencoded", "message=hi&session_id=a%00", 422,
			`"loc":["body","session_id"]`},
		"an over-long session id": {"application/x-www-form-urlencoded",
			"message=hi&session_id=" + strings.Repeat("x", 256), 422, `"type":"string_too_long","loc":["body","session_id"]`},
		"stream is not a boolean": {"application/x-www-form-urlencoded", "message=hi&stream=maybe", 422,
			`"type":"bool_parsing","loc":["body","stream"],"msg":"Input should be a valid boolean, unable to interpret ` +
				`input","input":"maybe"`},
		"version is not a number": {"application/x-www-form-urlencoded", "message=hi&version=abc", 422,
			`"type":"int_parsing","loc":["body","version"]`},
		"two errors are both reported": {"application/x-www-form-urlencoded", "stream=maybe", 422,
			missing + `,{"type":"bool_parsing"`},
		"a body over the limit": {"application/x-www-form-urlencoded",
			"message=" + strings.Repeat("x", 11<<20), 413, "10 MB"},
		"a multipart body over it": {multipartKind, part("message", strings.Repeat("x", 11<<20)) +
			"--X--\r\n", 413, "10 MB"},
		"multipart text over it, first": {multipartKind, "--X\r\nContent-Disposition: form-data; name=\"" +
			strings.Repeat("n", 11<<20), 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.Call("ann", "POST", "/agents/assistant/runs", strings.NewReader(row.body), "Content-Type", row.kind)
			if row.status == 4 {
				if got.Status < 400 || got.Status > 499 {
					t.Errorf("%d %s", got.Status, got.Body)
				}
				return
			}
			got.Want(t, "run", row.status, `{"detail":`, row.says)
		})
	}
	r.Call("admin", "POST", "/agents/nope/runs", strings.NewReader("message=hi"), "Content-Type",
		"application/x-www-form-urlencoded").Want(t, "an unknown agent", 404, `{"detail":"Agent not found"}`)
	if n := len(r.Model.Requests()); n > 0 {
		t.Errorf("the model was called %d times", n)
	}
	r.Get("ann", "/sessions").Want(t, "no session was created", 200, `"data":[]`)
}

func TestFormsAreReadAsAgentOSReadsThem(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	for name, row := range map[string]struct{ body, says string }{
		"stream=0 is false":                      {"message=hi&stream=0", `"status":"COMPLETED"`},
		"stream=OFF is false":                    {"message=hi&stream=OFF", `"status":"COMPLETED"`},
		"an empty stream is the default":         {"message=hi&stream=", "event: RunCompleted"},
		"the last of two values counts":          {"message=one&message=two&stream=false", "you said two"},
		"unknown fields are ignored":             {"message=hi&stream=n&whatever=1", `"status":"COMPLETED"`},
		"a number is a version":                  {"message=hi&stream=n&version=3", `"status":"COMPLETED"`},
		"an empty session id makes a session":    {"message=hi&stream=n&session_id=", `"session_id":"`},
		"the user_id of another user is ignored": {"message=hi&stream=n&user_id=mallory", `"user_id":"ann"`},
		"a run_id of the caller is ignored":      {"message=hi&stream=n&run_id=mine", `"run_id":"`},
		"quotes, SQL and wildcards are only text": {"message=" + url.QueryEscape(`'; DROP TABLE keyway.runs; -- % _ \ "`) +
			"&stream=n", `'; DROP TABLE keyway.runs; -- % _ \\ \"`},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.Call("ann", "POST", "/agents/assistant/runs", strings.NewReader(row.body), "Content-Type",
				"application/x-www-form-urlencoded")
			got.Want(t, "run", 200, row.says)
			if strings.Contains(got.Body, `"run_id":"mine"`) {
				t.Errorf("the run has the ID that the caller sent: %s", got.Body)
			}
		})
	}
	long := strings.Repeat("é", 1<<19) // 1 MB, the default of bounds.message
	got := r.Run("ann", "assistant", "message", long, "stream", "false")
	got.Want(t, "a message of 1 MB", 200)
	if !strings.Contains(got.Body, long) {
		t.Error("the answer does not repeat the long message completely")
	}
	r.Run("ann", "assistant", "message", long+"x", "stream", "false").
		Want(t, "a message with one byte more", 422, `"loc":["body","message"]`, "at most 1048576 bytes, not 1048577")
}

func TestOddQueriesAndPathsAreNeverInternalErrors(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	r.Run("ann", "assistant", "message", "hi", "session_id", "s").Want(t, "run", 200)
	long := strings.Repeat("x", 4000)
	for path, want := range map[string]int{
		"/sessions?page=0":                                      422,
		"/sessions?page=-1":                                     422,
		"/sessions?page=99999999999999999999":                   422,
		"/sessions?page=2147483647&limit=1000":                  200,
		"/sessions?limit=1001":                                  422,
		"/sessions?limit=0":                                     422,
		"/sessions?limit=abc":                                   422,
		"/sessions?limit=":                                      422,
		"/sessions?type=zzz":                                    422,
		"/sessions?sort_order=zzz":                              422,
		"/sessions?sort_by=session_id%3bdrop":                   200,
		"/sessions?session_name=%25":                            200,
		"/sessions?session_name=%00":                            422,
		"/sessions?session_name=%ff":                            422,
		"/sessions?user_id=" + long:                             422,
		"/sessions?user_id=%00":                                 422,
		"/sessions?component_id=%00":                            422,
		"/sessions?db_id=nope":                                  404,
		"/sessions?table=x":                                     400,
		"/sessions?db_id=keyway":                                200,
		"/sessions?%zz":                                         200,
		"/sessions?foo=bar;baz":                                 200,
		"/sessions/" + long:                                     404,
		"/sessions/%00":                                         404,
		"/sessions/%ff":                                         404,
		"/sessions/%F0%9F%8E%89":                                404,
		"/sessions/s/runs/nope":                                 404,
		"/sessions/s/runs/%00":                                  404,
		"/sessions/s/runs/00000000-0000-0000-0000-000000000000": 404,
		"/agents/%00":                                           403,
		"/agents/" + long:                                       403,
		"/agents/assistant/runs":                                422,
		"/agents/assistant/runs?session_id=":                    422,
		"/agents/assistant/runs?session_id=%00":                 422,
		"/agents/assistant/runs?session_id=nope":                404,
		"/agents/assistant/runs?session_id=s&status=zzz":        200,
		"/agents/assistant/runs?session_id=s&status=%00":        422,
		"/agents/assistant/runs/nope?session_id=s":              404,
		"/agents/assistant/runs/nope":                           422,
		"/agents/assistant/runs/%00?session_id=s":               404,
	} {
		got := r.Get("ann", path)
		name := path
		if len(name) > 80 {
			name = name[:80]
		}
		// ann may read every agent (agents:*:read), so an unknown agent is 404 for her.
		if strings.HasPrefix(path, "/agents/%00") || strings.HasPrefix(path, "/agents/xxx") {
			want = 404
		}
		got.Want(t, name, want)
		for _, leak := range []string{"SQLSTATE", "pgx", "ERROR:", "goroutine", "keyway.sessions"} {
			if strings.Contains(got.Body, leak) {
				t.Errorf("%s: the answer shows internals: %s", name, got.Body)
			}
		}
	}
}

func TestMissingTokenIsRejectedBeforeAnyOtherCheck(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	for rt := range route.Table.All() {
		path := rt.Path(func(param string) string { return map[bool]string{true: "app.js", false: "x"}[param == "file"] })
		got := r.Call("-", rt.Method, path, nil)
		if rt.Function == route.DevServer && rt.Public { // this server has no --dev
			got.Want(t, rt.String(), 404)
			continue
		}
		if rt.Public {
			got.Want(t, rt.String(), 200)
			continue
		}
		got.Want(t, rt.String()+" without a token", 401, refusal(rt.Name)+"Authorization header missing", `"hint":"`)
		if got.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: the answer has no WWW-Authenticate header", rt)
		}
		if !rt.AnyToken && !rt.Addressed {
			r.Call("nobody", rt.Method, path, nil).Want(t, rt.String()+" with an empty token", 403,
				"Insufficient permissions. Required scope(s): ", `"missing":[`)
		}
		r.Call("-", rt.Method, path, nil, "Authorization", "Bearer x.y.z").
			Want(t, rt.String()+" with garbage", 401, refusal(rt.Name)+"Invalid token")
	}
	r.Call("-", "GET", "/nope", nil).Want(t, "an unknown path", 401)
	r.Get("nobody", "/nope").Want(t, "an unknown path with a token", 404, `{"detail":"Not Found"}`)
	got := r.Call("nobody", "PUT", "/agents", nil)
	got.Want(t, "another method", 405, `{"detail":"Method Not Allowed"}`)
	if got.Header.Get("Allow") != "GET" {
		t.Errorf("Allow: %q", got.Header.Get("Allow"))
	}
	r.Call("-", "HEAD", "/info", nil).Want(t, "HEAD", 405)
	r.Call("-", "OPTIONS", "/agents", nil).Want(t, "a bare OPTIONS", 405, "Method Not Allowed")
}

// Without --dev, the origins of Agno's own pages are not listed either.
func TestNoOriginIsListedByDefault(t *testing.T) {
	t.Parallel()
	r := start(t, "quickstart", echoModel(t))
	for _, origin := range []string{"http://localhost:3000", "https://os.agno.com"} {
		got := r.Call("ann", "GET", "/agents", nil, "Origin", origin)
		got.Want(t, "a request from "+origin, 200)
		if got.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("a page of %s may read the answer", origin)
		}
	}
}

func TestOnlyListedOriginsPassCORS(t *testing.T) {
	t.Parallel()
	r := startWith(t, process.WithTools, clientsConfig, commandModel(t), "PAGE_ORIGIN", "http://localhost:3000")
	preflight := func(origin string) process.Reply {
		return r.Call("-", "OPTIONS", "/agents/assistant/runs", nil, "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")
	}
	got := preflight("http://localhost:3000")
	got.Want(t, "a preflight of a listed origin", 200)
	if got.Header.Get("Access-Control-Allow-Origin") != "http://localhost:3000" ||
		got.Header.Get("Access-Control-Allow-Headers") == "" ||
		got.Header.Get("Access-Control-Allow-Methods") == "" || got.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%v", got.Header)
	}
	if got := preflight("http://evil.example"); got.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("an unlisted origin is allowed: %v", got.Header)
	}
	for _, row := range []struct {
		sub, path string
		status    int
	}{{"ann", "/agents", 200}, {"-", "/agents", 401}, {"ann", "/revocations", 403}} {
		got := r.Call(row.sub, "GET", row.path, nil, "Origin", "http://localhost:3000")
		got.Want(t, row.path, row.status)
		if got.Header.Get("Access-Control-Allow-Origin") != "http://localhost:3000" {
			t.Errorf("%s %s: a page of a listed origin can't read the answer: %v", row.sub, row.path, got.Header)
		}
	}
}
