package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
)

// pathOf returns a path of the route.
func pathOf(rt *route.Route) string {
	return rt.Path(func(name string) string {
		if name == "agent_id" {
			return "a"
		}
		return missing
	})
}

func TestARevokedTokenIsRefusedOnEachGuardedRoute(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("admin POST /revocations", `{"jti":"leo-1","issuer":"i"}`).want(t, http.StatusCreated)
	guarded := 0
	for rt := range route.Table.All() {
		request := rt.Method + " " + pathOf(rt)
		if rt.Public {
			if code := s.do("leaked "+request, "").Code; code == http.StatusUnauthorized {
				t.Errorf("%s is public, and the answer is %d", request, code)
			}
			continue
		}
		guarded++
		got := s.do("leaked "+request, "").want(t, http.StatusUnauthorized, `"Token has been revoked"`, "hint")
		if header := got.Header().Get("WWW-Authenticate"); !strings.Contains(header, "invalid_token") {
			t.Errorf("%s: %q", request, header)
		}
		if code := s.do("newer "+request, "").Code; code == http.StatusUnauthorized {
			t.Errorf("%s: %d for another token of the subject", request, code)
		}
	}
	if guarded < 30 {
		t.Errorf("%d guarded routes", guarded)
	}
	for _, unknown := range []string{"GET /nothing", "PUT /sessions"} {
		s.do("leaked "+unknown, "").want(t, http.StatusUnauthorized, "Token has been revoked")
	}
	s.do("admin DELETE /revocations", `{"jti":"leo-1"}`).want(t, http.StatusNoContent)
	s.do("leaked GET /sessions", "").want(t, http.StatusOK)
}

// Another process revokes an administrator's token. The copy of this one is from before, and must not let the token
// undo its revocation, or see or change the list.
func TestALeakedAdministratorsTokenCannotUndoItsRevocation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("chief GET /revocations", "").want(t, http.StatusOK)
	chief := store.Revocation{Issuer: "i", TokenID: "chief-1", MadeAt: time.Now()}
	if _, err := s.db.Revoke(t.Context(), chief, store.MaxRevocations); err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{"DELETE", "POST", "GET"} {
		r := s.do("chief "+request+" /revocations", `{"jti":"chief-1"}`)
		if r.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", request, r.Code, r.Body)
		}
	}
	s.do("admin GET /revocations", "").want(t, http.StatusOK, `"jti":"chief-1"`)
	s.do("admin DELETE /revocations", `{"jti":"chief-1"}`).want(t, http.StatusNoContent)
	s.do("chief GET /revocations", "").want(t, http.StatusOK)
}

// Without the list, nothing that needs a token is answered, and what is public still is.
func TestWithoutTheListOfRevocationsGuardedRoutesAreUnavailable(t *testing.T) {
	t.Parallel()
	policy, err := authz.New(route.Table, "agent_os:admin", nil)
	if err != nil {
		t.Fatal(err)
	}
	unknown := fault.Public(fault.Unavailable, "The list of revoked tokens can't be read, try again", nil)
	unknown.RetryAfter = 2 * time.Second
	h := api.New(api.Options{
		Policy: policy, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now,
		Revoked:    func(context.Context, *authz.Principal) error { return unknown },
		RevokedNow: func(context.Context, *authz.Principal) error { return unknown },
	}, api.OS{Policy: policy})
	for rt := range route.Table.All() {
		r := httptest.NewRequestWithContext(t.Context(), rt.Method, pathOf(rt), nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), callers["admin"])))
		if refused := w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "2"; refused == rt.Public {
			t.Errorf("%s: %d %v", rt, w.Code, w.Header())
		}
		w = httptest.NewRecorder()
		if h.ServeHTTP(w, r); !rt.Public && w.Code != http.StatusUnauthorized {
			t.Errorf("%s, without a token: %d", rt, w.Code)
		}
	}
}

func TestTokensOfASubjectAreRevokedUpToATime(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("admin POST /revocations", `{"sub":"leo","before":"1970-01-13T00:00:00Z","note":"stolen"}`).want(t,
		http.StatusCreated, `"issuer":"i","sub":"leo","before":"1970-01-13T00:00:00.000000Z","made_at":"2`, `"note":"stolen"`)
	for caller, status := range map[string]int{
		"leaked": http.StatusUnauthorized, "newer": http.StatusOK, "noiat": http.StatusUnauthorized, "ann": http.StatusOK,
	} {
		s.do(caller+" GET /sessions", "").want(t, status)
	}
	s.do("admin POST /revocations", `{"sub":"leo"}`).want(t, http.StatusCreated) // now
	s.do("newer GET /sessions", "").want(t, http.StatusUnauthorized)
	s.do("admin DELETE /revocations", `{"sub":"leo"}`).want(t, http.StatusNoContent)
	s.do("noiat GET /sessions", "").want(t, http.StatusOK)
}

func TestRevocationsAreListedByPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.do("admin GET /revocations", "").want(t, http.StatusOK, `{"data":[],`, `"total_count":0`)
	for n := range 3 {
		s.do("admin POST /revocations", fmt.Sprintf(`{"jti":"t-%d"}`, n)).want(t, http.StatusCreated)
	}
	s.do("admin GET /revocations?limit=2&page=2", "").want(t, http.StatusOK,
		`{"data":[{"issuer":"i","jti":"t-2","made_at":"`,
		`"total_count":3`)
	s.do("admin GET /revocations?limit=1001", "").want(t, http.StatusUnprocessableEntity, `"limit"`)
}

// A leaked token of an administrator can't fill the list, so that the command keyway revoke can still end it.
func TestRequestsLeaveAReserveOfRevocations(t *testing.T) {
	t.Parallel()
	s := newService(t)
	conn, err := pgx.Connect(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), `INSERT INTO keyway.revocations (issuer, token_id, subject, made_at, note)
		SELECT 'i', 't-' || n, '', now(), '' FROM generate_series(1, $1) AS n`,
		store.MaxRevocations-store.ReservedRevocations); err != nil {
		t.Fatal(err)
	}
	s.do("admin POST /revocations", `{"sub":"leo"}`).want(t, http.StatusConflict,
		"There are 9000 revocations already, which is the limit for requests; the command keyway revoke can make 1000 more")
	s.do("admin POST /revocations", `{"jti":"t-1","note":"again"}`).want(t, http.StatusCreated)
	r := store.Revocation{Issuer: "i", TokenID: "the administrator's", MadeAt: time.Now()}
	if _, err := s.db.Revoke(t.Context(), r, store.MaxRevocations); err != nil {
		t.Error(err)
	}
}

func TestOnlyAdministratorsRevoke(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, method := range []string{"GET", "POST", "DELETE"} {
		s.do("ann "+method+" /revocations", `{"jti":"t"}`).want(t, http.StatusForbidden, `"missing":["agent_os:admin"]`)
	}
}

func TestAWrongRevocationNamesTheMember(t *testing.T) {
	t.Parallel()
	s := newService(t)
	tomorrow := time.Now().Add(25 * time.Hour).UTC().Format(time.RFC3339)
	for name, row := range map[string]struct{ body, member, text string }{
		"neither":              {`{"issuer":"i"}`, "jti", "one of jti and sub is required"},
		"both":                 {`{"jti":"a","sub":"b"}`, "jti", "one of jti and sub is required, and not both"},
		"a foreign issuer":     {`{"sub":"b","issuer":"x"}`, "issuer", "it must be i"},
		"no time":              {`{"sub":"b","before":"yesterday"}`, "before", "2026-11-29T12:00:00Z"},
		"a time of a jti":      {`{"jti":"b","before":"2026-11-29T12:00:00Z"}`, "before", "only the tokens of a subject"},
		"a time in the future": {`{"sub":"b","before":"` + tomorrow + `"}`, "before", "more than a day in the future"},
		"a time before 1970":   {`{"sub":"b","before":"1969-12-31T23:59:59Z"}`, "before", "before 1970"},
		"a long jti":           {`{"jti":"` + strings.Repeat("x", store.MaxTokenID+1) + `"}`, "jti", "at most 512 bytes"},
		"a long sub":           {`{"sub":"` + strings.Repeat("x", store.MaxSubject+1) + `"}`, "sub", "at most 1024 bytes"},
		"a long issuer": {`{"sub":"a","issuer":"` + strings.Repeat("x", store.MaxIssuer+1) + `"}`, "issuer",
			"at most 1024"},
		"a long note": {`{"sub":"a","note":"` + strings.Repeat("x", store.MaxNote+1) + `"}`, "note",
			"at most 1024 bytes"},
		"a character for no db": {`{"sub":"a\u0000"}`, "sub", "NUL"},
		"two of one name":       {`{"sub":"b","sub":"c"}`, "sub", "two members have this name"},
		"two unknown members":   {`{"sub":"b","x":1,"x":2}`, "x", "two members have this name"},
		"an unknown member":     {`{"sub":"b","befor":"2026-11-29T12:00:00Z"}`, "befor", "Extra inputs are not permitted"},
		"a number":              {`{"sub":1}`, "sub", "string"},
	} {
		for _, method := range []string{"POST", "DELETE"} {
			if method == "DELETE" && (row.member == "before" || row.member == "note" || name == "a foreign issuer") {
				continue
			}
			got := s.do("admin "+method+" /revocations", row.body).want(t, http.StatusUnprocessableEntity,
				`"loc":["body","`+row.member+`"]`, row.text)
			if got.Body.Len() > 1000 {
				t.Errorf("%s: %d bytes", name, got.Body.Len())
			}
		}
	}
	s.do("admin DELETE /revocations", `{"jti":"unknown"}`).want(t, http.StatusNotFound, "There is no such revocation")
	s.do("admin GET /revocations", "").want(t, http.StatusOK, `"data":[]`)
}

// A stream that follows a run ends when its token is revoked. The run belongs to another token, and continues.
func TestAStreamThatFollowsARunEndsWhenItsTokenIsRevoked(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := s.elsewhere(0)
	e.emit("RunStarted")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), callers["ann-1"])))
	}))
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/agents/a/runs/"+e.id.String()+"/resume", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body := bufio.NewReader(answer.Body)
	if first, err := body.ReadString('\n'); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, first, err)
	}
	other := e.watch("")
	other.names(t, "subscribed")
	s.do("admin POST /revocations", `{"jti":"ann-1"}`).want(t, http.StatusCreated)
	rest, err := io.ReadAll(body)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(rest)), `"error":"Token has been revoked"}`) {
		t.Errorf("%s %v", rest, err)
	}
	e.end()
	if got := other.names(t, ""); !strings.HasSuffix(got, "RunCompleted") {
		t.Errorf("a follower with another token: %s", got)
	}
}

// A request that is repeated with its key waits for the end of the run, and no longer than its token is valid.
func TestARepeatedRequestWaitsNoLongerThanItsTokenIsValid(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newService(t, waitFor(release))
	const body = "message=hello&session_id=s&stream=false"
	first, second := make(chan reply, 1), make(chan reply, 1)
	go func() { first <- s.do("newer POST /agents/a/runs", body, "Idempotency-Key", "k") }()
	s.running("s")
	go func() { second <- s.do("leaked POST /agents/a/runs", body, "Idempotency-Key", "k") }()
	select {
	case r := <-second:
		t.Fatalf("it did not wait: %d %s", r.Code, r.Body)
	case <-time.After(500 * time.Millisecond):
	}
	s.do("admin POST /revocations", `{"jti":"leo-1"}`).want(t, http.StatusCreated)
	(<-second).want(t, http.StatusUnauthorized, "Token has been revoked")
	close(release)
	(<-first).want(t, http.StatusOK, "COMPLETED")
}
