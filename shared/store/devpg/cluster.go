package devpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// cluster is the data directory and the PostgreSQL that serves it.
type cluster struct {
	*holder
	bin      binaries
	password string
}

// dataMajor is the PostgreSQL version that made the data; 0 when there is none yet.
func dataMajor() (int, error) {
	names, err := os.ReadDir("data")
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0 {
		return 0, nil
	}
	text, err := os.ReadFile("data/PG_VERSION")
	major, _ := strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
	if string(text) != fmt.Sprintf("%d\n", major) { // to the letter, as the library compares it
		if err == nil {
			err = fmt.Errorf("PG_VERSION is %q", text)
		}
		return 0, fmt.Errorf("not a whole PostgreSQL directory; repair it or move it away: %w", err)
	}
	return major, nil
}

// prepare makes the cluster, or clears an old one of a killed holder's server.
func (c *cluster) prepare(ctx context.Context, fresh bool) error {
	halves, _ := filepath.Glob("data.making-*")
	for _, half := range halves {
		_ = os.RemoveAll(half) // what cannot go now goes next time
	}
	text, err := os.ReadFile("password")
	c.password = strings.TrimSpace(string(text))
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case !fresh && c.password == "":
		return fmt.Errorf("%s/password is lost; restore it, or move data away for a new database", c.Dir)
	case !fresh:
		return c.evict(ctx)
	case c.password == "":
		c.password = rand.Text()
		if err := os.WriteFile("password", []byte(c.password+"\n"), 0o600); err != nil {
			return err
		}
	}
	return c.create(ctx)
}

// create makes the cluster under another name, so that data is whole or absent.
// The name is new each time: the initdb of a killed holder may still be at work,
// and removes its directory when it sees that something is wrong.
func (c *cluster) create(ctx context.Context) error {
	c.progress("creating the database in %s with PostgreSQL %d", c.Dir, c.bin.major)
	making, err := os.MkdirTemp(".", "data.making-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(making) }()
	args := []string{"--pgdata=" + making, "--username=keyway", "--pwfile=password", "--auth=scram-sha-256",
		"--encoding=UTF8", "--no-instructions"}
	if !c.Durable {
		args = append(args, "--no-sync")
	}
	var out []byte
	for _, locale := range []string{"C.UTF-8", "C"} { // not every system has the first
		initdb := exec.CommandContext(ctx, filepath.Join(c.bin.dir, "initdb"), append(args, "--locale="+locale)...)
		initdb.Cancel = func() error { return initdb.Process.Signal(syscall.SIGTERM) }
		if out, err = initdb.CombinedOutput(); err == nil {
			break
		}
	}
	if strings.Contains(string(out), "could not look up effective user ID") {
		return fmt.Errorf("uid %d has no entry in /etc/passwd and PostgreSQL insists on one; add it or run as another user", os.Geteuid())
	}
	if err != nil {
		return fmt.Errorf("initdb of PostgreSQL %d: %w: %s", c.bin.major, err, tail(string(out)))
	}
	if err := os.Rename(making, "data"); err != nil {
		return err
	}
	dir, err := os.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
