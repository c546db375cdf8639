package run_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/wiretap"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Parts of the store's statements, by which the tests recognize them.
const (
	sqlBegin      = "sessions AS s (owner"
	sqlAddEvents  = "FOR KEY SHARE SKIP LOCKED"
	sqlCheckpoint = "SET checkpoint = "
	sqlFinish     = "finished_at = CASE"
	sqlContinue   = ".continuations"
	sqlClaim      = "attempt = attempt + CASE"
)

// tap is a proxy that loses the answers of chosen statements.
type tap struct {
	*wiretap.Tap
	mu   sync.Mutex
	text map[string]string // SQL by the name of the prepared statement
	// lose holds how many answers are still to be lost, by a part of the statement's SQL.
	lose map[string]int
	lost map[string]int
}

// receive gets the client's messages. A statement is bound directly before it is executed.
func (w *tap) receive(m wiretap.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m.Kind {
	case 'P':
		w.text[m.Name] = m.Text
	case 'B':
		for part, n := range w.lose {
			if n > 0 && strings.Contains(w.text[m.Name], part) {
				w.lose[part]--
				w.lost[part]++
				w.LoseAnswer()
			}
		}
	}
}

// loseAnswers loses the next n answers of a statement. With 0, no further answer is lost.
func (w *tap) loseAnswers(sql string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose[sql] = n
}

// lostAnswers returns how many answers of a statement were lost.
func (w *tap) lostAnswers(sql string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost[sql]
}

// newTappedBench makes a bench whose runner uses the database through a proxy, and writes its log to log. The bench's
// own statements do not use the proxy.
func newTappedBench(t testing.TB, log io.Writer, tools []tool.Set, answers ...answer) (*bench, *tap) {
	t.Helper()
	b := newBenchWith(t, agentOnly, nil, answers...)
	w := &tap{text: map[string]string{}, lose: map[string]int{}, lost: map[string]int{}}
	var err error
	if w.Tap, err = wiretap.Open(context.Background(), b.url, w.receive); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	o := options(open(t, w.URL), agentOnly, b.model, log)
	o.Agents[0].Tools = tools
	b.runner = run.New(o)
	return b, w
}

// steps is an answer in parts that waits for next before each part but the first.
func steps(next <-chan struct{}, pieces ...string) answer {
	return func(ctx context.Context, send func(model.Part) bool) error {
		for i, text := range pieces {
			if i > 0 {
				select {
				case <-next:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			send(model.Part{Text: text})
		}
		send(model.Part{End: &model.End{Usage: usage}})
		return nil
	}
}

// The batch is stored, but the process does not know it. More events follow before the process tries again.
func TestABatchOfEventsWhoseAnswerWasLostIsStoredOnce(t *testing.T) {
	t.Parallel()
	var log syncLog
	next := make(chan struct{}, 2)
	b, w := newTappedBench(t, &log, nil, steps(next, "one", "two", "three"))
	w.loseAnswers(sqlAddEvents, 1000)
	var list []run.Event
	for e, err := range b.runner.Run(t.Context(), streamed) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
		part, _ := e.Event.(wire.Content)
		switch part.Content {
		case "one":
			await(t, func() bool { return strings.Contains(b.frames(part.RunID), `"content":"one"`) })
			next <- struct{}{}
		case "two": // The store repeats the statement itself, for some seconds. Then the next pulse does.
			await(t, func() bool { return strings.Contains(log.String(), "could not store events") })
			w.loseAnswers(sqlAddEvents, 0)
			await(t, func() bool { return strings.Contains(b.frames(part.RunID), `"content":"two"`) })
			next <- struct{}{}
		}
	}
	if diff := cmp.Diff(sentFrames(list), b.frames(last(list).Result.RunID)); diff != "" {
		t.Error(diff)
	}
	if n := w.lostAnswers(sqlAddEvents); n < 2 || last(list).Name() != "RunCompleted" {
		t.Errorf("%d answers were lost, %s", n, names(list))
	}
}

// Clients that reconnect ask for the events so far, and leave.
func TestReadersThatLeaveLoseNoEvents(t *testing.T) {
	t.Parallel()
	const parts = 200
	next := make(chan struct{}, parts)
	pieces := make([]string, parts)
	for i := range pieces {
		pieces[i] = fmt.Sprintf("part %d ", i)
	}
	b := newBench(t, steps(next, pieces...))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	var list []run.Event
	for e, err := range b.runner.Run(t.Context(), streamed) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
		part, ok := e.Event.(wire.Content)
		if !ok {
			continue
		}
		if part.Content == pieces[0] {
			for range 2 {
				readers.Go(func() {
					for i := 0; ; i++ {
						ctx, leave := context.WithTimeout(context.Background(), time.Duration(i%4)*time.Millisecond)
						_ = b.runner.StoreEvents(ctx, uuid.MustParse(part.RunID)) // It fails for a reader that leaves.
						leave()
						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
		}
		next <- struct{}{}
	}
	close(stop)
	readers.Wait()
	if err := b.runner.Wait(t.Context()); err != nil || last(list).Name() != "RunCompleted" {
		t.Errorf("%v, %s", err, names(list))
	}
	if diff := cmp.Diff(sentFrames(list), b.frames(last(list).Result.RunID)); diff != "" {
		t.Error(diff)
	}
}

// Each statement of a run is executed three times, because its answer is lost twice.
func TestNoStatementOfARunChangesMoreIfItsAnswerIsLost(t *testing.T) {
	t.Parallel()
	for _, sql := range []string{sqlBegin, sqlCheckpoint, sqlFinish, sqlContinue} {
		t.Run(sql, func(t *testing.T) {
			t.Parallel()
			d := &guardedTool{}
			var counted atomic.Int32
			b, w := newTappedBench(t, io.Discard, tools(d.tool(confirm), countingTool(&counted)),
				requestsCount("1"), calls("", knock), replies("done"))
			w.loseAnswers(sql, 2)
			list := b.collect(b.runner.Run(t.Context(), streamed))
			paused := last(list).Result
			if paused.Status != "PAUSED" {
				t.Fatal(names(list))
			}
			if sql != sqlContinue && w.lostAnswers(sql) != 2 {
				t.Errorf("%d answers were lost before the pause", w.lostAnswers(sql))
			}
			w.loseAnswers(sql, 2)
			rest, over := collectAll(t, b.runner.Continue(t.Context(), ann, storeQuery{RunID: paused.RunID},
				approve(t, paused)))
			if over != nil || last(rest).Name() != "RunCompleted" {
				t.Fatalf("%s, %+v", names(rest), over)
			}
			if sql != sqlBegin && w.lostAnswers(sql) < 2 {
				t.Errorf("%d answers were lost", w.lostAnswers(sql))
			}
			b.wantCountedOnce(paused.RunID, 3, append(list, rest...))
			if counted.Load() != 1 || len(d.calls) != 1 {
				t.Errorf("the tools were called %d and %d times", counted.Load(), len(d.calls))
			}
		})
	}
}

// wantCountedOnce checks that a run is the only one, has completed in its first attempt after n model calls, and has
// stored the events that were sent.
func (b *bench) wantCountedOnce(id string, n int, sent []run.Event) {
	b.t.Helper()
	if row := b.row(id); row.Status != "COMPLETED" || row.Attempt != 1 || b.count("runs") != 1 {
		b.t.Errorf("%d runs, %+v", b.count("runs"), row)
	}
	s, err := b.db.Session(b.t.Context(), ann, "s", "")
	if err != nil || len(s.Usage) != 1 || s.Usage[0].Total != n*usage.Total || len(b.model.requests()) != n {
		b.t.Errorf("%d model calls, the session counts %+v, %v", len(b.model.requests()), s.Usage, err)
	}
	if diff := cmp.Diff(sentFrames(sent), b.frames(id)); diff != "" {
		b.t.Errorf("the stored events: %s", diff)
	}
	if n := b.count("run_steps"); n != 0 {
		b.t.Errorf("%d steps are still stored", n)
	}
}

func TestAClaimWhoseAnswerIsLostIsOneAttempt(t *testing.T) {
	t.Parallel()
	b, w := newTappedBench(t, io.Discard, nil, replies("done"))
	accepted, err := b.runner.Start(t.Context(), streamed)
	if err != nil {
		t.Fatal(err)
	}
	w.loseAnswers(sqlClaim, 2)
	if r := b.claimAndExecute(b.runner, accepted.RunID); r.Status != "COMPLETED" || r.Attempt != 1 || r.Losses != 0 {
		t.Errorf("%+v", r)
	}
	if n := w.lostAnswers(sqlClaim); n != 2 || len(b.model.requests()) != 1 {
		t.Errorf("%d answers were lost, %d model calls", n, len(b.model.requests()))
	}
}

// The caller of the first request is asked to try again.
func TestARunIsPausedAgainAfterAContinuationWhoseAnswersAreLost(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b, w := newTappedBench(t, io.Discard, tools(d.tool(confirm)), calls("", knock), replies("done"))
	paused := last(b.collect(b.runner.Run(t.Context(), streamed))).Result
	w.loseAnswers(sqlContinue, 1000)
	var failed error
	for _, err := range b.runner.Continue(t.Context(), ann, storeQuery{RunID: paused.RunID}, approve(t, paused)) {
		failed = err
	}
	if !store.Transient(failed) || len(d.calls) != 0 {
		t.Fatalf("%v, %d calls", failed, len(d.calls))
	}
	w.loseAnswers(sqlContinue, 0)
	// A client that tries again too early is asked to try once more, and is not refused.
	var end run.Event
	await(t, func() bool {
		for e, err := range b.runner.Continue(t.Context(), ann, storeQuery{RunID: paused.RunID}, approve(t, paused)) {
			if err != nil && !store.Transient(err) {
				t.Fatal(err)
			}
			end, failed = e, err
		}
		return failed == nil
	})
	if end.Result == nil || end.Result.Status != "COMPLETED" || len(d.calls) != 1 {
		t.Errorf("%+v, %d calls", end, len(d.calls))
	}
}

// A connection that hangs may deliver the statement after its caller got an error and the undo has found nothing.
func TestAContinuationThatIsExecutedLateIsUndone(t *testing.T) {
	t.Parallel()
	d := &guardedTool{}
	b, w := newTappedBench(t, io.Discard, tools(d.tool(confirm)), calls("", knock), replies("done"))
	paused := last(b.collect(b.runner.Run(t.Context(), streamed))).Result
	b.sql(`CREATE TABLE keyway.seen (leg uuid);
		CREATE FUNCTION keyway.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO keyway.seen VALUES (NEW.leg); RETURN NULL; END $$;
		CREATE TRIGGER see AFTER UPDATE ON keyway.runs FOR EACH ROW WHEN (NEW.leg <> OLD.leg)
			EXECUTE FUNCTION keyway.see()`)
	w.loseAnswers(sqlContinue, 1000)
	for _, err := range b.runner.Continue(t.Context(), ann, storeQuery{RunID: paused.RunID}, approve(t, paused)) {
		if !store.Transient(err) {
			t.Fatal(err)
		}
	}
	w.loseAnswers(sqlContinue, 0)
	await(t, func() bool { return b.row(paused.RunID).Status == "PAUSED" })
	b.sql(`UPDATE keyway.runs SET status = 'RUNNING', leg = (SELECT leg FROM keyway.seen LIMIT 1),
		lease_until = now() + interval '1 minute'`)
	await(t, func() bool { return b.row(paused.RunID).Status == "PAUSED" })
	if len(d.calls) != 0 {
		t.Errorf("%d calls", len(d.calls))
	}
}

// The database loses the answers for so long that the store's own repetitions end.
func TestAnEndWhoseAnswersAreLostIsStoredOnce(t *testing.T) {
	t.Parallel()
	var log syncLog
	b, w := newTappedBench(t, &log, nil, replies("done"))
	w.loseAnswers(sqlFinish, 1000)
	done := b.background(b.runner.Run(context.Background(), streamed))
	await(t, func() bool { return strings.Contains(log.String(), "could not store a run") })
	w.loseAnswers(sqlFinish, 0)
	list := <-done
	if last(list).Name() != "RunCompleted" || last(list).Result == nil {
		t.Fatalf("%s, %+v", names(list), last(list))
	}
	b.wantCountedOnce(last(list).Result.RunID, 1, list)
	if err := b.runner.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// countingModel counts the calls of a model that gives every run the same answers.
type countingModel struct {
	perRun
	called atomic.Int32
}

func (m *countingModel) Stream(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	m.called.Add(1)
	return m.perRun.Stream(ctx, r)
}

// The tools of the runs terminate all connections, so the checkpoint of each step finds a broken one.
func TestNothingIsRepeatedIfConnectionsAreTerminatedBetweenSteps(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var called atomic.Int32
	var mu sync.Mutex // The tools must not terminate each other's connections.
	terminate := named("t", func(context.Context, json.RawMessage) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		b.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`)
		return fmt.Sprint(called.Add(1)), nil
	})
	const runs, rounds = 8, 3
	call := calls("", model.ToolCall{Name: "t"})
	m := &countingModel{perRun: perRun{[]answer{call, call, call, replies("done")}}}
	b.runner = newRunner(open(t, b.url), agentOnly, m, terminate)
	var all []<-chan []run.Event
	for i := range runs {
		in := streamed
		in.SessionID = fmt.Sprint("s", i)
		all = append(all, b.background(b.runner.Run(context.Background(), in)))
	}
	ended := make([][]run.Event, runs)
	for i, done := range all {
		ended[i] = <-done
	}
	if called.Load() != runs*rounds || m.called.Load() != runs*(rounds+1) {
		t.Errorf("%d tool calls, %d model calls", called.Load(), m.called.Load())
	}
	for _, list := range ended {
		end := last(list)
		if end.Result == nil || end.Result.Status != "COMPLETED" {
			t.Errorf("%s %+v", names(list), end.HandedOver)
			continue
		}
		if row := b.row(end.Result.RunID); row.Status != "COMPLETED" || row.Attempt != 1 || row.Losses != 0 {
			t.Errorf("%+v", row)
		}
		if diff := cmp.Diff(sentFrames(list), b.frames(end.Result.RunID)); diff != "" {
			t.Errorf("the stored events: %s", diff)
		}
	}
}

// Each checkpoint stores what its step added, so the bytes grow with the number of steps and not with its square. A
// result is a part of a message and of a call. Both are stored with their step and again with the end: four times.
func TestTheBytesOfARunGrowWithItsSteps(t *testing.T) {
	t.Parallel()
	const size = 50 << 10
	bytesOf := func(n int) int64 {
		answers := make([]answer, n, n+1)
		for i := range answers {
			answers[i] = calls("", model.ToolCall{Name: "t"})
		}
		b, w := newTappedBench(t, io.Discard, tools(named("t", func(context.Context, json.RawMessage) (string, error) {
			return strings.Repeat("x", size), nil
		})), append(answers, replies("done"))...)
		if r := last(b.run("hi")).Result; r.Status != "COMPLETED" {
			t.Errorf("%+v", r)
		}
		return w.Sent.Load()
	}
	ten, forty := bytesOf(10), bytesOf(40)
	t.Logf("10 steps sent %d bytes, 40 steps %d", ten, forty)
	if forty > 4*40*size+40*size/2 {
		t.Errorf("40 steps sent %.1f times the bytes of their results", float64(forty)/(40*size))
	}
	if forty > 5*ten {
		t.Errorf("40 steps sent %.1f times the bytes of 10 steps", float64(forty)/float64(ten))
	}
}
