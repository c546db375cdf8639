package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/notify"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver verifies each request by the library of Standard Webhooks. It answers with the statuses, and 204 after them.
type receiver struct {
	*httptest.Server
	t        *testing.T
	mu       sync.Mutex
	statuses []int
	got      []string // payloads
	ids      map[string]int
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	t.Helper()
	r := &receiver{t: t, statuses: statuses, ids: map[string]int{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	payload, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Error(err)
	}
	verifier, err := webhooks.NewWebhook(secret)
	if err == nil {
		err = verifier.Verify(payload, req.Header)
	}
	if err != nil {
		r.t.Errorf("%s is not signed: %v", payload, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, string(payload))
	r.ids[req.Header.Get("Webhook-Id")]++
	status := http.StatusNoContent
	if len(r.statuses) > 0 {
		status, r.statuses = r.statuses[0], r.statuses[1:]
	}
	if status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
}

// desk is a database with notices, and a sender.
type desk struct {
	t    *testing.T
	db   *store.DB
	conn *pgx.Conn
	*notify.Sender
}

func newDesk(t *testing.T, url string) desk {
	t.Helper()
	at := storetest.URL(t)
	conn, err := pgx.Connect(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	d := desk{t: t, db: storetest.Open(t, store.Options{URL: at}), conn: conn}
	d.Sender = d.sender(url)
	d.exec(`INSERT INTO keyway.sessions (owner, session_id, agent_id, created_at, updated_at)
		VALUES ('ann', 's', 'a', now(), now())`)
	return d
}

func (d desk) sender(url string) *notify.Sender {
	d.t.Helper()
	c := config.Notify{URL: config.URL(url), Secret: secret, On: []string{"paused"}}
	s, err := notify.New(c, d.db, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d desk) exec(sql string) {
	d.t.Helper()
	if _, err := d.conn.Exec(d.t.Context(), sql); err != nil {
		d.t.Fatal(err)
	}
}

// leave makes n runs with a notice each.
func (d desk) leave(n string) {
	d.t.Helper()
	d.exec(`WITH runs AS (
			INSERT INTO keyway.runs (run_id, owner, session_id, agent_id, agent_name, model_id, model_provider, status, input,
				created_at)
			SELECT gen_random_uuid(), 'ann', 's', 'a', 'A', 'm', 'M', 'PAUSED', 'PROMPT', now()
			FROM generate_series(1, ` + n + `)
			RETURNING run_id)
		INSERT INTO keyway.notices (run_id, status, made_at) SELECT run_id, 'PAUSED', '2026-11-29T12:00:00Z' FROM runs`)
}

func (d desk) waiting() (n int) {
	d.t.Helper()
	if err := d.conn.QueryRow(d.t.Context(), "SELECT count(*) FROM keyway.notices").Scan(&n); err != nil {
		d.t.Fatal(err)
	}
	return n
}

func (d desk) deliver() []notify.Left {
	d.t.Helper()
	left, err := d.Deliver(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return left
}

const due = "UPDATE keyway.notices SET next_at = now() - interval '1 second'"

func TestANoticeIsSignedAndHasNoContent(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	d := newDesk(t, r.URL+"/hook?key=k")
	d.leave("1")
	if left := d.deliver(); len(left) > 0 || d.waiting() > 0 || len(r.got) != 1 {
		t.Fatalf("%v is left, %d wait, %d arrived", left, d.waiting(), len(r.got))
	}
	var payload struct {
		Type, Timestamp string
		Data            map[string]string
	}
	if err := json.Unmarshal([]byte(r.got[0]), &payload); err != nil {
		t.Fatal(err)
	}
	if payload.Type != "run.paused" || payload.Timestamp != "2026-11-29T12:00:00Z" || payload.Data["user_id"] != "ann" ||
		payload.Data["session_id"] != "s" || payload.Data["agent_id"] != "a" || payload.Data["status"] != "PAUSED" ||
		len(payload.Data["run_id"]) != 36 || strings.Contains(r.got[0], "PROMPT") {
		t.Errorf("%s", r.got[0])
	}
}

func TestANoticeIsTriedAgainUntilItIsAccepted(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 500, 302, 429)
	d := newDesk(t, r.URL)
	d.leave("1")
	for _, wait := range []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute} {
		if left := d.deliver(); len(left) != 1 || left[0].Wait != wait {
			t.Fatalf("%v is left, want a wait of %s", left, wait)
		}
		if left := d.deliver(); len(left) > 0 { // It is not due.
			t.Fatalf("%v is tried too early", left)
		}
		d.exec(due)
	}
	if left := d.deliver(); len(left) > 0 || d.waiting() > 0 || len(r.got) != 4 || len(r.ids) != 1 {
		t.Errorf("%v is left, %d requests with the ids %v", left, len(r.got), r.ids)
	}
}

func TestANoticeIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		status int
		before string
	}{
		"a webhook that is gone": {410, "SELECT 1"},
		"the tenth try":          {500, "UPDATE keyway.notices SET tries = 9"},
	} {
		r := newReceiver(t, row.status)
		d := newDesk(t, r.URL)
		d.leave("1")
		d.exec(row.before)
		if left := d.deliver(); len(left) > 0 || d.waiting() > 0 || len(r.got) != 1 {
			t.Errorf("%s: %v is left, %d wait, %d requests", name, left, d.waiting(), len(r.got))
		}
	}
}

func TestSeveralProcessesReportEachNoticeOnce(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	d := newDesk(t, r.URL)
	d.leave("50")
	var all sync.WaitGroup
	for range 4 {
		s := d.sender(r.URL)
		all.Go(func() {
			if left, err := s.Deliver(t.Context()); err != nil || len(left) > 0 {
				t.Errorf("%v %v", left, err)
			}
		})
	}
	all.Wait()
	if len(r.ids) != 50 || len(r.got) != 50 || d.waiting() > 0 {
		t.Errorf("%d notices in %d requests, %d wait", len(r.ids), len(r.got), d.waiting())
	}
}

func TestANoticeOfAProcessThatCrashedIsReported(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	d := newDesk(t, r.URL)
	d.leave("1")
	claimed, err := d.db.ClaimNotices(t.Context(), 5, []time.Duration{time.Minute})
	if err != nil || len(claimed) != 1 {
		t.Fatal(claimed, err)
	}
	if d.deliver(); len(r.got) > 0 {
		t.Error("it is reported by two processes at once")
	}
	d.exec(due)
	if d.deliver(); len(r.got) != 1 || d.waiting() > 0 {
		t.Errorf("%d requests, %d wait", len(r.got), d.waiting())
	}
}

func TestADeletedRunIsNotReported(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	d := newDesk(t, r.URL)
	d.leave("1")
	d.exec("DELETE FROM keyway.sessions")
	if left := d.deliver(); len(left) > 0 || len(r.got) > 0 {
		t.Errorf("%v %v", left, r.got)
	}
}

func TestANoticeIsTriedForThreeDays(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500)
	d := newDesk(t, r.URL)
	var log bytes.Buffer
	c := config.Notify{URL: config.URL(r.URL), Secret: secret, On: []string{"paused"}}
	s, err := notify.New(c, d.db, slog.New(slog.NewTextHandler(&log, nil)), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	d.Sender = s
	d.leave("1")
	for _, wait := range strings.Fields("5s 5m0s 30m0s 2h0m0s 5h0m0s 10h0m0s 14h0m0s 20h0m0s 24h0m0s") {
		if left := d.deliver(); len(left) != 1 || left[0].Wait.String() != wait {
			t.Fatalf("%v is left, want a wait of %s", left, wait)
		}
		d.exec(due)
	}
	if strings.Contains(log.String(), "given up") {
		t.Errorf("it is given up too early: %s", &log)
	}
	if left := d.deliver(); len(left) > 0 || d.waiting() > 0 || len(r.got) != 10 {
		t.Errorf("%v is left after %d tries", left, len(r.got))
	}
	if strings.Count(log.String(), "a notice is given up") != 1 {
		t.Errorf("%s", &log)
	}
}

// The test lasts as long as a try may take: 15 seconds.
func TestATryEndsIfTheWebhookHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(hangs.Close)
	t.Cleanup(func() { close(release) })
	d := newDesk(t, hangs.URL)
	d.leave("1")
	d.exec("UPDATE keyway.notices SET tries = 1") // The next try is 5 minutes after this one began.
	began := time.Now()
	if left := d.deliver(); len(left) != 1 {
		t.Errorf("%v is left", left)
	}
	if took := time.Since(began); took < 14*time.Second || took > 25*time.Second {
		t.Errorf("it took %s", took)
	}
}
