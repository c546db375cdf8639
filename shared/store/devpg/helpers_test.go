//go:build unix

package devpg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// programVar is the environment variable that makes the test binary act as a program
// instead: it starts the database in the directory that the variable names, reports the
// result on stdout, and closes the database when its standard input ends.
const programVar = "DEVPG_TEST_DIR"

func TestMain(m *testing.M) {
	HoldIfAsked()
	if dir := os.Getenv(programVar); dir != "" {
		os.Exit(programMain(dir))
	}
	os.Exit(m.Run())
}

// report is one line of JSON that a program writes.
type report struct {
	Progress, Error string
	Server          *Server
}

func programMain(dir string) int {
	out := json.NewEncoder(os.Stdout)
	progress := func(line string) { _ = out.Encode(report{Progress: line}) }
	s, err := Start(context.Background(), Options{Dir: dir, Progress: progress})
	if err != nil {
		_ = out.Encode(report{Error: err.Error()})
		return 1
	}
	_ = out.Encode(report{Server: s})
	asked := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(asked)
	}()
	select {
	case err := <-s.Failed():
		_ = out.Encode(report{Error: err.Error()})
		return 1
	case <-asked:
	}
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// program is another process that starts a database.
type program struct {
	*Server
	cmd      *exec.Cmd
	stdin    io.Closer
	lines    *bufio.Scanner
	progress []string
}

// launch starts a program as the given user (nil: the tests' own).
func launch(t *testing.T, who *account, dir string, env ...string) *program {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), append(env, programVar+"="+dir)...)
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	if who != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid}}
	}
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	must(t, errors.Join(err1, err2, cmd.Start()))
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	return &program{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
}

// next returns the next line that the program prints.
func (p *program) next(t *testing.T) report {
	t.Helper()
	var r report
	if !p.lines.Scan() {
		t.Fatalf("the program printed nothing: %v", p.lines.Err())
	}
	must(t, json.Unmarshal(p.lines.Bytes(), &r))
	return r
}

// settled waits until the program has started its database, and returns the error if it
// could not.
func (p *program) settled(t *testing.T) error {
	t.Helper()
	for {
		switch r := p.next(t); {
		case r.Error != "":
			return errors.New(r.Error)
		case r.Server != nil:
			p.Server = r.Server
			return nil
		default:
			p.progress = append(p.progress, r.Progress)
		}
	}
}

// run launches a program whose database must start.
func run(t *testing.T, who *account, dir string, env ...string) *program {
	t.Helper()
	p := launch(t, who, dir, env...)
	must(t, p.settled(t))
	return p
}

// refused launches a program whose database must not start, and returns the error's text.
func refused(t *testing.T, who *account, dir string, env ...string) (text string) {
	t.Helper()
	err := launch(t, who, dir, env...).settled(t)
	if err == nil {
		t.Fatal("the database started")
	}
	return err.Error()
}

func (p *program) close(t *testing.T) {
	t.Helper()
	must(t, errors.Join(p.stdin.Close(), p.cmd.Wait()))
}

// kill ends the program without a chance to clean up.
func (p *program) kill(t *testing.T) {
	t.Helper()
	must(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait()
}

// holder returns the process ID of the program's child.
func (p *program) holder(t *testing.T) int {
	t.Helper()
	var pid int
	out, err := exec.CommandContext(t.Context(), "ps", "-o", "pid=", "--ppid", fmt.Sprint(p.cmd.Process.Pid)).Output()
	must(t, err)
	_, err = fmt.Sscan(string(out), &pid)
	must(t, err)
	return pid
}

// postmasterOf returns the process ID of the server in dir, which is a Server.Dir.
func postmasterOf(t *testing.T, dir string) (pid int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	must(t, err)
	_, err = fmt.Sscan(string(text), &pid)
	must(t, err)
	return pid
}

func start(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Start(t.Context(), Options{Dir: dir})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// freshDir makes a directory that every user can enter, unlike that of t.TempDir. It
// belongs to who; nil is the user of the tests.
func freshDir(t *testing.T, who *account) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devpg-test-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	if who != nil {
		must(t, os.Chown(dir, int(who.uid), int(who.gid)))
	}
	return dir
}

// ordinary returns a user without privileges: the user nobody if root runs the tests, and
// nil (the user of the tests) otherwise.
func ordinary(t *testing.T) *account {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	who, err := parseAccount("65534", "65534")
	must(t, err)
	return &who
}

// query runs sql and returns the first column of all rows, separated by commas.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer func() { must(t, conn.Close(context.Background())) }()
	rows, err := conn.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	must(t, err)
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	return strings.Join(texts, ",")
}

func remember(t *testing.T, url, word string) {
	t.Helper()
	query(t, url, fmt.Sprintf("CREATE TABLE IF NOT EXISTS words (word text); INSERT INTO words VALUES ('%s')", word))
}

func wantWords(t *testing.T, url, words string) {
	t.Helper()
	if got := query(t, url, "SELECT string_agg(word, ' ') FROM words"); got != words {
		t.Errorf("the database holds %q, want %q", got, words)
	}
}

// wantGone waits until postmaster.pid is gone, which the server removes when it ends.
func wantGone(t *testing.T, dir string) {
	t.Helper()
	for {
		_, err := os.Stat(filepath.Join(dir, "data", "postmaster.pid"))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if !sleep(t.Context(), 10*time.Millisecond) {
			t.Fatal("PostgreSQL is still there")
		}
	}
}

func wantText(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in %q", part, got)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
