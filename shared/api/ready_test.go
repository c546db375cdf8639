package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// probed is a server that answers only /readyz.
type probed struct {
	handler http.Handler
	clock   atomic.Int64 // nanoseconds
}

func newProbed(t *testing.T, check func(context.Context) error) *probed {
	t.Helper()
	policy, err := authz.New(route.Table, "agent_os:admin", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &probed{}
	now := func() time.Time { return time.Unix(0, p.clock.Load()) }
	p.handler = api.New(
		api.Options{Policy: policy, Log: slog.New(slog.DiscardHandler), Now: now},
		&api.Readiness{Check: check, Now: now},
	)
	return p
}

// later lets the latest result become old.
func (p *probed) later() { p.clock.Add(int64(time.Second)) }

// probe sends a request without a token.
func (p *probed) probe(t *testing.T, method string) reply {
	t.Helper()
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/readyz", nil))
	return reply{w, method + " /readyz"}
}

// unavailable checks that the answer is a 503 with Retry-After.
func (r reply) unavailable(t *testing.T, texts ...string) {
	t.Helper()
	r.want(t, 503, texts...)
	if r.Header().Get("Retry-After") == "" {
		t.Errorf("%s: no Retry-After: %v", r.request, r.Header())
	}
}

func TestReadyzReportsDatabaseAndSchema(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	p := newProbed(t, storetest.Open(t, store.Options{URL: url}).Check)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	change := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		p.later()
	}
	p.probe(t, "GET").want(t, 200, `{"status":"ok"}`)
	p.probe(t, "HEAD").want(t, 200)
	change("UPDATE keyway.schema_version SET version = 1")
	p.probe(t, "GET").unavailable(t, "run keyway migrate")
	p.probe(t, "HEAD").unavailable(t)
	change("UPDATE keyway.schema_version SET version = 99, oldest = 99")
	p.probe(t, "GET").unavailable(t, "run the newer Keyway")
	change("DELETE FROM keyway.schema_version")
	p.probe(t, "GET").unavailable(t, "can't be used")
	change("DROP SCHEMA keyway CASCADE")
	p.probe(t, "GET").unavailable(t, "schema is missing; run keyway migrate")
}

// HEAD has the headers of GET and no body, also where the ResponseWriter is not net/http's.
func TestHEADHasTheHeadersOfGETAndNoBody(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, path := range []string{"/health", "/readyz"} {
		get, head := s.do("- GET "+path, "").want(t, 200), s.do("- HEAD "+path, "").want(t, 200)
		if head.Body.Len() > 0 || get.Body.Len() == 0 ||
			head.Header().Get("Content-Type") != get.Header().Get("Content-Type") ||
			head.Header().Get("Content-Length") != fmt.Sprint(get.Body.Len()) {
			t.Errorf("%s: %v %q", path, head.Header(), head.Body)
		}
	}
	if head := s.do("ann HEAD /agents", "").want(t, 405); head.Body.Len() > 0 {
		t.Errorf("a 405 for HEAD has a body: %s", head.Body)
	}
}

// A frozen database accepts connections and never answers. Nobody accepts here, so that
// the kernel alone does.
func TestReadyzAnswersWhileTheDatabaseIsFrozen(t *testing.T) {
	t.Parallel()
	frozen, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	url := "postgres://someone:hunter2@" + frozen.Addr().String() + "/db?sslmode=disable"
	p := newProbed(t, storetest.Open(t, store.Options{URL: url}).Check)
	for range 2 {
		began := time.Now()
		p.probe(t, "GET").unavailable(t, "The database is not available, try again")
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("the answer took %s", took)
		}
		p.later()
	}
}

func TestReadyzShowsNoInternals(t *testing.T) {
	t.Parallel()
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := closed.Addr().String()
	_ = closed.Close()
	login := strings.Replace(storetest.URL(t), "postgres://keyway:", "postgres://someone:hunter2", 1)
	opened := func(url string) func(context.Context) error {
		return storetest.Open(t, store.Options{URL: url}).Check
	}
	fails := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	internal := errors.New("someone at 127.0.0.1:5432 with hunter2")
	for name, row := range map[string]struct {
		check func(context.Context) error
		want  string
	}{
		"down":            {opened("postgres://someone:hunter2@" + down + "/db"), "The database is not available"},
		"wrong login":     {opened(login), "rejects this server's user, password or database name"},
		"unknown host":    {opened("postgres://someone:hunter2@nowhere.invalid/db"), "The database is not available"},
		"an unknown kind": {fails(internal), "the log of this server has the reason"},
		"another kind": {
			fails(fault.Public(fault.Internal, internal.Error(), nil)), "the log of this server has the reason",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := newProbed(t, row.check).probe(t, "GET")
			got.unavailable(t, row.want)
			for _, secret := range []string{"someone", "hunter2", "127.0.0.1", "invalid", "SQLSTATE", "dial"} {
				if strings.Contains(got.Body.String(), secret) {
					t.Errorf("the answer shows %s: %s", secret, got.Body)
				}
			}
		})
	}
}

// While the database does not answer, further probes wait for the check that runs. After
// it, they use its result for a second.
func TestAFloodOfProbesCostsOneCheckASecond(t *testing.T) {
	t.Parallel()
	var checks atomic.Int64
	release, began := make(chan struct{}), make(chan struct{}, 10)
	p := newProbed(t, func(context.Context) error {
		checks.Add(1)
		began <- struct{}{}
		<-release
		return nil
	})
	var flood sync.WaitGroup
	for range 200 {
		flood.Go(func() { p.probe(t, "GET").want(t, 200) })
	}
	<-began
	p.later() // the check still runs: no second one begins
	for range 200 {
		flood.Go(func() { p.probe(t, "GET").want(t, 200) })
	}
	close(release)
	flood.Wait()
	if n := checks.Load(); n > 2 { // those that came after the first check found it old
		t.Errorf("400 probes of two seconds cost %d checks", n)
	}
	for range 3 {
		p.later()
		before := checks.Load()
		for range 100 {
			p.probe(t, "HEAD").want(t, 200)
		}
		if n := checks.Load() - before; n != 1 {
			t.Errorf("100 probes of a second cost %d checks", n)
		}
	}
}

// A caller sees a fixed text, and an operator the cause. What the caller sent is in neither.
func TestTheLineOfARequestSaysWhyItFailed(t *testing.T) {
	t.Parallel()
	s := newService(t)
	internal := errors.New("no route to 10.1.2.3")
	for request, c := range map[string]struct {
		handler http.Handler
		want    string
	}{
		"GET /readyz": {newProbed(t, func(context.Context) error {
			return fault.Public(fault.Unavailable, "The database is not available", internal)
		}).handler, "The database is not available: no route to 10.1.2.3"},
		"POST /agents/a/runs":         {s.handler, "Unprocessable request: body.message missing"},
		"GET /sessions?limit=planted": {s.handler, "Unprocessable request: query.limit int_parsing"},
		"GET /sessions?limit=x&page=y&a=b": {
			s.handler, "Unprocessable request: query.limit int_parsing, query.page int_parsing",
		},
	} {
		var log bytes.Buffer
		method, target, _ := strings.Cut(request, " ")
		r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
		r = r.WithContext(authz.WithPrincipal(r.Context(), callers["ann"]))
		logging.Requests(slog.New(slog.NewJSONHandler(&log, nil)), c.handler).ServeHTTP(httptest.NewRecorder(), r)
		if text := log.String(); !strings.Contains(text, `"err":"`+c.want+`"`) || strings.Contains(text, "planted") {
			t.Errorf("%s: %s", request, text)
		}
	}
}
