package run_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/run"
)

// atCommit makes the commit of each statement that begins a run execute some PL/pgSQL first.
func (b *bench) atCommit(body string) {
	b.t.Helper()
	b.sql(`CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ` + body + `; RETURN NULL; END $$`)
	b.sql(`CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON keyway.runs DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION at_commit()`)
}

// holdCommits takes an advisory lock until it is released.
func (b *bench) holdCommits(number int) (release func()) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.url)
	if err == nil {
		_, err = conn.Exec(b.t.Context(), "SELECT pg_advisory_lock($1)", number)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return func() { _ = conn.Close(context.WithoutCancel(b.t.Context())) }
}

// The commit waits for a lock in place of a slow disk.
func TestTheModelIsAskedWhileTheStartOfARunIsCommitted(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("one", "two"))
	b.atCommit("PERFORM pg_advisory_xact_lock(1)")
	release := b.holdCommits(1)
	first := make(chan run.Event, 100)
	go func() {
		defer close(first)
		for e, err := range b.runner.Run(context.WithoutCancel(t.Context()), streamed) {
			if err != nil {
				t.Error(err)
			}
			first <- e
		}
	}()
	await(t, func() bool { return len(b.model.requests()) == 1 })
	select {
	case e := <-first:
		t.Errorf("%s was sent before the run was stored", e.Name())
	case <-time.After(50 * time.Millisecond):
	}
	if n := b.count("runs"); n != 0 {
		t.Errorf("%d runs are stored before the commit", n)
	}
	release()
	var list []run.Event
	for e := range first {
		list = append(list, e)
	}
	want := "RunStarted ModelRequestStarted RunContent RunContent ModelRequestCompleted " +
		"RunContentCompleted RunCompleted"
	if names(list) != want {
		t.Errorf("%s", names(list))
	}
	if r := b.row(last(list).Result.RunID); r.Status != "COMPLETED" || len(b.model.requests()) != 1 {
		t.Errorf("%s after %d model calls", r.Status, len(b.model.requests()))
	}
	if b.model.requests()[0].Whole {
		t.Error("the model was asked for a whole answer")
	}
}

// waiting is a model whose answers begin when their context ends.
type waiting struct {
	scripted
	ended chan error
}

func (m *waiting) Ask(ctx context.Context, r model.Request) iter.Seq2[model.Part, error] {
	<-ctx.Done()
	m.ended <- context.Cause(ctx)
	return m.scripted.Ask(ctx, r)
}

func TestAStartThatCannotBeCommittedCancelsItsModelCall(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("unused"))
	b.atCommit("RAISE EXCEPTION 'no room on the disk'")
	m := &waiting{scripted: scripted{answers: []answer{replies("unused")}}, ended: make(chan error, 1)}
	b.runner = newRunner(b.db, agentOnly, m)
	events, failed := 0, error(nil)
	for e, err := range b.runner.Run(t.Context(), streamed) {
		if failed = err; e.Event != nil {
			events++
		}
	}
	if failed == nil || events != 0 {
		t.Errorf("%d events, %v", events, failed)
	}
	if cause := <-m.ended; !errors.Is(failed, cause) {
		t.Errorf("the model call ended because of %v and not because of %v", cause, failed)
	}
	if n := b.count("runs") + b.count("sessions"); n != 0 {
		t.Errorf("%d rows are stored", n)
	}
}

// The rows of the statement have arrived when its connection is lost, and it is repeated.
func TestAStartThatIsRepeatedAsksItsModelOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("done"))
	b.sql("CREATE SEQUENCE commits") // A transaction that is rolled back has counted all the same.
	b.atCommit("IF nextval('commits') = 1 THEN PERFORM pg_sleep(60); END IF")
	ended := b.background(b.runner.Run(context.WithoutCancel(t.Context()), streamed))
	await(t, func() bool { return len(b.model.requests()) == 1 })
	var list []run.Event
	await(t, func() bool {
		b.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event = 'PgSleep'`)
		select {
		case list = <-ended:
		default:
		}
		return list != nil
	})
	if last(list).Result == nil {
		t.Fatal(names(list))
	}
	b.wantCountedOnce(last(list).Result.RunID, 1, list)
}

func TestARunThatALimitRefusesAsksNoModel(t *testing.T) {
	t.Parallel()
	b := newBenchFor(t, config.Agent{Limits: config.Limits(limit.Limits{RunsPerDay: 1})}, replies("done"))
	b.run("hi")
	for _, err := range b.runner.Run(t.Context(), streamed) {
		if err == nil {
			t.Error("a second run began")
		}
	}
	if n := len(b.model.requests()); n != 1 {
		t.Errorf("the model was asked %d times", n)
	}
}

// panicking is a model that panics when a request is sent.
type panicking struct{ scripted }

func (m *panicking) Ask(context.Context, model.Request) iter.Seq2[model.Part, error] {
	panic("no memory")
}

func TestAPanicOfAFirstCallEndsTheRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, replies("unused"))
	b.runner = newRunner(b.db, agentOnly, &panicking{})
	var list []run.Event
	func() {
		defer func() {
			if p := recover(); p != "no memory" {
				t.Errorf("recovered %v", p)
			}
		}()
		for e := range b.runner.Run(t.Context(), streamed) {
			list = append(list, e)
		}
	}()
	if len(list) == 0 {
		t.Fatal("no event")
	}
	if r := b.row(members(t, list[0])["run_id"].(string)); r.Status != "ERROR" {
		t.Error(r.Status)
	}
}
