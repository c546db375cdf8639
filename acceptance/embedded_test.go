package acceptance

import (
	"syscall"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
)

// onEmbedded starts keyway on the embedded PostgreSQL of a directory, and returns before it serves.
func onEmbedded(t *testing.T, data string, model *modeltest.Server) *server {
	t.Helper()
	r := serve(t, process.Keyway, map[string]string{
		"JWT_VERIFICATION_KEY": config.PublishedSecret, "OPENAI_BASE_URL": model.URL, "OPENAI_API_KEY": "sk-test",
	}, "--config", process.Path("examples/quickstart/keyway.yaml"), "--data", data)
	r.Tokens = process.PyJWT(t, "quickstart")
	return r
}

func (r *server) serves() {
	r.t.Helper()
	r.URL = r.AwaitLog(`serves \S+ at (http://\S+)`)[1]
}

// A server that stops gives its runs time to end. It frees its port at once, and its PostgreSQL at the end.
func TestAServerDoesNotJoinAPostgreSQLThatStops(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	model := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script {
		return modeltest.Text("first").Wait(answer)
	})
	data := t.TempDir()
	stops := onEmbedded(t, data, model)
	stops.serves()
	run := stops.startStream("s", "first")
	if err := stops.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stops.AwaitLog("keyway stops")
	next := onEmbedded(t, data, model)
	next.AwaitLog("waiting for the program that owns")
	close(answer)
	run.readToEnd()
	next.serves()
	next.Get("ann", "/sessions").Want(t, "the sessions", 200, `"session_id":"s"`)
	next.Run("ann", "assistant", "message", "again").Want(t, "a run", 200, "event: RunCompleted")
}

// A server that shares the PostgreSQL of another one works on when that one ends.
func TestAServerOutlivesTheOwnerOfItsPostgreSQL(t *testing.T) {
	t.Parallel()
	model := modeltest.NewServerFunc(t, func(modeltest.Request) modeltest.Script { return modeltest.Text("hi") })
	data := t.TempDir()
	owner := onEmbedded(t, data, model)
	owner.serves()
	guest := onEmbedded(t, data, model)
	guest.serves()
	guest.Run("ann", "assistant", "message", "one", "session_id", "s").Want(t, "a run", 200, "event: RunCompleted")
	if err := owner.Stop(); err != nil {
		t.Error(err)
	}
	guest.AwaitLog("runs again")
	guest.Get("ann", "/sessions").Want(t, "the sessions", 200, `"session_id":"s"`)
	guest.Run("ann", "assistant", "message", "two", "session_id", "s").Want(t, "a run", 200, "event: RunCompleted")
}
