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

// cluster is a data directory (PostgreSQL calls it a cluster) with the binaries that
// serve it.
type cluster struct {
	*holder
	bin binaries
	// password is that of the superuser keyway. Every program of this machine can
	// connect to the port, so trust authentication would open the database to all users.
	password string
}

// dataMajor returns the major version of PostgreSQL that made the data, or 0 if there
// is no data yet. A server reads the data of its own major version only. Data without a
// valid version is an error and is never replaced: it may hold the user's rows.
func dataMajor() (int, error) {
	names, err := os.ReadDir("data")
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0 {
		return 0, nil
	}
	text, err := os.ReadFile("data/PG_VERSION")
	major, _ := strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
	// The library compares the whole text and deletes the data if it differs, so a file
	// that only looks similar must not pass here.
	if string(text) != fmt.Sprintf("%d\n", major) {
		if err == nil {
			err = fmt.Errorf("PG_VERSION is %q", text)
		}
		return 0, fmt.Errorf("not a complete PostgreSQL data directory; repair it or move it away: %w", err)
	}
	return major, nil
}

// prepare creates the cluster if fresh is set; otherwise it stops the server of a holder
// that was killed. It also removes what an interrupted creation left.
func (c *cluster) prepare(ctx context.Context, fresh bool) error {
	unfinished, _ := filepath.Glob("data.making-*")
	for _, dir := range unfinished {
		_ = os.RemoveAll(dir) // if it fails, the next start tries again
	}
	text, err := os.ReadFile("password")
	c.password = strings.TrimSpace(string(text))
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case !fresh && c.password == "":
		return fmt.Errorf("%s/password is missing or empty; restore it, or move data away to begin a new database", c.Dir)
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

// create runs initdb in a directory of another name and then renames it, so that data
// is complete whenever it exists. The other name is new each time, because the initdb of
// a killed holder may still be running, and removes its directory when it fails.
//
// The sync at the end makes the rename itself survive a power cut.
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
	for _, locale := range []string{"C.UTF-8", "C"} { // macOS and older systems lack the first
		initdb := exec.CommandContext(ctx, filepath.Join(c.bin.dir, "initdb"), append(args, "--locale="+locale)...)
		initdb.Cancel = func() error { return initdb.Process.Signal(syscall.SIGTERM) }
		if out, err = initdb.CombinedOutput(); err == nil {
			break
		}
	}
	if strings.Contains(string(out), "could not look up effective user ID") {
		return fmt.Errorf("uid %d has no entry in /etc/passwd and PostgreSQL insists on one; add it or run as another user",
			os.Geteuid())
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
