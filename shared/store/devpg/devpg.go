// Package devpg runs a PostgreSQL server for development and tests. It decides which
// binaries run, in which directory and as which user, and it stops the server when the
// program that started it ends. It knows nothing of schemas or tables.
package devpg

// A holder process runs the server: the same executable, started again as a child. The
// holder drops root's privileges, locks the data directory, and stops PostgreSQL when
// its standard input closes. The kernel closes that pipe however the parent ends, so a
// killed or crashed program leaves no server running. See
// docs/adr/0002-embedded-postgres-on-a-holder.md.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options configure Start.
type Options struct {
	// Dir is the directory to keep the database in. Start creates it, with a
	// subdirectory pg that holds everything: data, pg.log and pg.json. Required.
	//
	// PostgreSQL refuses to run as root. If this program runs as root and the server's
	// user cannot enter Dir (t.TempDir is such a directory), Start uses a directory
	// below /var/lib/keyway instead. Progress and Server.Dir report which.
	Dir string

	// Progress is called with a short line before each step that may take long, such
	// as a download. It is also called, by another goroutine, when the server has ended
	// unasked and is started again. Defaults to no reports.
	Progress func(string)

	// Durable makes committed rows survive a power cut. Without it the server skips
	// fsync, which makes a start and every commit faster; that is meant for tests.
	// Defaults to false.
	Durable bool
}

// Server is a running PostgreSQL server.
type Server struct {
	// URL is the address of the database, with its password:
	// postgres://keyway:…@127.0.0.1:PORT/keyway?sslmode=disable.
	URL string

	// Shared reports that another program had started the server. Close leaves it running.
	// When that program ends, this one starts the server again at the same address.
	Shared bool

	// Dir holds data, pg.log (the server's log) and pg.json (its URL).
	Dir string

	failed <-chan error
	keeper *keeper
}

// message is one line of JSON that the holder writes to its parent. Either Progress,
// URL (with Shared) or Error is set; URL and Error end the start.
type message struct {
	// Progress is what the holder does now.
	Progress string `json:"progress,omitempty"`
	// URL is the address of the server, which answers there.
	URL string `json:"url,omitempty"`
	// Shared reports that the server belongs to another holder.
	Shared bool `json:"shared,omitempty"`
	// Error is why the start or the stop failed.
	Error string `json:"error,omitempty"`
}

// place is the directories and the user of a holder.
type place struct {
	// dir is the holder's working directory. The server's user owns it.
	dir string
	// cache holds fetched binaries, one directory for each version.
	cache string
	// note explains an unusual choice of dir to the user; it may be empty.
	note string
	// attr starts the holder as the server's user.
	attr *syscall.SysProcAttr
}

// stopTimeout bounds a stop. PostgreSQL may have to write a large checkpoint, for which
// pg_ctl waits up to 120 seconds (PGCTLTIMEOUT below). After that the holder is killed;
// the next start ends the server that it leaves.
const stopTimeout = 150 * time.Second

// Start starts PostgreSQL and returns when the database answers. If the server ends
// before Close, it is started again at the same address; see Failed. The first start in a
// directory creates the database, and downloads PostgreSQL if this machine has no
// suitable version. If another program has started the server of this directory, Start
// returns that one (Server.Shared). If that program is about to stop it (Retire), Start
// waits and starts the server itself.
//
// ctx bounds the start only; Close stops the server. main, or TestMain in tests, must
// have called HoldIfAsked before: without it the child would run the program again,
// which would start a child, and so on. Start returns an error in that case.
func Start(ctx context.Context, o Options) (*Server, error) {
	if !asked {
		return nil, errors.New("devpg: call devpg.HoldIfAsked at the top of main (in tests: of TestMain)")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := findPlace(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("database in %s: %w", o.Dir, err)
	}
	report := func(line string) {
		if o.Progress != nil && line != "" {
			o.Progress(line)
		}
	}
	report(p.note)
	k := &keeper{
		job:   job{Dir: p.dir, Cache: p.cache, Durable: o.Durable},
		place: p, report: report, failed: make(chan error, 1), ended: make(chan struct{}),
	}
	m, err := k.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("database in %s: %w", p.dir, err)
	}
	if k.job.Port, err = portOf(m.URL); err != nil {
		return nil, errors.Join(err, k.child.close())
	}
	k.url = m.URL
	kept, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.cancel = cancel
	go k.keep(kept)
	return &Server{URL: m.URL, Shared: m.Shared, Dir: p.dir, failed: k.failed, keeper: k}, nil
}

// Exists reports whether Start would find a database in a directory, and not make one.
func Exists(dir string) bool {
	_, ok := find(dir)
	return ok
}

// Running returns the URL of the server that Start would share, or "" if none runs. It starts and makes nothing.
func Running(ctx context.Context, dir string) (url string) {
	if pg, ok := find(dir); ok {
		url, _ = answering(ctx, filepath.Join(pg, published)) // "" with an error
	}
	return url
}

// find returns the directory of an existing database. It makes no directory.
func find(dir string) (pg string, ok bool) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", false
	}
	for _, above := range []string{abs, elsewhere(abs)} {
		pg = filepath.Join(above, "pg")
		if _, err := os.Stat(filepath.Join(pg, "data", "PG_VERSION")); err == nil {
			return pg, true
		}
	}
	return "", false
}

// portOf returns the port in the address of a server.
func portOf(address string) (uint32, error) {
	u, err := url.Parse(address)
	if err != nil {
		return 0, errors.New("the holder of PostgreSQL reports an address that can't be parsed")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return uint32(port), err
}

// Close stops the server and waits until it has ended cleanly. A shared server keeps
// running. Later calls return the result of the first one.
func (s *Server) Close() error { return s.keeper.close() }

// Retire announces that the program will call Close soon. From now on no other program
// begins to share the server: it would lose it again a moment later. Those that share it
// already start it again when it has ended.
func (s *Server) Retire() {
	if !s.keeper.shared.Load() {
		_ = os.Remove(filepath.Join(s.Dir, published)) // without it, others wait for the lock
	}
}

// Failed returns a channel that receives the reason if the server has ended and several
// starts at the same address have failed.
func (s *Server) Failed() <-chan error { return s.failed }

// child is a holder as its parent sees it.
type child struct {
	cmd *exec.Cmd
	// lines are the holder's messages.
	lines *bufio.Scanner
	// end closes the holder's standard input, which stops the server.
	end context.CancelFunc
	// doing is the last progress line. The error of a cancelled start begins with it.
	doing string
}

// startChild starts this executable again as the holder, in p.dir and as p's user.
func startChild(p place, j job) (*child, error) {
	// On Linux the link leads to the binary even if its path leads through a directory
	// that the new user cannot enter, or if a new build has replaced the file.
	exe := "/proc/self/exe"
	if _, err := os.Stat(exe); err != nil {
		if exe, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, exe)
	cmd.Args = []string{"keyway-postgres-holder"}
	cmd.Dir, cmd.SysProcAttr, cmd.Stderr = p.dir, p.attr, os.Stderr
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PG") })
	// PG… variables would change what initdb and pg_ctl do. LC_ALL=C keeps PostgreSQL's
	// messages in English, where transientStartErrors finds them; on macOS, PostgreSQL
	// does not start without a locale.
	cmd.Env = append(cmd.Env, holdVar+"="+string(text), "LC_ALL=C", "PGCTLTIMEOUT=120")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	// The end of ctx closes the pipe, and the holder then exits with 0. ErrProcessDone
	// makes Wait return that result; otherwise Wait would return ctx's error.
	cmd.Cancel = func() error { _ = stdin.Close(); return os.ErrProcessDone }
	// Wait kills the holder if it still runs this long after the end of ctx.
	cmd.WaitDelay = stopTimeout
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		end()
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; the server's user must be able to execute this program: chmod o+x it, or run as that user",
				err)
		}
		return nil, err
	}
	return &child{cmd: cmd, lines: bufio.NewScanner(stdout), end: end}, nil
}

// answer reads the holder's messages up to one with a URL or an error, and passes the
// progress lines to report. The message is empty if the holder ended without either.
func (c *child) answer(report func(string)) message {
	for c.lines.Scan() {
		var m message
		// A line that is no message comes from elsewhere in this program, such as an
		// init function that prints.
		if json.Unmarshal(c.lines.Bytes(), &m) != nil {
			continue
		}
		if m.Progress == "" {
			return m
		}
		c.doing = m.Progress
		report(m.Progress)
	}
	return message{}
}

// close stops the holder and waits for it. The error is the holder's own if it could
// not stop PostgreSQL.
func (c *child) close() error {
	c.end()
	return c.wait()
}

// wait waits for the end of the holder. The error is the holder's own if it reported one.
func (c *child) wait() error {
	m := c.answer(func(string) {})
	err := c.cmd.Wait()
	if m.Error != "" {
		return errors.New(m.Error)
	}
	if err != nil {
		return fmt.Errorf("the process that holds PostgreSQL: %w", err)
	}
	return nil
}
