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

// holdVar tells a process that it is a holder, and its job.
const holdVar = "KEYWAY_POSTGRES_HOLDER"

// asked guards Start: without HoldIfAsked the child would run the program again, which starts a child.
var asked bool

// job is what the parent wants.
type job struct {
	Dir     string
	Cache   string
	Durable bool
}

// holder works in job.Dir, so its file names are relative.
type holder struct {
	job
	out *json.Encoder
}

// HoldIfAsked turns this process into a holder, for its whole life, when Start
// began it as one; otherwise it returns at once. It belongs at the top of main
// and of TestMain.
func HoldIfAsked() {
	asked = true
	text, ok := os.LookupEnv(holdVar)
	if !ok {
		return
	}
	_ = os.Unsetenv(holdVar)
	// The parent's end is the only reason to stop: a ctrl-C or a closed terminal
	// is its business, and it may still want to write. SIGPIPE comes when the
	// parent is gone and must not keep PostgreSQL from being stopped.
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
		h.say(message{Error: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

// say tells the parent, if there still is one.
func (h *holder) say(m message) { _ = h.out.Encode(m) }

func (h *holder) progress(format string, args ...any) {
	h.say(message{Progress: fmt.Sprintf(format, args...)})
}

// sharePatience is how long a holder waits for the server of another holder
// before it calls that one stuck; the other may be fetching PostgreSQL.
const sharePatience = 2 * time.Minute

// run owns the directory's server, or shares the one of a living owner.
func (h *holder) run(ctx context.Context) error {
	lock := flock.New("lock") // let go by the end of the process, so never by an orphaned PostgreSQL
	giveUp := time.Now().Add(sharePatience)
	for told := false; ; told = true {
		if mine, err := lock.TryLock(); err != nil {
			return fmt.Errorf("lock %s/lock: %w", h.Dir, err)
		} else if mine {
			return h.own(ctx)
		}
		url, err := published(ctx)
		if err == nil {
			h.say(message{URL: url, Shared: true})
			return nil
		}
		if time.Now().After(giveUp) {
			return fmt.Errorf("another program owns this directory, but its server does not answer (%w); stop that program", err)
		}
		if !told {
			h.progress("waiting for the program that owns %s", h.Dir)
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// own runs the server until the parent is gone.
func (h *holder) own(ctx context.Context) (err error) {
	if err := os.RemoveAll("pg.json"); err != nil {
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
	url, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll("pg.json"), c.stop()) }()
	if err := publish(url); err != nil {
		return err
	}
	h.say(message{URL: url})
	<-ctx.Done()
	return nil
}

// publish writes pg.json, whole or not at all.
func publish(url string) error {
	text, err := json.Marshal(message{URL: url})
	if err == nil {
		err = os.WriteFile("pg.json.new", append(text, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename("pg.json.new", "pg.json")
	}
	return err
}

// published is the address in pg.json, if a server answers there.
func published(ctx context.Context) (string, error) {
	text, err := os.ReadFile("pg.json")
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

// sleep reports whether it slept for d, rather than being cut short by ctx.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
