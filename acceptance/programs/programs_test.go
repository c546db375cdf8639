package programs

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

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

// program returns the directory where a program of testdata is installed. Without
// KEYWAY_PROGRAMS the test is skipped.
func program(t *testing.T, name string) string {
	t.Helper()
	all := os.Getenv("KEYWAY_PROGRAMS")
	if all == "" {
		t.Skip("KEYWAY_PROGRAMS is not set; run make programs, which prints the command that sets it")
	}
	dir := filepath.Join(all, name)
	if _, err := os.Stat(filepath.Join(dir, "installed")); err != nil {
		t.Fatalf("%v: run make programs", err)
	}
	return dir
}

// daemon is a process of another program.
type daemon struct {
	cmd    *exec.Cmd
	output *process.Output
	ended  chan struct{} // closed when the process has ended
}

// launch starts a program and kills it at the end of the test. A failed test shows the end of
// its output. vars are "NAME=value" and are added to the environment of the tests.
func launch(t *testing.T, vars []string, command string, args ...string) *daemon {
	t.Helper()
	d := &daemon{cmd: exec.Command(command, args...), output: &process.Output{}, ended: make(chan struct{})}
	d.cmd.Env = append(os.Environ(), vars...)
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	d.cmd.WaitDelay = time.Second // an orphaned child doesn't keep the test from ending
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait() // a killed process ends with an error
		d.output.Close()
		close(d.ended)
	}()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			all := d.output.String()
			t.Logf("the end of the output of %s:\n%s", filepath.Base(command), all[max(0, len(all)-shownOutput):])
		}
	})
	return d
}

// shownOutput is how many bytes of a program's output a failed test shows.
const shownOutput = 16 << 10

// kill ends the process at once and returns when it has ended.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // fails if the process has ended
	<-d.ended
}

// awaitHTTP waits until a GET of the address is answered with a status below 500.
func (d *daemon) awaitHTTP(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), process.Patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := process.Client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode < http.StatusInternalServerError {
				return
			}
		}
		select {
		case <-tick.C:
		case <-d.ended:
			t.Fatalf("%s has ended and never answered at %s", d.cmd.Path, url)
		case <-ctx.Done():
			t.Fatalf("%s did not answer at %s: %v", d.cmd.Path, url, context.Cause(ctx))
		}
	}
}

// freeAddress returns an address of this machine, 127.0.0.1:PORT, at which nothing listens.
func freeAddress(t *testing.T) (address, port string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address = l.Addr().String()
	_, port, err = net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return address, port
}

// serve starts keyway with the agents and tools that the YAML declares, for the users of the
// example quickstart. It has the tools of acceptance/withtools. model may be nil; env are names
// and values of variables.
func serve(t *testing.T, yaml string, model *modeltest.Server, env ...string) *process.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keyway.yaml")
	head := "id: quickstart\nauth:\n  keys: [\"${JWT_VERIFICATION_KEY}\"]\n"
	if err := os.WriteFile(file, []byte(head+yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return process.Start(t, process.WithTools, file, model, env...)
}
