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

// parameters are the server's settings. It listens on the loopback address only, and on
// no Unix socket, since the path of one may be too long (107 bytes on Linux). None of
// the values may hold a path that a user chose: pg_ctl passes them to a shell.
var parameters = map[string]string{
	"listen_addresses":        "127.0.0.1",
	"unix_socket_directories": "",
	"logging_collector":       "on",
	"log_directory":           "..",
	"log_filename":            "pg.log",
	// The details of an error and the failed statement may hold what a caller sent.
	"log_error_verbosity":     "terse",
	"log_min_error_statement": "panic",
}

// notDurable are settings for tests. They lose rows only if the machine loses power or
// its kernel crashes; a killed server loses none. See "Non-Durable Settings" in
// PostgreSQL's documentation.
var notDurable = map[string]string{"fsync": "off", "full_page_writes": "off"}

// transientStartErrors are parts of the errors after which another try is worthwhile:
// another program took the port between freePort and the start, or processes of a
// killed server have not ended yet and still hold its shared memory.
var transientStartErrors = []string{"already listening", "Address already in use", "shared memory block"}

// start starts the server, several times if need be, and returns the URL when the
// database answers. A server that did not come up in time is stopped.
func (c *cluster) start(ctx context.Context) (url string, err error) {
	if err := c.tidy(); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	// The recovery after a crash may take minutes; the end of ctx must not wait for it.
	release := context.AfterFunc(ctx, func() { _ = c.stop() })
	defer release()
	for n := range 5 {
		url, err = c.try(ctx, n > 0)
		if ctx.Err() != nil || err == nil {
			return url, ctx.Err()
		}
		if !slices.ContainsFunc(transientStartErrors, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			break
		}
		sleep(ctx, 200*time.Millisecond)
	}
	return "", err
}

// maxLog is the size at which a start empties pg.log.
const maxLog = 10 << 20

// tidy prepares the directory for a start: it empties a large log and makes an empty
// directory for the library's temporary files, with a link to the data in it.
//
// The link protects the data. The library deletes a data directory whose PG_VERSION is
// not the version that it expects, and runs initdb again. dataMajor has checked that
// the two agree. Should they ever disagree, the library deletes the link and not the
// data, and its initdb fails, because the locale "none" does not exist.
func (c *cluster) tidy() error {
	tmp := filepath.Join(c.Dir, "tmp")
	if log, err := os.Stat("pg.log"); err == nil && log.Size() > maxLog {
		if err := os.Truncate("pg.log", 0); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700), os.Setenv("TMPDIR", tmp),
		os.Symlink("../data", "tmp/data"))
}

// try starts the server once, and makes the database in it. The port is that of the job, or the last one, or with again
// a free one. The error ends with what the server wrote to its log during this try.
func (c *cluster) try(ctx context.Context, again bool) (url string, err error) {
	// The log is appended to, so an error must not show lines of an earlier start.
	var before int64
	if info, err := os.Stat("pg.log"); err == nil {
		before = info.Size()
	}
	port := c.Port
	if port == 0 {
		if port, err = freePort(); err != nil {
			return "", err
		}
		// Programs that shared the last server wait for it at its address.
		if last := lastPort(); last != 0 && !again {
			port = last
		}
	}
	settings := maps.Clone(parameters)
	if !c.Durable {
		maps.Copy(settings, notDurable)
	}
	// The library's Start runs pg_ctl, which waits until the server is ready. Then it tries to
	// connect until StartTimeout, also if the server was stopped meanwhile because ctx has
	// ended; so that time is short. It runs no initdb, since the data directory exists.
	err = embedded.NewDatabase(embedded.DefaultConfig().
		Version(embedded.PostgresVersion(strconv.Itoa(c.bin.major))).BinariesPath(filepath.Dir(c.bin.dir)).
		DataPath("tmp/data").Locale("none").RuntimePath("tmp/run").Port(port).StartParameters(settings).
		Username("keyway").Password(c.password).StartTimeout(10 * time.Second).Logger(nil)).Start()
	if err == nil {
		url = fmt.Sprintf("postgres://keyway:%s@127.0.0.1:%d/keyway?sslmode=disable", c.password, port)
		err = ensureDatabase(ctx, url)
	}
	if err == nil {
		return url, os.WriteFile("port", []byte(strconv.Itoa(int(port))), 0o600)
	}
	problem := err.Error()
	if _, rest, ok := strings.Cut(problem, ":\n"); ok { // the first line is pg_ctl's command line
		problem = rest
	}
	log, _ := os.ReadFile("pg.log")
	problem += "\n" + string(log[min(before, int64(len(log))):])
	return "", fmt.Errorf("PostgreSQL %d does not start: %s", c.bin.major, tail(problem))
}

// ensureDatabase creates the database that url names if it does not exist.
func ensureDatabase(ctx context.Context, url string) error {
	// CREATE DATABASE has no IF NOT EXISTS. Only the owner of the directory is here, so
	// nobody else creates it at the same time.
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

// stop stops the server if one runs. Open transactions are rolled back and not waited
// for ("fast" mode): a forgotten psql must not keep the program from ending.
func (c *cluster) stop() error {
	if _, err := os.Stat("data/postmaster.pid"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	out, err := exec.CommandContext(context.Background(), filepath.Join(c.bin.dir, "pg_ctl"),
		"stop", "-w", "-m", "fast", "-D", "data").CombinedOutput()
	// pg_ctl fails if the server ended by itself in between, which is what was wanted.
	if err != nil && postmaster() != 0 {
		return fmt.Errorf("stop PostgreSQL: %w: %s", err, tail(string(out)))
	}
	return nil
}

// evict stops the server of a holder that was killed, and removes its PID file.
//
// On Linux it looks for PostgreSQL processes in the data directory, since the file alone
// proves nothing: its PID may belong to another process by now, and backends may
// outlive the postmaster. Elsewhere it asks ps whether the PID is a PostgreSQL.
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
	return fmt.Errorf("PostgreSQL processes %v still use %s; stop them with kill -INT", left, data)
}

// dropPIDFile removes postmaster.pid if its server has ended but a process with its PID
// exists: a zombie that its parent has not waited for, or an unrelated process.
// PostgreSQL would mistake either for a running server and refuse to start. If no such
// process exists, PostgreSQL removes the file itself.
func dropPIDFile(pid int) error {
	if p, err := os.FindProcess(pid); pid == 0 || err != nil || p.Signal(syscall.Signal(0)) != nil {
		return nil
	}
	return os.RemoveAll("data/postmaster.pid")
}

// serversOf returns the PIDs of the PostgreSQL processes whose working directory is
// data, as every process of a server has it. It needs Linux's /proc.
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

// postmaster returns the PID in postmaster.pid, or 0 if there is no such file.
func postmaster() int {
	text, _ := os.ReadFile("data/postmaster.pid")
	line, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(line)
	return max(pid, 0)
}

// lastPort returns the port of the last server, or 0.
func lastPort() uint32 {
	text, _ := os.ReadFile("port")
	port, _ := strconv.ParseUint(string(text), 10, 16)
	return uint32(port)
}

// freePort returns a port that was free a moment ago. Another program may take it first;
// then start tries again.
func freePort() (uint32, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return uint32(l.Addr().(*net.TCPAddr).Port), l.Close()
}

// tail returns the last 12 lines of a log, enough for an error message.
func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
