package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
)

// elsewhere is a streamed run that another process executes: the test writes its rows.
type elsewhere struct {
	s    *service
	conn *pgx.Conn
	id   uuid.UUID
	next int // the index of its next event
}

// elsewhere adds a running run of ann to a session "s". content is the size of its messages.
func (s *service) elsewhere(content int) *elsewhere {
	s.t.Helper()
	url := s.url
	conn, err := pgx.Connect(s.t.Context(), url)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	e := &elsewhere{s: s, conn: conn, id: uuid.New()}
	e.exec(`INSERT INTO keyway.sessions (owner, session_id, agent_id, created_at, updated_at)
		VALUES ('ann', 's', 'a', now(), now()) ON CONFLICT DO NOTHING`)
	e.exec(`INSERT INTO keyway.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider, status,
			lease_until, input, streamed, created_at, messages)
		VALUES ($1, 'ann', 's', 'a', 'A', 'm', 'P', 'RUNNING', now() + interval '1 hour', 'm', true, now(),
			to_json(repeat('x', $2)))`, e.id, content)
	return e
}

func (e *elsewhere) exec(sql string, args ...any) {
	e.s.t.Helper()
	if _, err := e.conn.Exec(e.s.t.Context(), sql, args...); err != nil {
		e.s.t.Fatal(err)
	}
}

// emit stores one row of events with the given names.
func (e *elsewhere) emit(names ...string) {
	e.s.t.Helper()
	frames := ""
	for _, name := range names {
		frames += "event: " + name + "\ndata: {}\n\n"
	}
	e.store(len(names), frames)
}

func (e *elsewhere) store(count int, frames string) {
	e.s.t.Helper()
	e.exec(`INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
		SELECT run_id, attempt, $2, $3, $4 FROM keyway.runs WHERE run_id = $1`, e.id, e.next, count, frames)
	e.next += count
}

// end stores the last event together with the end, as the store does.
func (e *elsewhere) end() {
	e.s.t.Helper()
	e.exec(`WITH run AS (UPDATE keyway.runs SET status = 'COMPLETED', lease_until = NULL, finished_at = now()
			WHERE run_id = $1 RETURNING run_id, attempt)
		INSERT INTO keyway.run_events (run_id, attempt, first_index, count, frames)
		SELECT run_id, attempt, $2, 1, E'event: RunCompleted\ndata: {}\n\n' FROM run`, e.id, e.next)
}

// claim starts the next attempt, which keeps the events below kept.
func (e *elsewhere) claim(kept int) {
	e.s.t.Helper()
	e.exec(`WITH run AS (UPDATE keyway.runs SET attempt = attempt + 1 WHERE run_id = $1 RETURNING run_id, attempt),
			moved AS (UPDATE keyway.run_events e SET attempt = run.attempt FROM run
				WHERE e.run_id = run.run_id AND first_index < $2)
		DELETE FROM keyway.run_events e USING run WHERE e.run_id = run.run_id AND first_index >= $2`, e.id, kept)
	var attempt int
	if err := e.conn.QueryRow(e.s.t.Context(), `SELECT attempt FROM keyway.runs WHERE run_id = $1`, e.id).
		Scan(&attempt); err != nil {
		e.s.t.Fatal(err)
	}
	e.next = store.FirstIndex(attempt)
}

// watcher is a client that follows a run.
type watcher struct {
	mu   sync.Mutex
	body bytes.Buffer
	grew chan struct{} // closed at the next write
	done chan struct{} // closed at the end of the stream
}

// watch follows a run as ann.
func (e *elsewhere) watch(form string) *watcher {
	w := &watcher{grew: make(chan struct{}), done: make(chan struct{})}
	path := "/agents/a/runs/" + e.id.String() + "/resume"
	r := httptest.NewRequestWithContext(e.s.t.Context(), "POST", path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r = r.WithContext(authz.WithPrincipal(r.Context(), callers["ann"]))
	go func() {
		defer close(w.done)
		e.s.handler.ServeHTTP(w, r)
	}()
	return w
}

func (w *watcher) Header() http.Header { return http.Header{} }
func (w *watcher) WriteHeader(int)     {}
func (w *watcher) Flush()              {}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.grew)
	w.grew = make(chan struct{})
	return w.body.Write(p)
}

// names waits until the stream has an event of this name, or for its end if name is "",
// and returns the names of all of its events.
func (w *watcher) names(t *testing.T, name string) string {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		w.mu.Lock()
		body, grew := w.body.String(), w.grew
		w.mu.Unlock()
		if name != "" && strings.Contains(body, "event: "+name+"\n") {
			return strings.Join(eventNames(body), " ")
		}
		select {
		case <-w.done:
			if name != "" && !strings.Contains(w.body.String(), "event: "+name+"\n") {
				t.Fatalf("the stream ended without %s: %s", name, w.body.String())
			}
			return strings.Join(eventNames(w.body.String()), " ")
		case <-grew:
		case <-limit:
			t.Fatalf("no event %q in %s", name, body)
		}
	}
}

func TestManyFollowersCostOneReader(t *testing.T) {
	t.Parallel()
	const followers, parts, size = 40, 6, 100 << 10
	tap, err := wiretap.Open(t.Context(), storetest.URL(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	s := newServiceAt(t, tap.URL)
	e := s.elsewhere(4 << 20) // What a follower must not read.
	e.emit("RunStarted")
	var list []*watcher
	for range followers {
		w := e.watch("")
		list = append(list, w)
		w.names(t, "subscribed")
	}
	received, trips, began := tap.Received.Load(), tap.Trips.Load(), time.Now()
	for i := range parts {
		name := fmt.Sprintf("Part%d", i)
		e.store(1, "event: "+name+"\ndata: "+strings.Repeat("x", size)+"\n\n")
		for _, w := range list {
			w.names(t, name)
		}
	}
	e.end()
	for _, w := range list {
		if got := w.names(t, ""); got != "catch_up RunStarted subscribed Part0 Part1 Part2 Part3 Part4 Part5 RunCompleted" {
			t.Errorf("a follower received %s", got)
		}
	}
	received, trips = tap.Received.Load()-received, tap.Trips.Load()-trips
	// One read for each part and the end, one question each 250 ms, and the statements of the test. The pool may open
	// up to three more connections, each in three round trips. Forty readers would need 280.
	most := int64(parts+1)*2 + int64(time.Since(began)/(250*time.Millisecond)) + 10 + 3*3
	if received > parts*size*5/4 || trips > most {
		t.Errorf("%d followers of %d bytes: %d bytes in %d round trips, expected at most %d", followers, parts*size,
			received, trips, most)
	}
}

func TestAFollowerGetsTheEventsOfANewAttempt(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		kept int
		want string
	}{
		"from the beginning": {0, "catch_up RunStarted Old subscribed catch_up RunStarted New RunCompleted"},
		"from a checkpoint":  {1, "catch_up RunStarted Old subscribed catch_up RunStarted New RunCompleted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			e := s.elsewhere(1)
			e.emit("RunStarted")
			e.emit("Old")
			w := e.watch("")
			w.names(t, "subscribed")
			e.claim(row.kept)
			if row.kept == 0 {
				e.emit("RunStarted")
			}
			e.emit("New")
			w.names(t, "New")
			e.end()
			if got := w.names(t, ""); got != row.want {
				t.Errorf("%s\nwant %s", got, row.want)
			}
			// An index of the earlier attempt means nothing in this one.
			if got := e.watch("last_event_index=1").names(t, ""); got != "replay RunStarted New RunCompleted" {
				t.Errorf("a later client received %s", got)
			}
		})
	}
}

func TestTheStreamOfADeletedRunSaysSo(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := s.elsewhere(1)
	e.emit("RunStarted")
	w := e.watch("")
	w.names(t, "subscribed")
	s.do("ann DELETE /sessions/s", "").want(t, 204)
	if got := w.names(t, ""); got != "catch_up RunStarted subscribed error" ||
		!strings.Contains(w.body.String(), `"error":"The run was deleted with its session"`) {
		t.Errorf("%s", w.body.String())
	}
	s.do("ann POST /agents/a/runs/"+e.id.String()+"/resume", "").want(t, 404, "Run not found")
}

func TestAPausedRunThatContinuesIsFollowed(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := s.elsewhere(1)
	e.emit("RunStarted", "RunPaused")
	status := func(to, lease string) {
		e.exec(`UPDATE keyway.runs SET status = $2, lease_until = now() + $3::interval WHERE run_id = $1`, e.id, to, lease)
	}
	e.exec(`UPDATE keyway.runs SET status = 'PAUSED', lease_until = NULL WHERE run_id = $1`, e.id)
	if got := e.watch("").names(t, ""); got != "replay RunStarted RunPaused" {
		t.Errorf("while it is paused: %s", got)
	}
	status("RUNNING", "1 hour")
	w := e.watch("last_event_index=1")
	w.names(t, "subscribed")
	e.emit("RunContinued")
	w.names(t, "RunContinued")
	e.end()
	if got := w.names(t, ""); got != "subscribed RunContinued RunCompleted" {
		t.Errorf("%s", got)
	}
}

// A client that reads slowly must not delay the others, and must receive everything in the end.
func TestASlowFollowerDelaysNobody(t *testing.T) {
	t.Parallel()
	const rows, size = 200, 64 << 10
	s := newService(t)
	e := s.elsewhere(1)
	e.emit("RunStarted")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handler.ServeHTTP(w, r.WithContext(authz.WithPrincipal(r.Context(), callers["ann"])))
	}))
	defer server.Close()
	open := func() io.ReadCloser {
		r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/agents/a/runs/"+e.id.String()+"/resume", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Body
	}
	slow, fast := open(), e.watch("")
	defer slow.Close()
	fast.names(t, "subscribed")
	for range rows {
		e.store(1, "event: Part\ndata: "+strings.Repeat("x", size)+"\n\n")
	}
	e.end()
	want := "catch_up RunStarted subscribed" + strings.Repeat(" Part", rows) + " RunCompleted"
	if got := fast.names(t, ""); got != want {
		t.Errorf("the fast follower: %d events", strings.Count(got, " "))
	}
	late, err := io.ReadAll(slow)
	if got := strings.Join(eventNames(string(late)), " "); err != nil || !strings.HasSuffix(got, want[len("catch_up"):]) {
		t.Errorf("the slow follower: %v, %d events, %d bytes", err, strings.Count(got, " "), len(late))
	}
}

// A missing table is an error that may be gone at the next try, as a database that restarts is.
func TestAFollowerOutlivesADatabaseThatIsNotAvailable(t *testing.T) {
	t.Parallel()
	tap, err := wiretap.Open(t.Context(), storetest.URL(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	s := newServiceAt(t, tap.URL)
	e := s.elsewhere(1)
	e.emit("RunStarted")
	w := e.watch("")
	w.names(t, "subscribed")
	e.exec(`ALTER TABLE keyway.runs RENAME TO hidden`)
	awaitMore(t, tap.Trips.Load, 4) // Some polls that fail.
	s.do("ann POST /agents/a/runs/"+e.id.String()+"/resume", "").want(t, 503)
	e.exec(`ALTER TABLE keyway.hidden RENAME TO runs`)
	e.emit("Later")
	w.names(t, "Later")
	e.end()
	if got := w.names(t, ""); got != "catch_up RunStarted subscribed Later RunCompleted" {
		t.Errorf("%s", got)
	}
}

// awaitMore waits until a counter has grown by n.
func awaitMore(t *testing.T, counter func() int64, n int64) {
	t.Helper()
	from := counter()
	for limit := time.Now().Add(time.Minute); counter() < from+n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nothing happens in the database")
		}
	}
}

func TestARepeatedRequestWaitsWithoutReadingTheRow(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	tap, err := wiretap.Open(t.Context(), storetest.URL(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	goAhead := make(chan struct{})
	s := newServiceAt(t, tap.URL, waitFor(goAhead))
	body := "stream=false&session_id=s&message=" + strings.Repeat("x", size)
	answers := make(chan reply, 2)
	ask := func() { answers <- s.do("ann POST /agents/a/runs", body, "Idempotency-Key", "k") }
	go ask()
	id := s.running("s")
	before := tap.Received.Load()
	go ask()
	awaitMore(t, tap.Trips.Load, 12) // Some polls later.
	if n := tap.Received.Load() - before; n > size/2 {
		t.Errorf("a request that waits has read %d bytes", n)
	}
	close(goAhead)
	for range 2 {
		(<-answers).want(t, 200, `"run_id":"`+id, `"status":"COMPLETED"`)
	}
}
