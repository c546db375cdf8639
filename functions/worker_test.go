package functions_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// recorded stores a run of agent a that ann started with these scopes, and returns its id.
func (d deployment) recorded(db *store.DB, status string, at time.Time, scopes string) uuid.UUID {
	d.t.Helper()
	r := store.Run{
		RunID: uuid.New(), Owner: "ann", SessionID: "s", AgentID: "a", Status: status, Input: "hello", CreatedAt: at.UTC(),
		Background: true,
		Caller:     json.RawMessage(`{"sub":"ann","scopes":["` + scopes + `"],"path":"/agents/a/runs"}`),
	}
	if _, err := db.BeginRun(d.t.Context(), r, store.BeginOptions{}); err != nil {
		d.t.Fatal(err)
	}
	return r.RunID
}

// deliver invokes the worker with messages, and checks which ones must be delivered again.
func (f function) deliver(bodies []string, again ...string) {
	f.t.Helper()
	var e events.SQSEvent
	for _, body := range bodies {
		e.Records = append(e.Records, events.SQSMessage{MessageId: "of " + body, Body: body, EventSource: "aws:sqs"})
	}
	data, err := json.Marshal(e)
	if err != nil {
		f.t.Fatal(err)
	}
	a := f.Invoke(data, time.Minute)
	var out events.SQSEventResponse
	if body := a.Body(); json.Unmarshal(body, &out) != nil || a.Kind != "response" {
		f.t.Fatalf("%s %s\n%s", a.Kind, body, f.Stderr)
	}
	var got []string
	for _, failure := range out.BatchItemFailures {
		got = append(got, failure.ItemIdentifier)
	}
	if diff := cmp.Diff(again, got); diff != "" {
		f.t.Errorf("delivered again: %s\n%s", diff, f.Stderr)
	}
}

func TestWorkerExecutesDeliveredRuns(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway, modeltest.Text("done"), modeltest.Text("done"), modeltest.Text("done"))
	db, err := store.Open(store.Options{URL: d.db, Schema: storetest.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	becomes := func(id uuid.UUID, status, content string) {
		t.Helper()
		r, err := db.Run(t.Context(), store.Viewer{All: true}, store.RunQuery{RunID: id.String()})
		if err != nil || r.Status != status || r.Content == nil || *r.Content != content {
			t.Errorf("%+v %v, want %s %q", r, err, status, content)
		}
	}
	now := time.Now()
	first, second := d.recorded(db, "PENDING", now, "agents:run"), d.recorded(db, "PENDING", now, "agents:run")
	denied := d.recorded(db, "PENDING", now, "agents:b:run")
	f := d.start("worker")
	f.deliver([]string{first.String(), "no run", second.String(), denied.String(), uuid.NewString()})
	becomes(first, "COMPLETED", "done")
	becomes(second, "COMPLETED", "done")
	becomes(denied, "ERROR", "The run is no longer allowed: Insufficient permissions. Required scope(s): agents:run")
	f.deliver([]string{first.String()}) // a second delivery has no effect
	if n := len(d.model.Requests()); n != 2 {
		t.Errorf("the model was asked %d times", n)
	}

	// The schedule's event. Without a queue the worker itself executes the runs that it finds.
	dead := d.recorded(db, "RUNNING", now, "agents:run")
	execute(t, d.owner, "UPDATE keyway.runs SET lease_until = now() - interval '1 second' WHERE status = 'RUNNING'")
	if a := f.Invoke([]byte(`{"source":"aws.events","detail-type":"Scheduled Event"}`),
		time.Minute); a.Kind != "response" {
		t.Fatalf("%s %s", a.Body(), f.Stderr)
	}
	becomes(dead, "COMPLETED", "done")
}

// A message about a run that can't be claimed is delivered again; the others aren't.
func TestWorkerReportsUnclaimedMessages(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway, modeltest.Text("done"))
	db, err := store.Open(store.Options{URL: d.db, Schema: storetest.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	id := d.recorded(db, "PENDING", time.Now(), "agents:run")
	f := d.start("worker")
	f.deliver(nil)
	execute(t, d.owner, "ALTER TABLE keyway.run_events RENAME TO gone") // which a claim needs
	f.deliver([]string{"no run", id.String()}, "of "+id.String())
	execute(t, d.owner, "ALTER TABLE keyway.gone RENAME TO run_events")
	f.deliver([]string{id.String()})
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}
