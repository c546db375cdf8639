package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/wire"
)

// lock locks the rows of a query on a connection of its own until release is called.
func (b *bench) lock(query string, args ...any) (release func()) {
	b.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close(ctx) })
	tx, err := conn.Begin(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, query+" FOR UPDATE", args...); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(ctx); err != nil {
			b.t.Error(err)
		}
	}
}

// awaitBlocked waits until a statement waits for a lock.
func (b *bench) awaitBlocked() {
	b.t.Helper()
	await(b.t, func() bool {
		return b.scalar(`SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	})
}

// scalar returns the number that a query returns.
func (b *bench) scalar(query string, args ...any) (n float64) {
	b.t.Helper()
	conn, err := pgx.Connect(context.Background(), b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// leaseLeft returns for how many seconds the lease of a run is valid.
func (b *bench) leaseLeft(id string) float64 {
	b.t.Helper()
	return b.scalar("SELECT extract(epoch FROM lease_until - now())::float8 FROM keyway.runs WHERE run_id = $1", id)
}

// withClock gives the bench's runner a clock that the returned value moves ahead.
func (b *bench) withClock(log io.Writer, tools ...tool.Set) (ahead *atomic.Int64) {
	ahead = &atomic.Int64{}
	o := options(b.db, agentOnly, b.model, log, tools...)
	o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	b.runner = run.New(o)
	return ahead
}

// background collects the events of a run in a goroutine. Its result is sent when the run has ended.
func (b *bench) background(seq func(func(run.Event, error) bool)) <-chan []run.Event {
	done := make(chan []run.Event, 1)
	go func() {
		var list []run.Event
		for e, err := range seq {
			if err != nil {
				b.t.Error(err)
			}
			list = append(list, e)
		}
		done <- list
	}()
	return done
}

// The client of the first request reads its last event slowly.
func TestARunIsContinuedWhileItsClientReadsTheLastEvent(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"it completes", "it is cancelled"} {
		t.Run(ending, func(t *testing.T) {
			t.Parallel()
			d := &guardedTool{}
			proceed := make(chan struct{})
			b := newBenchWith(t, agentOnly, nil, calls("", knock), hangs(proceed, "so far"))
			ahead := b.withClock(io.Discard, d.tool(confirm))
			paused, read := make(chan run.Event), make(chan struct{})
			first := b.background(func(yield func(run.Event, error) bool) {
				for e, err := range b.runner.Run(context.Background(), streamed) {
					if e.Result != nil {
						paused <- e
						<-read
					}
					if !yield(e, err) {
						return
					}
				}
			})
			pause := <-paused
			id := pause.Result.RunID
			second := b.background(b.runner.Continue(context.Background(), ann, storeQuery{RunID: id},
				approve(t, pause.Result)))
			await(t, func() bool { return len(b.model.requests()) == 2 })

			b.sql("UPDATE keyway.runs SET lease_until = now() + interval '20 seconds'")
			ahead.Store(int64(21 * time.Second))
			await(t, func() bool { return b.leaseLeft(id) > 40 })

			want, status := "RunCompleted", "COMPLETED"
			if ending == "it completes" {
				close(proceed)
			} else {
				want, status = "RunCancelled", "CANCELLED"
				b.wantCancel(b.runner, ann, id, true)
			}
			list := <-second
			close(read)
			all := append(<-first, list...)
			if last(list).Name() != want || b.row(id).Status != status {
				t.Errorf("%s, %s", names(list), b.row(id).Status)
			}
			if diff := cmp.Diff(sentFrames(all), b.frames(id)); diff != "" {
				t.Errorf("the stored events: %s", diff)
			}
			if err := b.runner.Wait(t.Context()); err != nil || len(d.calls) != 1 {
				t.Errorf("%v, the tool was called %d times", err, len(d.calls))
			}
		})
	}
}

// The cancellation is accepted while the statement that ends or pauses the run waits for the session.
func TestARunEndsAsCancelledIfItsCancellationWasAccepted(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{false, true} {
		for name, answer := range map[string]answer{"pause": calls("so far", knock), "completion": replies("so far"),
			"failure": fails(errors.New("broken"), "so far")} {
			t.Run(fmt.Sprintf("%s, by another process %t", name, elsewhere), func(t *testing.T) {
				t.Parallel()
				d := &guardedTool{}
				var b *bench
				locked := make(chan func(), 1)
				b = newBenchWith(t, agentOnly, tools(d.tool(confirm)),
					func(ctx context.Context, send func(model.Part) bool) error {
						locked <- b.lock("SELECT FROM keyway.sessions")
						return answer(ctx, send)
					})
				done := b.background(b.runner.Run(context.Background(), streamed))
				release := <-locked
				b.awaitBlocked()
				rows, err := b.db.Runs(t.Context(), ann, storeQuery{SessionID: "s"})
				if err != nil || len(rows) != 1 {
					t.Fatal(rows, err)
				}
				id, canceller := rows[0].RunID.String(), b.runner
				if elsewhere {
					canceller = newRunner(open(t, b.url), agentOnly, b.model)
				}
				b.wantCancel(canceller, ann, id, true)
				release()
				list := <-done
				end := last(list)
				if end.Name() != "RunCancelled" || end.Result == nil || end.Result.Status != "CANCELLED" {
					t.Fatalf("%s", names(list))
				}
				if row := b.row(id); row.Status != "CANCELLED" || *row.Content != "so far" {
					t.Errorf("%s %q", row.Status, *row.Content)
				}
				all := b.frames(id)
				if diff := cmp.Diff(sentFrames(list), all); diff != "" {
					t.Errorf("the stored events: %s", diff)
				}
				for _, other := range []string{"RunPaused", "RunCompleted", "RunError"} {
					if strings.Contains(all, "event: "+other) {
						t.Errorf("the stored events have %s", other)
					}
				}
				b.wantNoContinuation(id, end)
				if len(d.calls) > 0 || len(b.model.requests()) != 1 {
					t.Errorf("%d tool calls, %d model calls", len(d.calls), len(b.model.requests()))
				}
			})
		}
	}
}

// wantNoContinuation checks that a cancelled run cannot be continued, with a confirmation of all its calls.
func (b *bench) wantNoContinuation(id string, end run.Event) {
	b.t.Helper()
	answers := run.Answers{}
	if end.Result.Tools != nil {
		for _, call := range executions(b.t, end.Result) {
			answers[call.ToolCallID] = wire.ToolExecution{Confirmed: new(true)}
		}
	}
	for _, err := range b.runner.Continue(b.t.Context(), ann, storeQuery{RunID: id}, run.Continuation{Answers: answers}) {
		if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "run is cancelled") {
			b.t.Errorf("continued: %v", err)
		}
	}
}

func TestAPausedRunThatIsCancelledStoresItsLastEvent(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{false, true} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("streamed %t, by another process %t", stream, elsewhere), func(t *testing.T) {
				t.Parallel()
				d := &guardedTool{}
				b := newBenchWith(t, agentOnly, tools(d.tool(confirm)), calls("so far", knock))
				in := streamed
				in.Streamed = stream
				list := b.collect(b.runner.Run(t.Context(), in))
				paused := last(list)
				id, canceller := paused.Result.RunID, b.runner
				if elsewhere {
					canceller = newRunner(open(t, b.url), agentOnly, b.model)
				}
				b.wantCancel(canceller, bob, id, false)
				b.wantCancel(canceller, ann, id, true)
				b.wantCancel(canceller, ann, id, true) // It may be repeated.
				row := b.row(id)
				if row.Status != "CANCELLED" || *row.Content != *paused.Result.Content || row.CancellationStage == nil ||
					string(row.Requirements) != string(paused.Result.Requirements) ||
					string(row.Messages) != string(paused.Result.Messages) {
					t.Errorf("%+v", row)
				}
				if stream {
					added, ok := strings.CutPrefix(b.frames(id), sentFrames(list))
					if !ok || !strings.HasPrefix(added, "event: RunCancelled\n") || strings.Count(added, "\n\n") != 1 ||
						!strings.Contains(added, "Run "+id+" was cancelled") {
						t.Errorf("after the pause: %s", added)
					}
				} else if got := b.frames(id); got != "" {
					t.Error(got)
				}
				b.wantNoContinuation(id, paused)
				if s, err := b.db.Session(t.Context(), ann, "s", ""); err != nil || s.Usage[0].Total != usage.Total {
					t.Errorf("the session counts %+v, %v", s.Usage, err)
				}
				if err := b.runner.Wait(t.Context()); err != nil || len(d.calls) > 0 || len(b.model.requests()) != 1 {
					t.Errorf("%v, %d tool calls, %d model calls", err, len(d.calls), len(b.model.requests()))
				}
			})
		}
	}
}

func TestADeletedSessionStopsItsRun(t *testing.T) {
	t.Parallel()
	waits, stopped := make(chan struct{}), make(chan struct{})
	b := newBenchWith(t, agentOnly, tools(named("t", func(ctx context.Context, _ json.RawMessage) (string, error) {
		close(waits)
		<-ctx.Done()
		close(stopped)
		return "", context.Cause(ctx)
	})), calls("so far", model.ToolCall{Name: "t"}), replies("never"))
	done := b.background(b.runner.Run(context.Background(), streamed))
	<-waits
	if _, err := b.db.DeleteSessions(t.Context(), ann, []string{"s"}, ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-stopped:
	case <-time.After(5 * time.Second): // The pulse needs half a second, and more on a busy machine.
		t.Error("the tool still waits after five seconds")
	}
	list := <-done
	if r := last(list).Result; last(list).Name() != "RunCancelled" || r == nil || r.Status != "CANCELLED" ||
		*r.Content != "so far" {
		t.Errorf("%s %+v", names(list), last(list))
	}
	if n := b.count("runs") + b.count("run_events") + b.count("sessions"); n != 0 || len(b.model.requests()) != 1 {
		t.Errorf("%d rows, %d model calls", n, len(b.model.requests()))
	}
}

// The row of one run is locked, so its checkpoint has no answer.
func TestACheckpointThatHangsDelaysNoOtherRun(t *testing.T) {
	t.Parallel()
	var b *bench
	locked := make(chan func(), 1)
	slow := named("slow", func(ctx context.Context, _ json.RawMessage) (string, error) {
		locked <- b.lock("SELECT FROM keyway.runs WHERE run_id = $1", tool.CallerFrom(ctx).RunID)
		return "done", nil
	})
	b = newBenchWith(t, agentOnly, nil, hangs(nil, "so far"), calls("", model.ToolCall{Name: "slow"}), replies("done"))
	ahead := b.withClock(io.Discard, slow)
	other := b.background(b.runner.Run(context.Background(), streamed))
	await(t, func() bool { return len(b.model.requests()) == 1 })
	rows, err := b.db.Runs(t.Context(), ann, storeQuery{SessionID: "s"})
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	id := rows[0].RunID.String()
	hanging := b.background(b.runner.Run(context.Background(), run.Input{AgentID: "a", Owner: "ann", SessionID: "t",
		Message: "hi", Streamed: true}))
	release := <-locked
	b.awaitBlocked()

	b.sql("UPDATE keyway.runs SET lease_until = now() + interval '20 seconds' WHERE run_id = $1", id)
	ahead.Store(int64(21 * time.Second))
	await(t, func() bool { return b.leaseLeft(id) > 40 })
	await(t, func() bool { return strings.Contains(b.frames(id), `"content":"so far"`) })
	if n := b.scalar("SELECT count(*) FROM keyway.runs WHERE lease_until < now()"); n != 0 {
		t.Errorf("%v leases have expired", n)
	}
	b.wantCancel(newRunner(open(t, b.url), agentOnly, b.model), ann, id, true)
	if list := <-other; last(list).Name() != "RunCancelled" {
		t.Errorf("the other run: %s", names(list))
	}

	b.awaitBlocked() // The checkpoint is still waiting.
	release()
	list := <-hanging
	if last(list).Name() != "RunCompleted" || len(b.model.requests()) != 3 {
		t.Fatalf("%s, %d model calls", names(list), len(b.model.requests()))
	}
	if diff := cmp.Diff(sentFrames(list), b.frames(last(list).Result.RunID)); diff != "" {
		t.Errorf("the stored events: %s", diff)
	}
}
