package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

func TestTheModelStreamsItsWholeAnswerFastAndPaced(t *testing.T) {
	t.Parallel()
	m, err := serveModel(t.Context(), 200)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.close() })
	if !strings.HasPrefix(m.fast.text, "word0 word1 word2 ") || !strings.HasSuffix(m.fast.text, " word199") {
		t.Errorf("the answer is %q", m.fast.text)
	}
	if n := len(m.fast.pieces); n < 2 || n > 6 {
		t.Errorf("a fast answer of 200 tokens comes in %d pieces", n)
	}
	if n := len(m.paced.pieces); n != pacedTokens+4 { // role, tokens, end, usage, [DONE]
		t.Errorf("a paced answer comes in %d pieces", n)
	}
	for _, a := range []*answer{m.fast, m.paced} {
		m.now.Store(a)
		first, err := m.direct(t.Context(), http.DefaultClient)
		if err != nil {
			t.Fatal(err)
		}
		if first < 2*a.gap {
			t.Errorf("with a gap of %s before the role and the first text, that came after %s", a.gap, first)
		}
	}
}

// serve returns a subject that answers every run with this status and body.
func serve(t *testing.T, status int, body string) *subject {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t" || r.FormValue("session_id") == "" ||
			r.URL.Path != "/agents/bench-agent/runs" {
			t.Errorf("asked for %s with the form %v", r.URL, r.Form)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(web.Close)
	return &subject{name: "keyway", url: web.URL, token: "t", client: web.Client()}
}

func TestOnlyACompleteAnswerIsRight(t *testing.T) {
	t.Parallel()
	const (
		begin = "event: RunStarted\ndata: {\"event\":\"RunStarted\"}\n\n"
		text  = "event: RunContent\ndata: {\"content\":\"word0 \"}\n\n"
		end   = "event: RunCompleted\ndata: {\"content\":\"word0 word1\"}\n\n"
	)
	for name, c := range map[string]struct {
		stream bool
		status int
		body   string
		want   string // in the error; "": none
	}{
		"a whole stream":                   {true, 200, begin + text + end, ""},
		"a whole run":                      {false, 200, `{"status":"COMPLETED","content":"word0 word1"}`, ""},
		"a stream that breaks off":         {true, 200, begin + text, `ended with "RunContent"`},
		"a stream without text before":     {true, 200, begin + end, `ended with "RunCompleted"`},
		"a stream whose last event is cut": {true, 200, begin + text + strings.TrimSpace(end), "broke off: unexpected EOF"},
		"a stream that lost a token": {
			true, 200, begin + text + strings.Replace(end, "word1", "", 1), `ended with "word0 "`},
		"a stream that failed": {
			true, 200, begin + text + "event: RunError\ndata: {}\n\n", `ended with "RunError"`},
		"a stream of nothing":     {true, 200, "", `ended with ""`},
		"a refusal of a stream":   {true, 403, "no", "403 Forbidden: no"},
		"a refusal of a run":      {false, 500, "no", "500 Internal Server Error: no"},
		"a run that failed":       {false, 200, `{"status":"ERROR","content":"word0 word1"}`, "ended as ERROR"},
		"a run that lost a token": {false, 200, `{"status":"COMPLETED","content":"word0"}`, `with "word0"`},
		"a run that isn't JSON":   {false, 200, `word0 word1`, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.status, c.body)
			var err error
			if c.stream {
				_, err = s.stream(t.Context(), "word0 word1")
			} else {
				err = s.run(t.Context(), "word0 word1")
			}
			if got := fmt.Sprint(err); (err == nil) != (c.want == "") || err != nil && !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %q", got, c.want)
			}
		})
	}
}

func TestAdminTokenIsSignedExpiresAndGrantsTheAdminScope(t *testing.T) {
	t.Parallel()
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(adminToken("secret", time.Now()), claims,
		func(*jwt.Token) (any, error) { return []byte("secret"), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{"agent_os:admin"}, claims["scopes"]); diff != "" {
		t.Error(diff)
	}
}

func TestTheTableShowsMediansRangesAndRatios(t *testing.T) {
	t.Parallel()
	r := report{Subjects: []string{"keyway", "peer"}, Errors: []int{0, 2}, Rounds: 3, Seconds: 0.5, Tokens: 200}
	for _, v := range []float64{3, 1, 2} {
		r.add(0, "CPU, ms", v)
		r.add(1, "CPU, ms", 10*v)
	}
	r.add(0, "memory, MiB", 23.45)
	r.add(1, "memory, MiB", 1234.5)
	r.add(0, "added, ms", -0.01)
	r.add(1, "added, ms", 1)
	r.add(0, "little, ms", 100)
	r.add(1, "little, ms", 0.04)
	r.add(0, "only one, ms", 0.25)
	r.add(0, "only one, ms", 0.5)
	var out strings.Builder
	if err := r.markdown(&out); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(out.String(), "\n\n")
	want := `| figure | keyway | peer | peer / keyway |
| --- | ---: | ---: | ---: |
| CPU, ms | 2.00 (1.00 to 3.00) | 20.0 (10.0 to 30.0) | 10.0 |
| memory, MiB | 23.4 | 1234 | 52.6 |
| added, ms | -0.010 | 1.00 | – |
| little, ms | 100 | 0.040 | 1/2500 |
| only one, ms | 0.375 (0.250 to 0.500) | – | – |
| wrong answers | 0 | 2 |  |
`
	if diff := cmp.Diff(want, table); diff != "" {
		t.Error(diff)
	}
}
