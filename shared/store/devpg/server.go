package devpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// parameters hold no path: pg_ctl hands them, and the data directory, to a shell.
var parameters = map[string]string{
	"listen_addresses":        "127.0.0.1",
	"unix_socket_directories": "",
	"logging_collector":       "on",
	"log_directory":           "..",
	"log_filename":            "pg.log",
}

// hasty gives up what only a power cut needs.
var hasty = map[string]string{"fsync": "off", "full_page_writes": "off"}

// passing are complaints of a start that the next try may not meet: the port was
// taken in between, or processes of a killed server are still on their way out.
var passing = []string{"already listening", "Address already in use", "shared memory block"}

// start returns the URL once the database answers.
func (c *cluster) start(ctx context.Context) (url string, err error) {
	if err := c.tidy(); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	release := context.AfterFunc(ctx, func() { _ = c.stop() }) // a recovery may take minutes
	defer release()
	for range 5 {
		url, err = c.try(ctx)
		if ctx.Err() != nil || err == nil {
			return url, ctx.Err()
		}
		if !slices.ContainsFunc(passing, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			break
		}
		sleep(ctx, 200*time.Millisecond)
	}
	return "", err
}

// tidy makes room for the library's droppings and cuts a large log.
func (c *cluster) tidy() error {
	tmp := filepath.Join(c.Dir, "tmp")
	if log, err := os.Stat("pg.log"); err == nil && log.Size() > 10<<20 {
		if err := os.Truncate("pg.log", 0); err != nil {
			return err
		}
	}
	// The library deletes a data directory whose version it does not like, and
	// makes a new one. dataMajor saw to that; should they ever disagree, it
	// deletes this link, and makes nothing for want of the locale "none".
	return errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700), os.Setenv("TMPDIR", tmp), os.Symlink("../data", "tmp/data"))
}

// try starts the server on a free port.
func (c *cluster) try(ctx context.Context) (url string, err error) {
	var before int64
	if info, err := os.Stat("pg.log"); err == nil {
		before = info.Size()
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	settings := maps.Clone(parameters)
	if !c.Durable {
		maps.Copy(settings, hasty)
	}
	err = embedded.NewDatabase(embedded.DefaultConfig().
		Version(embedded.PostgresVersion(strconv.Itoa(c.bin.major))).BinariesPath(filepath.Dir(c.bin.dir)).
		DataPath("tmp/data").Locale("none").RuntimePath("tmp/run").Port(port).StartParameters(settings).
		Username("keyway").Password(c.password).StartTimeout(time.Minute).Logger(nil)).Start()
	if err == nil {
		url = fmt.Sprintf("postgres://keyway:%s@127.0.0.1:%d/keyway?sslmode=disable", c.password, port)
		err = ensureDatabase(ctx, url)
	}
	if err == nil {
		return url, nil
	}
	said := err.Error()
	if _, rest, ok := strings.Cut(said, ":\n"); ok { // before it stands pg_ctl's long command line
		said = rest
	}
	log, _ := os.ReadFile("pg.log")
	return "", fmt.Errorf("PostgreSQL %d does not start: %s", c.bin.major, tail(said+"\n"+string(log[min(before, int64(len(log))):])))
}

// ensureDatabase makes the database that url names, if need be.
func ensureDatabase(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "3D000" { // invalid_catalog_name
		conn, err = pgx.Connect(ctx, strings.Replace(url, "/keyway?", "/postgres?", 1))
		if err == nil {
			_, err = conn.Exec(ctx, "CREATE DATABASE keyway")
		}
	}
	if conn != nil {
		err = errors.Join(err, conn.Close(ctx))
	}
	return err
}

// stop ends the server, rolling back what is open, if there is one.
func (c *cluster) stop() error {
	if _, err := os.Stat("data/postmaster.pid"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	out, err := exec.CommandContext(context.Background(), filepath.Join(c.bin.dir, "pg_ctl"), "stop", "-w", "-m", "fast", "-D", "data").CombinedOutput()
	if err != nil && postmaster() != 0 {
		return fmt.Errorf("stop PostgreSQL: %w: %s", err, tail(string(out)))
	}
	return nil
}

// evict ends the server that a killed holder left behind and clears its traces.
func (c *cluster) evict(ctx context.Context) error {
	data, err := filepath.EvalSymlinks(filepath.Join(c.Dir, "data"))
	if err != nil {
		return err
	}
	pid := postmaster()
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		comm, _ := exec.CommandContext(ctx, "ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output()
		if pid == 0 || !strings.Contains(string(comm), "postgres") {
			return nil
		}
		return c.stop()
	}
	var left []int
	for range 500 {
		if left = serversOf(data); len(left) == 0 {
			return dropPIDFile(pid)
		}
		if slices.Contains(left, pid) {
			c.progress("stopping the PostgreSQL (pid %d) that a killed program left in %s", pid, c.Dir)
			if err := c.stop(); err != nil {
				return err
			}
		} else if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	return fmt.Errorf("PostgreSQL processes %v still use %s; end them", left, data)
}

// dropPIDFile removes the file of a postmaster that is gone while its pid is
// not: a zombie nobody reaps, or a stranger. PostgreSQL would take either for
// its own server and refuse to start.
func dropPIDFile(pid int) error {
	if p, err := os.FindProcess(pid); pid == 0 || err != nil || p.Signal(syscall.Signal(0)) != nil {
		return nil
	}
	return os.RemoveAll("data/postmaster.pid")
}

// serversOf lists the PostgreSQL processes that work in data. Linux only.
func serversOf(data string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		dir := filepath.Dir(link)
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		if cwd, err := os.Readlink(link); err == nil && cwd == data && string(comm) == "postgres\n" {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// postmaster is the pid in postmaster.pid, 0 without one.
func postmaster() int {
	text, _ := os.ReadFile("data/postmaster.pid")
	line, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(line)
	return max(pid, 0)
}

func freePort() (uint32, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return uint32(l.Addr().(*net.TCPAddr).Port), l.Close()
}

// tail is the end of a log, short enough for an error.
func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
