// Package process starts keyway as a process, with a port and a database of its own, and
// calls it over its sockets. Tests use it, and nothing else does.
package process

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// built is the directory of the programs that were built for this run of the tests.
var built string

// Main runs the tests of a package and removes the programs that were built for them. It
// returns the exit code. TestMain calls it, after devpg.HoldIfAsked.
func Main(m *testing.M) int {
	var err error
	if built, err = os.MkdirTemp("", "keyway-acceptance-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(built) }()
	return storetest.Main(m)
}

// Program is a Go program of this repository. It is built once for each run of the
// tests, when the first of them starts it.
type Program struct {
	path  func() (string, error) // builds it
	flags []string               // of its own, before keyway's command line
	files int                    // its limit of open files; 0 is that of the tests
}

// The programs under test: the command itself, the same with tools of the tests' own,
// and the example of an operator's own program.
var (
	Keyway    = newProgram("cmd/keyway")
	WithTools = newProgram("acceptance/withtools")
	OwnTools  = newProgram("examples/own-tools")
)

func newProgram(dir string) Program {
	return Program{path: sync.OnceValues(func() (string, error) { return build(dir) })}
}

// With is the program with flags of its own.
func (p Program) With(flags ...string) Program {
	p.flags = append(flags, "--")
	return p
}

// LimitedTo is the program with a limit of open files.
func (p Program) LimitedTo(files int) Program {
	p.files = files
	return p
}

// Path returns the path of a file of this repository, which name gives relative to its root,
// from the directory of the package under test.
func Path(name string) string {
	up := "."
	for range 8 { // more than any package is deep
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			break
		}
		up = filepath.Join("..", up)
	}
	return filepath.Join(up, filepath.FromSlash(name))
}

// build compiles a program as a user does with make build; with the race detector when
// the tests have it.
func build(dir string) (string, error) {
	// go test notes which directories a test reads, and doesn't reuse a cached result
	// after they changed.
	dir = Path(dir)
	if _, err := os.ReadDir(dir); err != nil {
		return "", err
	}
	bin := filepath.Join(built, filepath.Base(dir))
	flags, cgo := []string{"build", "-trimpath", "-o", bin}, "CGO_ENABLED=0"
	if raceEnabled {
		flags, cgo = append(flags, "-race"), "CGO_ENABLED=1"
	}
	// #nosec G204 -- the tests choose the program
	cmd := exec.CommandContext(context.Background(), "go", append(flags, "./"+filepath.ToSlash(dir))...)
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", dir, err, out)
	}
	return bin, nil
}

// inherited are the variables of this process that its children see as well: what they
// need to find and to run PostgreSQL. Everything else comes from the test.
var inherited = []string{"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "KEYWAY_POSTGRES", "SUDO_UID", "SUDO_GID"}

// Command prepares the program with an environment of its own.
func (p Program) Command(t *testing.T, vars map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := p.path()
	if err != nil {
		t.Fatal(err)
	}
	line := append(append([]string{bin}, p.flags...), args...)
	if p.files > 0 {
		line = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, p.files), "sh"}, line...)
	}
	// #nosec G204 -- the tests choose the program
	cmd := exec.CommandContext(context.Background(), line[0], line[1:]...)
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

// Prints runs a command to its end, which must be a good one, and returns what it
// printed on standard output.
func (p Program) Prints(t *testing.T, vars map[string]string, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	cmd := p.Command(t, vars, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("keyway %s: %v\n%s", strings.Join(args, " "), err, &complaints)
	}
	return strings.TrimSpace(out.String())
}

// Require skips a test that needs a foreign program which is not installed. With
// CI set, the test fails instead, so that CI never skips it unnoticed.
func Require(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Patience is how long a test waits for something that should happen within seconds.
const Patience = 3 * time.Minute
