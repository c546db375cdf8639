package acceptance

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/acceptance/process"
)

// postgresProcesses returns the processes of the PostgreSQL that runs for the directory:
// those whose working directory is its data directory. The first is the postmaster.
func (d devDir) postgresProcesses(t *testing.T) (pids []int) {
	t.Helper()
	first, _, _ := strings.Cut(d.read(t, ".keyway", "pg", "data", "postmaster.pid"), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	data, err := filepath.EvalSymlinks(filepath.Join(d.data(), "pg", "data"))
	if err != nil {
		t.Fatal(err)
	}
	pids = []int{postmaster}
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		comm, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "comm"))
		if cwd, err := os.Readlink(link); err == nil && cwd == data && string(comm) == "postgres\n" && pid != postmaster {
			pids = append(pids, pid)
		}
	}
	return pids
}

// signalPostgres sends a signal to every process of the directory's PostgreSQL. A process
// that has just ended is no error.
func (d devDir) signalPostgres(t *testing.T, s syscall.Signal) {
	t.Helper()
	for _, pid := range d.postgresProcesses(t) {
		if err := syscall.Kill(pid, s); err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
	}
}

// awaitReady polls /readyz until it answers this status.
func (r *server) awaitReady(status int) {
	r.t.Helper()
	end := time.Now().Add(process.Patience)
	for ; r.Get("-", "/readyz").Status != status; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("/readyz does not become %d\n%s", status, r.Log())
		}
	}
}

func TestReadyzFollowsTheDatabaseAndHealthDoesNot(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "quickstart")
	r := d.serve(t, nil)
	url := d.postgres(t)
	r.Get("-", "/readyz").Want(t, "a server with a database", 200, `{"status":"ok"}`)
	d.signalPostgres(t, syscall.SIGSTOP)
	defer d.signalPostgres(t, syscall.SIGCONT)
	r.awaitReady(503) // until the last result is a second old, the answer is 200
	for range 3 {
		began := time.Now()
		got := r.Get("-", "/readyz")
		got.Want(t, "a frozen database", 503, "The database is not available, try again")
		if took := time.Since(began); took > 4*time.Second || got.Header.Get("Retry-After") == "" {
			t.Errorf("after %s: %v", took, got.Header)
		}
		for _, secret := range strings.FieldsFunc(url, func(c rune) bool { return strings.ContainsRune(":/@?", c) })[1:5] {
			if secret != "keyway" && strings.Contains(got.Body, secret) {
				t.Errorf("the answer shows %s: %s", secret, got.Body)
			}
		}
		head := r.Call("-", "HEAD", "/readyz", nil)
		head.Want(t, "HEAD", 503)
		if head.Body != "" || head.Header.Get("Retry-After") == "" {
			t.Errorf("HEAD: %v %q", head.Header, head.Body)
		}
		r.Get("-", "/health").Want(t, "health without a database", 200, `"status":"ok"`)
		r.Call("-", "HEAD", "/health", nil).Want(t, "HEAD /health", 200)
	}
	d.signalPostgres(t, syscall.SIGCONT)
	r.awaitReady(200)
}

// The embedded PostgreSQL is killed while a run is in progress. It is started again, and
// the run ends as if nothing had happened.
func TestServerStartsItsKilledPostgreSQLAgain(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "quickstart")
	model, release := heldModel(t)
	r := d.serve(t, map[string]string{"OPENAI_BASE_URL": model.URL, "OPENAI_API_KEY": "sk-test"})
	s := r.startStream("s", "first")
	d.signalPostgres(t, syscall.SIGKILL)
	r.AwaitLog(`PostgreSQL in \S+ has ended \(.*\); starting it again, try 1 of 5`)
	r.AwaitLog(`PostgreSQL in \S+ runs again`)
	r.awaitReady(200)
	release <- struct{}{}
	if got := s.readToEnd(); got != allEvents {
		t.Errorf("the stream sent %s", got)
	}
	r.Get("ann", "/sessions/s/runs").Want(t, "the run", 200, `"content":"first second"`, `"status":"COMPLETED"`)
}

func TestServerExitsIfItsPostgreSQLCannotBeStartedAgain(t *testing.T) {
	t.Parallel()
	d := newDevDir(t, "quickstart")
	r := d.serve(t, nil)
	r.Judged.Store(true)
	conf := filepath.Join(d.data(), "pg", "data", "postgresql.conf")
	if err := os.WriteFile(conf, []byte("no_such_setting = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.signalPostgres(t, syscall.SIGKILL)
	err := r.Ended()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("the server ended with %v", err)
	}
	for _, want := range []string{"could not be started again", "no_such_setting", "start keyway again"} {
		if !strings.Contains(r.Stderr.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, r.Log())
		}
	}
}
