package devpg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
)

// holdVar is the environment variable that makes a process a holder. Its value is a job
// as JSON.
const holdVar = "KEYWAY_POSTGRES_HOLDER"

// asked reports that HoldIfAsked was called. Start requires it: otherwise the child would
// run the program again, which would start another child.
var asked bool

// job is the parent's order to the holder; the fields are those of place and Options.
type job struct {
	Dir     string
	Cache   string
	Durable bool
	// Port is the port of a server that is started again, 0 for any free one.
	Port uint32
}

// holder is the process that runs the server. Its working directory is job.Dir, so it
// uses relative file names.
type holder struct {
	job
	out *json.Encoder // to the parent
}

// HoldIfAsked makes this process a holder if Start began it as one: it then runs the
// server and exits with it, and never returns. Otherwise it returns at once. Call it at
// the top of main, and of TestMain in tests.
func HoldIfAsked() {
	asked = true
	text, ok := os.LookupEnv(holdVar)
	if !ok {
		return
	}
	_ = os.Unsetenv(holdVar)
	// The end of the parent is the only reason to stop. A ctrl-C or a closed terminal
	// reaches the parent too, which may still need the database to shut down cleanly.
	// SIGPIPE comes when a message is written after the parent has ended; it must not
	// end the holder before it has stopped PostgreSQL.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	h := holder{out: json.NewEncoder(os.Stdout)}
	err := json.Unmarshal([]byte(text), &h.job)
	if err == nil {
		err = h.run(ctx)
	}
	if err != nil {
		h.send(message{Error: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

// send writes a message to the parent. An error means that the parent has ended, which
// the holder notices by its standard input.
func (h *holder) send(m message) { _ = h.out.Encode(m) }

func (h *holder) progress(format string, args ...any) {
	h.send(message{Progress: fmt.Sprintf(format, args...)})
}

// shareTimeout is how long a holder waits for the server of another holder. That one
// may be downloading PostgreSQL.
const shareTimeout = 2 * time.Minute

// run runs the directory's server, or shares the server of the holder that owns the
// directory. The owner is the process that has the lock. The kernel releases a file lock
// when its process ends, and PostgreSQL does not inherit it: so a held lock proves that
// the holder lives, and a free one proves that a server still running is orphaned.
func (h *holder) run(ctx context.Context) error {
	lock := flock.New("lock")
	giveUp := time.Now().Add(shareTimeout)
	for reported := false; ; reported = true {
		if mine, err := lock.TryLock(); err != nil {
			return fmt.Errorf("lock %s/lock: %w", h.Dir, err)
		} else if mine {
			// Without a use of lock after own, the garbage collector could close its file
			// while the server runs, and another holder would get the lock.
			return errors.Join(h.own(ctx), lock.Unlock())
		}
		url, err := answering(ctx, published)
		if err == nil {
			h.send(message{URL: url, Shared: true})
			return nil
		}
		if time.Now().After(giveUp) {
			return fmt.Errorf("another program uses this directory, but its server does not answer (%w); stop that program",
				err)
		}
		if !reported {
			h.progress("waiting for the program that owns %s", h.Dir)
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// own runs the server until the parent ends, or until the server has ended by itself,
// which is an error: the parent decides whether to start it again. pg.json exists only while the server
// answers, so that another holder never connects to an address of an earlier start.
func (h *holder) own(ctx context.Context) (err error) {
	if err := os.RemoveAll(published); err != nil {
		return err
	}
	major, err := dataMajor()
	if err != nil {
		return fmt.Errorf("%s/data: %w", h.Dir, err)
	}
	bin, err := h.binaries(ctx, major)
	if err != nil {
		return err
	}
	c := cluster{holder: h, bin: bin}
	if err := c.prepare(ctx, major == 0); err != nil {
		return err
	}
	address, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(published)) }()
	if err := publish(address); err != nil {
		return errors.Join(err, c.stop())
	}
	h.send(message{URL: address})
	if err := watch(ctx, address); err != nil {
		return err // nothing is left to stop
	}
	return c.stop()
}

// watch returns nil when ctx ends, or an error when the server has ended. It keeps a
// session, which ends with the process behind it. That happens also while the server
// lives, for example when PostgreSQL restarts its processes after a crash of one. So the
// end of the session means only that watch must look: a server that has ended refuses
// the next connection.
//
// The session is logged in. A server that shuts down waits for a connection that sends
// nothing, for up to a minute (authentication_timeout).
func watch(ctx context.Context, address string) error {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return err
	}
	config.Database = "postgres" // not among the connections to the program's database
	for ctx.Err() == nil {
		conn, err := pgx.ConnectConfig(ctx, config)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return errors.New("its port refuses connections")
		}
		if err == nil {
			_, _ = conn.WaitForNotification(ctx) // There is none; it returns when the session or ctx ends.
			_ = conn.Close(ctx)
		}
		sleep(ctx, 50*time.Millisecond) // a server that rejects each connection must not cost a CPU
	}
	return nil
}

// published is the name of the file with the server's address, which other holders read.
const published = "pg.json"

// publish writes the server's address to pg.json for other holders. It renames a
// complete file, so that none of them reads half of one.
func publish(url string) error {
	text, err := json.Marshal(message{URL: url})
	if err == nil {
		err = os.WriteFile("pg.json.new", append(text, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename("pg.json.new", published)
	}
	return err
}

// answering returns the address in a pg.json if a server answers there.
func answering(ctx context.Context, file string) (string, error) {
	text, err := os.ReadFile(file) // #nosec G304 -- below the directory that the operator chose
	if err != nil {
		return "", err
	}
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		return "", fmt.Errorf("pg.json: %w", err)
	}
	conn, err := pgx.Connect(ctx, m.URL)
	if err != nil {
		return "", err
	}
	return m.URL, conn.Close(ctx)
}

// sleep waits for d and returns true, or returns false as soon as ctx ends.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
