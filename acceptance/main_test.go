package acceptance

import (
	"os"
	"testing"

	"github.com/keyway-agents/keyway/acceptance/process"
	// The processes under test are made of it: a change of it must invalidate the
	// results that go test has cached.
	_ "github.com/keyway-agents/keyway/shared/cli"
	"github.com/keyway-agents/keyway/shared/model/modeltest"
	"github.com/keyway-agents/keyway/shared/store/devpg"
)

func TestMain(m *testing.M) {
	devpg.HoldIfAsked()
	os.Exit(process.Main(m))
}

// server is a process under test, with the methods that only these tests need.
type server struct {
	*process.Server
	t *testing.T
}

// start starts keyway with the keyway.yaml of an example, or with the file if example ends
// in .yaml. env are names and values of variables that are added to the usual ones.
func start(t *testing.T, example string, model *modeltest.Server, env ...string) *server {
	t.Helper()
	return startWith(t, process.Keyway, example, model, env...)
}

// startWith is start for another program than keyway.
func startWith(t *testing.T, p process.Program, example string, model *modeltest.Server, env ...string) *server {
	t.Helper()
	return &server{process.Start(t, p, example, model, env...), t}
}

// serve starts keyway serve on a free port. At the end of the test the process gets SIGTERM
// and must then exit with 0.
func serve(t *testing.T, p process.Program, vars map[string]string, args ...string) *server {
	t.Helper()
	return &server{process.Serve(t, p, vars, args...), t}
}
