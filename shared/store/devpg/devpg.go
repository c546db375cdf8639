// Package devpg runs a PostgreSQL for the laptop and for tests. It decides which
// binaries, which directory and which user, and that the server ends when the
// program that asked for it ends. It knows nothing of schemas or tables.
//
// The server hangs on a holder: this same executable started again as a child,
// which gives up root, owns the data directory and stops PostgreSQL when its
// stdin closes, however the parent came to its end.
package devpg

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say where the data lives and how careful the server is with it.
type Options struct {
	// Dir gets a subdirectory pg with everything in it: data, pg.log, pg.json.
	// As root, a Dir that the server's user cannot enter (t.TempDir is one) is
	// replaced by one below /var/lib/keyway; Progress and Server.Dir say so.
	Dir string
	// Progress is told, in a short line, what takes long. It may be nil.
	Progress func(string)
	// Durable keeps the rows through a power cut. Tests do without: a start and
	// every commit are faster.
	Durable bool
}

// Server is a PostgreSQL that answers at URL.
type Server struct {
	URL    string // postgres://keyway:…@127.0.0.1:PORT/keyway?sslmode=disable
	Shared bool   // another program owns it: Close leaves it running, and it ends with that program
	Dir    string // holds data, pg.log (the server's log) and pg.json (its URL)

	stop func() error
}

// message is one line that the holder writes: one of its fields is set.
type message struct {
	Progress string `json:"progress,omitempty"`
	URL      string `json:"url,omitempty"`
	Shared   bool   `json:"shared,omitempty"`
	Error    string `json:"error,omitempty"`
}

// place is where and as whom the holder works.
type place struct {
	dir   string // the holder's working directory, owned by the server's user
	cache string // fetched binaries, one directory for each version
	note  string // what the user should know about the choice
	attr  *syscall.SysProcAttr
}

// patience bounds a stop, clean or not; then the holder is killed.
const patience = 150 * time.Second

// Start returns when PostgreSQL answers; ctx bounds the start only. A first
// start makes the database, and fetches PostgreSQL when the machine has none
// that fits. main (or TestMain) must have called HoldIfAsked.
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
	tell := func(line string) {
		if o.Progress != nil && line != "" {
			o.Progress(line)
		}
	}
	tell(p.note)
	c, err := startChild(p, o.Durable)
	if err != nil {
		return nil, fmt.Errorf("database in %s: %w", p.dir, err)
	}
	release := context.AfterFunc(ctx, c.end)
	m := c.answer(tell)
	if !release() || m.URL == "" {
		err := c.close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%s: %w", cmp.Or(c.doing, "starting"), context.Cause(ctx))
		} else if m.Error != "" {
			err = errors.New(m.Error)
		}
		return nil, fmt.Errorf("database in %s: %w", p.dir, err)
	}
	return &Server{URL: m.URL, Shared: m.Shared, Dir: p.dir, stop: sync.OnceValue(c.close)}, nil
}

// Close stops the server and waits for its clean end; a shared server is left
// alone. Further calls return what the first returned.
func (s *Server) Close() error { return s.stop() }

// child is the parent's side of a holder.
type child struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	end   context.CancelFunc // closes the holder's stdin
	doing string             // the last progress line
}

// startChild runs this executable again as the holder.
func startChild(p place, durable bool) (*child, error) {
	// The link reaches the binary even below a directory that the new user
	// cannot enter, and when the file was replaced meanwhile.
	exe := "/proc/self/exe"
	if _, err := os.Stat(exe); err != nil {
		if exe, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	job, err := json.Marshal(job{Dir: p.dir, Cache: p.cache, Durable: durable})
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, exe)
	cmd.Args = []string{"keyway-postgres-holder"}
	cmd.Dir, cmd.SysProcAttr, cmd.Stderr = p.dir, p.attr, os.Stderr
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PG") })
	// LC_ALL: messages that can be recognised, and macOS refuses an unset locale.
	cmd.Env = append(cmd.Env, holdVar+"="+string(job), "LC_ALL=C", "PGCTLTIMEOUT=120")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	// ErrProcessDone keeps Wait from reporting our own wish to end as an error.
	cmd.Cancel = func() error { _ = stdin.Close(); return os.ErrProcessDone }
	cmd.WaitDelay = patience
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		end()
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; the server's user must be able to run this program: chmod o+x it, or run as that user", err)
		}
		return nil, err
	}
	return &child{cmd: cmd, lines: bufio.NewScanner(stdout), end: end}, nil
}

// answer reads up to the holder's url or error; it is empty when the holder died.
func (c *child) answer(tell func(string)) message {
	for c.lines.Scan() {
		var m message
		// Something else on stdout (an init function that prints) is not for us.
		if json.Unmarshal(c.lines.Bytes(), &m) != nil {
			continue
		}
		if m.Progress == "" {
			return m
		}
		c.doing = m.Progress
		tell(m.Progress)
	}
	return message{}
}

// close ends the holder and waits for it; what it says on its way out is an error.
func (c *child) close() error {
	c.end()
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
