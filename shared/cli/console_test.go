package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// post sends JSON. headers are pairs of a name and a value.
func post(t *testing.T, url, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return request(t, http.MethodPost, url, body, headers...)
}

func request(t *testing.T, method, url, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := httptest.NewRecorder()
	got.Code = resp.StatusCode
	for name := range resp.Header {
		got.Header().Set(name, resp.Header.Get(name))
	}
	if _, err := io.Copy(got.Body, resp.Body); err != nil {
		t.Fatal(err)
	}
	return got
}

// tokenIn returns the token of an answer.
func tokenIn(t *testing.T, what string, got *httptest.ResponseRecorder) string {
	t.Helper()
	var out struct{ Token string }
	if err := json.Unmarshal(got.Body.Bytes(), &out); err != nil || got.Code != 200 || out.Token == "" {
		t.Fatalf("%s: %d %s", what, got.Code, got.Body)
	}
	return out.Token
}

func TestTheConsoleOfDevIsOpenedByACodeThatCountsOnce(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	out := serveAt(t, func() time.Time { return time.Now().Add(time.Duration(passed.Load())) },
		writeConfig(t, "id: os\nagents: [{id: assistant, model: 'demo:x'}]\n"),
		map[string]string{"DATABASE_URL": storetest.EmptyURL(t)})
	const line = `(?m)console: (http://127\.0\.0\.1:\d+)/console/#code=([A-Z2-7]{26})$`
	first := out.await(t, line)
	base, code := first[1], first[2]
	signIn := func(code string, headers ...string) *httptest.ResponseRecorder {
		t.Helper()
		return post(t, base+"/dev/sign-in", `{"code":"`+code+`"}`, headers...)
	}
	refused := func(what string, status int, got *httptest.ResponseRecorder) {
		t.Helper()
		if got.Code != status || strings.Contains(got.Body.String(), "token\"") ||
			got.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v %s", what, got.Code, got.Header(), got.Body)
		}
	}
	refused("without an origin", 403, signIn(code))
	refused("from a page that CORS allows", 403, signIn(code, "Origin", "http://localhost:3000"))
	refused("from another port", 403, signIn(code, "Origin", "http://127.0.0.1:1"))
	refused("from a frame", 403, signIn(code, "Origin", base, "Sec-Fetch-Site", "cross-site"))
	refused("a preflight", 403, request(t, http.MethodOptions, base+"/dev/token", "", "Origin", "http://localhost:3000",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization"))
	refused("another code", 401, signIn(strings.Repeat("A", 26), "Origin", base))
	admin := tokenIn(t, "the code", signIn(code, "Origin", base, "Sec-Fetch-Site", "same-origin"))
	if got := get(t, base+"/whoami", admin); !strings.Contains(got.Body.String(), `"admin":true`) {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	refused("the code again", 401, signIn(code, "Origin", base))

	// The refusal has printed another code, which is valid for ten minutes.
	second := next(t, out, line, code)
	passed.Add(int64(10 * time.Minute))
	refused("an old code", 401, signIn(second, "Origin", base))
	third := next(t, out, line, second)
	tokenIn(t, "the newest code", signIn(third, "Origin", base))

	mint := func(token, body string, headers ...string) *httptest.ResponseRecorder {
		t.Helper()
		return post(t, base+"/dev/token", body, append([]string{"Authorization", "Bearer " + token}, headers...)...)
	}
	const asked = `{"scopes":["agents:assistant:read","sessions:read"],"sub":"ann","expires_in":3600}`
	anns := tokenIn(t, "a token", mint(admin, asked, "Origin", base))
	if got := get(t, base+"/whoami", anns); !strings.Contains(got.Body.String(), `"sub":"ann"`) ||
		!strings.Contains(got.Body.String(), `{"scope":"agents:assistant:read","from":"scopes"}`) {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	var hour struct {
		Expires int64 `json:"expires_at"`
	}
	whole := get(t, base+"/whoami", tokenIn(t, "a token for an hour", mint(admin, `{"scopes":[]}`, "Origin", base)))
	if err := json.Unmarshal(whole.Body.Bytes(), &hour); err != nil || hour.Expires < time.Now().Unix()+3000 {
		t.Errorf("%v %s", err, whole.Body)
	}
	refused("by a token of another caller", 403, mint(anns, asked, "Origin", base))
	refused("without a token", 401, post(t, base+"/dev/token", asked, "Origin", base))
	refused("without an origin", 403, mint(admin, asked))
	refused("for more than a day", 422, mint(admin, `{"scopes":[],"expires_in":86401}`, "Origin", base))
	refused("for no time", 422, mint(admin, `{"scopes":[],"expires_in":0}`, "Origin", base))
	refused("for a text", 422, mint(admin, `{"scopes":[],"expires_in":"60"}`, "Origin", base))
	if log := out.all.String(); strings.Count(log, code) != 1 || strings.Contains(log, anns) {
		t.Errorf("the log shows a code or a token:\n%s", log)
	}
}

// next waits for a line with another code than the last one.
func next(t *testing.T, out *printed, line, last string) string {
	t.Helper()
	return out.await(t, `(?s)#code=`+last+`.*`+line)[2]
}
