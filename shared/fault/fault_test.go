package fault

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestAnErrorBecomesStatusAndBody(t *testing.T) {
	t.Parallel()
	secret := errors.New(`pq: relation "secrets" does not exist`)
	for name, row := range map[string]struct {
		err    error
		status int
		body   string
	}{
		"an unclassified error shows nothing":      {secret, 500, `{"detail":"Internal server error"}`},
		"a bare kind shows its own text":           {NotFound, 404, `{"detail":"Not Found"}`},
		"a kind hides its wrapping":                {fmt.Errorf("s %q: %w", "s", NotFound), 404, `{"detail":"Not Found"}`},
		"a detail is shown, its cause is not":      {Public(Conflict, "Taken", secret), 409, `{"detail":"Taken"}`},
		"the outer detail wins over an inner kind": {Public(Forbidden, "No", NotFound), 403, `{"detail":"No"}`},
		"a wrapped detail is found":                {fmt.Errorf("%w", Public(Invalid, "<b>", nil)), 400, `{"detail":"<b>"}`},
		"errors in inputs are listed": {Fields(Missing("body", "message")), 422,
			`{"detail":[{"type":"missing","loc":["body","message"],"msg":"Field required","input":null}]}`},
		"further members keep their order": {
			&Error{Kind: Forbidden, Detail: "No", Extra: []Member{{"z", 1}, {"a", []string{"x"}}}}, 403,
			`{"detail":"No","z":1,"a":["x"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			Write(w, row.err)
			if w.Code != row.status || w.Body.String() != row.body {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, row.status, row.body)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("content type %q", got)
			}
		})
	}
}

// The texts for a caller may repeat what the caller sent, and so may the causes of a caller's error.
func TestAReasonForALogRepeatsNothingOfTheCaller(t *testing.T) {
	t.Parallel()
	const sent = "oleander"
	field := func(loc ...any) Field { return Field{Type: "int_parsing", Loc: loc, Msg: sent, Input: sent} }
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"a kind":         {NotFound, "Not Found"},
		"a wrapped kind": {fmt.Errorf("session %q: %w", sent, NotFound), "Not Found"},
		"a detail":       {Public(Conflict, "Session "+sent+" exists", errors.New(sent)), "Conflict"},
		"fields, by where they are": {Fields(field("body", "message"), field("query", "limit")),
			"Unprocessable request: body.message int_parsing, query.limit int_parsing"},
		"a member of a field": {Fields(field("body", "state", sent, 0)), "Unprocessable request: body.state int_parsing"},
		"an element":          {Fields(field("body", 7)), "Unprocessable request: body int_parsing"},
		"a long name": {Fields(field("body", strings.Repeat(sent, 10))),
			"Unprocessable request: body int_parsing"},
		"more fields than are named": {Fields(field("a"), field("b"), field("c"), field(sent)),
			"Unprocessable request: a int_parsing, b int_parsing, c int_parsing"},
		"the cause of our own error": {Public(Unavailable, "Try again", errors.New("connection refused")),
			"connection refused"},
		"our own error without one": {Public(Unavailable, "Try again", nil), "Service unavailable, try again"},
		"an error without a kind":   {errors.New("disk full"), "disk full"},
	} {
		if got := Reason(row.err); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestHeadersSayWhatToDoNext(t *testing.T) {
	t.Parallel()
	if _, h, _ := Answer(Unauthenticated); h.Get("WWW-Authenticate") != `Bearer realm="agentos"` {
		t.Errorf("401 challenges with %q", h.Get("WWW-Authenticate"))
	}
	_, h, _ := Answer(&Error{Kind: Unavailable, RetryAfter: 1500 * time.Millisecond})
	if h.Get("Retry-After") != "2" {
		t.Errorf("Retry-After is %q", h.Get("Retry-After"))
	}
	_, h, _ = Answer(&Error{Kind: MethodNotAllowed, Header: http.Header{"Allow": {"GET"}}})
	if h.Get("Allow") != "GET" {
		t.Errorf("Allow is %q", h.Get("Allow"))
	}
}

func TestEveryKindHasAStatusAndAText(t *testing.T) {
	t.Parallel()
	for k := Internal; k <= Unavailable; k++ {
		if k.Status() < 400 || k.Error() == "" {
			t.Errorf("kind %d: %d %q", k, k.Status(), k.Error())
		}
		if KindOf(fmt.Errorf("x: %w", k)) != k {
			t.Errorf("kind %d is lost in wrapping", k)
		}
	}
}

func TestTheCauseReachesTheLog(t *testing.T) {
	t.Parallel()
	cause := errors.New("disk full")
	err := Public(Unavailable, "Try again", cause)
	if !errors.Is(err, cause) || !errors.Is(err, Unavailable) || err.Error() != "Try again: disk full" {
		t.Errorf("%v", err)
	}
}

func TestLongTextsOfAnAnswerAreCut(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", MaxText)
	e := Public(Forbidden, "x"+long, nil)
	e.Extra = Members{{"missing", []string{long, "short"}}, {"hint", long}, {"n", 1}}
	e.Header = http.Header{"Www-Authenticate": {long}, "Allow": {"GET"}}
	_, header, body := Answer(e)
	if len(body) > 3*MaxText+200 || !utf8.Valid(body) || strings.Count(string(body), `..."`) != 3 ||
		!strings.Contains(string(body), `"short"],"hint":"`) {
		t.Errorf("%d bytes: %s", len(body), body)
	}
	if header["Www-Authenticate"] != nil || header.Get("Allow") != "GET" || header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", header)
	}
	if short := strings.Repeat("x", MaxText); Short(short) != short {
		t.Error("a text of the longest length was cut")
	}
}
