package functions_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/queue/sqs/sqstest"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// The built functions runs and worker, with the template's queue between them.
func TestRunsGoThroughSQS(t *testing.T) {
	t.Parallel()
	endpoint := sqstest.Start(t)
	for name, test := range map[string]func(*testing.T, string){
		"a background run is executed by the worker and read by its owner":              executed,
		"a streamed run of a crashed function is followed while the worker executes it": followed,
		"a run over its function's time continues in the worker":                        handedOver,
		"a worker that is killed loses nothing, and nothing happens twice":              killed,
		"a worker that is killed leaves a message, so that no schedule is needed":       watched,
		"a run that crashes its workers ends with an error":                             deadly,
		"a run that a worker could not claim three times is found by the schedule":      givenUp,
		"a run that SQS never received is found by the schedule":                        neverQueued,
		"a worker that can't reach SQS executes the delivered runs":                     cutOff,
		"a message that is delivered twice executes its run once":                       twice,
		"a message without a run is acknowledged, and changes nothing":                  unknown,
		"a pending run that is cancelled is not executed":                               cancelled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, endpoint)
		})
	}
}

func executed(t *testing.T, endpoint string) {
	s := newStack(t, endpoint, modeltest.Text("done"))
	id := s.accepts()
	s.about("ann", everything, id, "").want(t, "while it is pending", 200, `"status":"PENDING"`)
	s.hold(1, 0)
	s.delivers(s.start("worker"), template[int](t, "WorkerFunction.Properties.Events.Waiting.Properties.BatchSize"))
	s.hold(0, 0)
	s.becomes(id, "COMPLETED", "done", 1, 0)
	s.about("bob", everything, id, "").want(t, "another caller", 404, `{"detail":"Run not found"}`)
	s.about("ann", "sessions:read", id, "").want(t, "without the scope", 403, "agents:a:run")
	s.about("ann", everything, id, "/resume").want(t, "its events", 200, "event: replay",
		"Run COMPLETED with no stored events: a run submitted without streaming")
	s.about("bob", everything, id, "/resume").want(t, "another's resume", 404, `{"detail":"Run not found"}`)
}

// streams starts a streamed run of ann's, and reads the stream until it contains text.
func (s *stack) streams(f function, text string, members ...string) {
	s.t.Helper()
	body, headers := form(append([]string{"message", "hello", "session_id", "s"}, members...)...)
	a := f.Invoke(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers,
		body: body}.event(s.t), 15*time.Minute)
	for chunk, ok := a.Next(); !strings.Contains(string(chunk), text); chunk, ok = a.Next() {
		if !ok {
			s.t.Fatalf("the stream ends without %s", text)
		}
	}
}

// A streamed run executes in the function that streams it, in the background or not. Its message
// only recovers it if that function crashes.
func followed(t *testing.T, endpoint string) {
	release := make(chan struct{})
	s := newStack(t, endpoint, modeltest.Text("lost").Wait(nil), modeltest.Text("one ").Wait(release).Text("two"))
	kill := s.killer()
	first := s.start("runs")
	s.streams(first, `"content":"lost"`, "stream", "true", "background", "true")
	s.hold(0, 0)
	kill(first)
	id := s.only()
	worker := s.start("worker")
	s.sql(leaseOver)
	s.looks(worker)
	s.hold(1, 0)
	d := s.sends(worker, 1)
	s.asked(2)

	a := s.runs.Invoke(request{method: "POST", path: "/agents/a/runs/" + id + "/resume", scopes: everything}.event(t),
		15*time.Minute)
	var stream strings.Builder
	for !strings.Contains(stream.String(), `"content":"one "`) {
		chunk, ok := a.Next()
		if !ok {
			t.Fatalf("the stream ends after %s", stream.String())
		}
		stream.Write(chunk)
	}
	close(release)
	stream.Write(a.Body())
	if again := d.ends(); again != nil {
		t.Errorf("%q is delivered again", again)
	}
	s.becomes(id, "COMPLETED", "one two", 2, 1)
	reply{StatusCode: 200, Body: stream.String()}.want(t, "the client that follows the worker", 200, "event: RunStarted",
		`"content":"two"`, "event: RunCompleted")
	replayed := s.about("ann", everything, id, "/resume")
	replayed.want(t, "a later client", 200, "event: replay", `"content":"one "`, "event: RunCompleted")
	for name, text := range map[string]string{"live": stream.String(), "replayed": replayed.Body} {
		if strings.Contains(text, "lost") || strings.Count(text, "event: RunStarted") != 1 ||
			strings.Count(text, "event: RunCompleted") != 1 {
			t.Errorf("%s: the events of two attempts are mixed: %s", name, text)
		}
	}
	s.hold(0, 0)
}

// leaseOver lets the lease of a running run expire.
const leaseOver = "UPDATE keyway.runs SET lease_until = now() - interval '1 second' WHERE status = 'RUNNING'"

// unclaimedForLong makes a pending run look as if its message were lost.
const unclaimedForLong = "UPDATE keyway.runs SET lease_until = now() - interval '11 minutes' WHERE status = 'PENDING'"

// The second process, a worker, has as little time, and hands the run over to a third.
func handedOver(t *testing.T, endpoint string) {
	s := newStack(t, endpoint, modeltest.ToolCall("no_such_tool", `{}`), modeltest.Text("done"))
	body, headers := form("message", "hello", "session_id", "s")
	stream := s.runs.ask(request{method: "POST", path: "/agents/a/runs", scopes: everything, headers: headers, body: body,
		limit: patience})
	stream.want(t, "the stream", 200, "event: RunStarted", ": the run continues")
	if strings.Contains(stream.Body, "RunError") || strings.Contains(stream.Body, "RunCompleted") {
		t.Errorf("the stream has an end event: %s", stream.Body)
	}
	id := s.only()
	s.hold(1, 0)
	worker := s.start("worker")
	whole := s.limit
	s.limit = patience
	s.delivers(worker, 1)
	s.hold(1, 0)
	s.about("ann", everything, id, "").want(t, "between two workers", 200, `"status":"PENDING"`)
	s.limit = whole
	s.delivers(worker, 1)
	s.becomes(id, "COMPLETED", "done", 3, 0)
	replayed := s.about("ann", everything, id, "/resume")
	for event, want := range map[string]int{"RunStarted": 1, "ModelRequestStarted": 2, "RunCompleted": 1} {
		if n := strings.Count(replayed.Body, "event: "+event+"\n"); n != want {
			t.Errorf("%s occurs %d times, want %d: %s", event, n, want, replayed.Body)
		}
	}
	if n := len(s.model.Requests()); n != 2 {
		t.Errorf("the model was asked %d times", n)
	}
	s.hold(0, 0)
}

func killed(t *testing.T, endpoint string) {
	s := newStack(t, endpoint, modeltest.Text("half").Wait(nil), modeltest.Text("done"))
	id := s.accepts()
	kill := s.killer()
	first, second := s.start("worker"), s.start("worker")
	d := s.sends(first, 1)
	s.asked(1)
	s.about("ann", everything, id, "").want(t, "in the middle", 200, `"status":"RUNNING"`)
	kill(first)
	s.looks(second)
	s.hold(1, 0) // the first worker's message: the lease has not expired
	s.sql(leaseOver)
	s.looks(second)
	s.looks(second) // finds nothing more
	s.hold(2, 0)
	s.delivers(second, 1)
	s.becomes(id, "COMPLETED", "done", 2, 1)
	d.isLate(d.messages[0])
	s.delivers(second, 1) // and it is acknowledged
	s.becomes(id, "COMPLETED", "done", 2, 1)
	s.hold(0, 0)
	if n := len(s.model.Requests()); n != 2 {
		t.Errorf("the model was asked %d times", n)
	}
	if n := s.number("SELECT sum(total_tokens) FROM keyway.session_usage"); n != modeltest.DefaultUsage().Total {
		t.Errorf("the session cost %d", n)
	}
}

// leaseShort makes a lease expire as soon as it is acquired, and so also ends the delay of the run's
// message. Without it the test would wait for a minute and a quarter.
const (
	leaseShort = `
		CREATE FUNCTION short() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN NEW.lease_until := now() - interval '15 seconds'; RETURN NEW; END $$;
		CREATE TRIGGER short BEFORE UPDATE ON keyway.runs FOR EACH ROW WHEN (NEW.status = 'RUNNING') EXECUTE FUNCTION short()`
	leaseLong = "DROP TRIGGER short ON keyway.runs"
)

func watched(t *testing.T, endpoint string) {
	s := newStack(t, endpoint, modeltest.Text("half").Wait(nil), modeltest.Text("done"))
	id := s.accepts()
	s.sql(leaseShort)
	kill := s.killer()
	first, second := s.start("worker"), s.start("worker")
	d := s.sends(first, 1)
	s.until(func() bool { return s.count(s.queue) == 2 })
	kill(first)
	s.sql(leaseLong)
	s.delivers(second, 1)
	s.becomes(id, "COMPLETED", "done", 2, 1)
	d.isLate(d.messages[0])
	s.delivers(second, s.count(s.queue)) // they arrive too late
	s.becomes(id, "COMPLETED", "done", 2, 1)
	s.hold(0, 0)
	if n := len(s.model.Requests()); n != 2 {
		t.Errorf("the model was asked %d times", n)
	}
}

func deadly(t *testing.T, endpoint string) {
	s := newStack(t, endpoint, modeltest.Text("a").Wait(nil), modeltest.Text("b").Wait(nil), modeltest.Text("c").Wait(nil))
	id := s.accepts()
	for n := range 3 {
		kill := s.killer()
		worker := s.start("worker")
		s.sends(worker, 1)
		s.asked(n + 1)
		kill(worker)
		s.sql(leaseOver)
		s.looks(s.start("worker"))
	}
	s.delivers(s.start("worker"), 1)
	s.becomes(id, "ERROR", "The server stopped 3 times while this run was in progress; it is not tried again", 4, 3)
}

// First the database rejects the statements of a claim, and then it can't be reached.
func givenUp(t *testing.T, endpoint string) {
	s := newStack(t, endpoint, modeltest.Text("done"))
	id := s.accepts()
	var database *gate
	s.db, database = gated(t, s.db)
	worker := s.start("worker")
	s.send("no run")
	s.sql("ALTER TABLE keyway.run_events RENAME TO gone")
	s.delivers(worker, 2, id)
	s.sql("ALTER TABLE keyway.gone RENAME TO run_events")
	database.set(true)
	for range template[int](t, "RunQueue.Properties.RedrivePolicy.maxReceiveCount") - 1 {
		s.delivers(worker, 1, id)
	}
	worker.WaitForLog("schema version: The database is not available")
	s.poll() // SQS moves the message to the dead-letter queue when it would be received again
	s.hold(0, 1)
	if body := *s.receive(s.givenUp, 1)[0].Body; body != id {
		t.Errorf("the dead-letter queue has %s", body)
	}
	database.set(false)
	s.about("ann", everything, id, "").want(t, "the accepted run", 200, `"status":"PENDING"`)
	s.looks(worker)
	s.hold(0, 1) // for ten minutes the run's message is assumed to be in the queue
	s.sql(unclaimedForLong)
	s.looks(worker)
	s.hold(1, 1)
	s.delivers(worker, 1)
	s.becomes(id, "COMPLETED", "done", 1, 0)
}

func neverQueued(t *testing.T, endpoint string) {
	s := newStack(t, endpoint, modeltest.Text("done"))
	s.runs = s.deployment.start("runs", append(s.environment, "AWS_ENDPOINT_URL_SQS=http://127.0.0.1:1")...)
	id := s.accepts()
	s.runs.WaitForLog("could not enqueue a new run")
	s.hold(0, 0)
	worker := s.start("worker")
	s.sql(unclaimedForLong)
	s.looks(worker)
	s.delivers(worker, 1)
	s.becomes(id, "COMPLETED", "done", 1, 0)
}

// Another run is orphaned, and the worker can't put it into the queue.
func cutOff(t *testing.T, endpoint string) {
	s := newStack(t, endpoint, modeltest.Text("done"), modeltest.Text("late"))
	db, err := store.Open(store.Options{URL: s.db, Schema: storetest.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	id, left := s.accepts(), s.recorded(db, "RUNNING", time.Now(), "agents:run").String()
	s.sql("UPDATE keyway.runs SET lease_until = now() - interval '1 second' WHERE status = 'RUNNING'")
	s.delivers(s.deployment.start("worker", append(s.environment, "AWS_ENDPOINT_URL_SQS=http://127.0.0.1:1")...), 1)
	s.becomes(id, "COMPLETED", "done", 1, 0)
	s.hold(0, 0)
	s.sql(unclaimedForLong)
	worker := s.start("worker")
	s.looks(worker)
	s.delivers(worker, 1)
	s.becomes(left, "COMPLETED", "late", 1, 1)
}

func twice(t *testing.T, endpoint string) {
	release := make(chan struct{})
	s := newStack(t, endpoint, modeltest.Text("done").Wait(release), modeltest.Text("too"))
	id := s.accepts()
	first, second := s.start("worker"), s.start("worker")
	d := s.sends(first, 1)
	s.asked(1)
	d.isLate(d.messages[0])
	s.delivers(second, 1) // the same message: it is acknowledged, and the run is not executed again
	s.about("ann", everything, id, "").want(t, "meanwhile", 200, `"status":"RUNNING"`)
	close(release)
	if again := d.ends(); again != nil {
		t.Errorf("%q is delivered again", again)
	}
	s.becomes(id, "COMPLETED", "done", 1, 0)

	other := s.accepts() // now all messages in one batch
	s.send(other)
	s.send(id)
	s.delivers(second, 3)
	s.becomes(other, "COMPLETED", "too", 1, 0)
	s.becomes(id, "COMPLETED", "done", 1, 0)
	if n := len(s.model.Requests()); n != 2 {
		t.Errorf("the model was asked %d times", n)
	}
	s.hold(0, 0)
}

func unknown(t *testing.T, endpoint string) {
	s := newStack(t, endpoint) // the test fails if the model is called
	for _, body := range []string{uuid.NewString(), uuid.Nil.String(), "hello", `{"run_id":"` + uuid.NewString() + `"}`} {
		s.send(body)
	}
	s.delivers(s.start("worker"), 4)
	s.hold(0, 0)
	if n := s.number("SELECT count(*) FROM keyway.runs"); n != 0 {
		t.Errorf("there are %d runs", n)
	}
}

func cancelled(t *testing.T, endpoint string) {
	s := newStack(t, endpoint) // the test fails if the model is called
	id := s.accepts()
	s.about("bob", everything, id, "/cancel").want(t, "another's cancel", 404, `{"detail":"Run not found"}`)
	s.about("ann", everything, id, "").want(t, "after it", 200, `"status":"PENDING"`)
	s.about("ann", everything, id, "/cancel").want(t, "the cancel", 200)
	s.becomes(id, "CANCELLED", "", 1, 0)
	s.hold(1, 0)
	s.delivers(s.start("worker"), 1)
	s.hold(0, 0)
	s.becomes(id, "CANCELLED", "", 1, 0)
}
