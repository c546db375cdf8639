package acceptance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	// The processes under test are made of it: a change of it must invalidate the
	// results that go test has cached.
	_ "github.com/keyway-agents/keyway/shared/cli"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// built is the directory of the programs that were built for this run of the tests.
var built string

func TestMain(m *testing.M) {
	devpg.HoldIfAsked()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if built, err = os.MkdirTemp("", "keyway-acceptance-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(built)
	return storetest.Main(m)
}

// program is a Go program of this repository. It is built once for each run of the
// tests, when the first of them starts it.
type program struct {
	path  func() (string, error) // builds it
	flags []string               // of its own, before keyway's command line
	files int                    // its limit of open files; 0 is that of the tests
}

// The programs under test: the command itself, the same with tools of the tests' own,
// and the example of an operator's own program.
var (
	keyway    = newProgram("../cmd/keyway")
	withTools = newProgram("./withtools")
	ownTools  = newProgram("../examples/own-tools")
)

func newProgram(dir string) program {
	return program{path: sync.OnceValues(func() (string, error) { return build(dir) })}
}

// with is the program with flags of its own.
func (p program) with(flags ...string) program {
	p.flags = append(flags, "--")
	return p
}

// limitedTo is the program with a limit of open files.
func (p program) limitedTo(files int) program {
	p.files = files
	return p
}

// build compiles a program as a user does with make build; with the race detector when
// the tests have it.
func build(dir string) (string, error) {
	// go test notes which directories a test reads, and doesn't reuse a cached result
	// after they changed.
	if _, err := os.ReadDir(dir); err != nil {
		return "", err
	}
	bin := filepath.Join(built, filepath.Base(dir))
	flags, cgo := []string{"build", "-trimpath", "-o", bin}, "CGO_ENABLED=0"
	if raceEnabled {
		flags, cgo = append(flags, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(flags, dir)...)
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", dir, err, out)
	}
	return bin, nil
}

// inherited are the variables of this process that its children see as well: what they
// need to find and to run PostgreSQL. Everything else comes from the test.
var inherited = []string{"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "KEYWAY_POSTGRES", "SUDO_UID", "SUDO_GID"}

// command prepares the program with an environment of its own.
func (p program) command(t *testing.T, vars map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := p.path()
	if err != nil {
		t.Fatal(err)
	}
	line := append(append([]string{bin}, p.flags...), args...)
	if p.files > 0 {
		line = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, p.files), "sh"}, line...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = []string{"GORACE=exitcode=66 atexit_sleep_ms=0"} // a race makes the exit status 66
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	for name, value := range vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// prints runs a command to its end, which must be a good one, and returns what it
// printed on standard output.
func (p program) prints(t *testing.T, vars map[string]string, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	cmd := p.command(t, vars, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("keyway %s: %v\n%s", strings.Join(args, " "), err, &complaints)
	}
	return strings.TrimSpace(out.String())
}
