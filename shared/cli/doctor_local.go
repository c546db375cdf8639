package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/gateway"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/devpg"
)

// database checks the database as keyway serve uses it, and changes nothing.
func (x *examination) database(ctx context.Context, f *findings) {
	address, remedy := string(x.cfg.Database.URL), "check database.url (or DATABASE_URL)"
	switch {
	case address == "" && (x.cfg.Database.Secret != "" || x.cfg.Database.IAM):
		f.warning("url", "set DATABASE_URL to check it from here", "the address or its password is read on AWS only")
		return
	case address == "":
		if address = devpg.Running(ctx, x.cli.Data); address == "" {
			f.ok("embedded", "the embedded database does not run; keyway serve starts it, and it was not checked")
			return
		}
		f.ok("embedded", "the embedded database runs")
		remedy = "see pg.log below --data"
	}
	db, err := store.Open(store.Options{URL: address, Schema: x.cfg.Database.Schema, LeaseConns: leaseConns})
	if err != nil {
		f.failed("url", err, remedy)
		return
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	found, err := db.Probe(ctx)
	if err != nil {
		f.failed("server", err, remedy)
		return
	}
	transport := "without TLS"
	if found.TLS != "" {
		transport = "with " + found.TLS
	}
	if found.Pooler {
		transport += ", behind a pooler"
	}
	f.ok("server", "PostgreSQL %d.%d, %s", found.Version/10_000, found.Version%10_000, transport)
	if found.Exposed {
		f.warning("tls", "switch TLS on there, or accept it with sslmode=disable in database.url",
			"the database is on another machine and has no TLS, so others may read along")
	}
	if found.Version < oldestSupported {
		f.warning("version", "upgrade PostgreSQL", "it is PostgreSQL %d, and Keyway is meant for %d and later",
			found.Version/10_000, oldestSupported/10_000)
	}
	x.tables(ctx, db, f)
}

// tables checks the schema, the rights of the role, and what the tables show.
func (x *examination) tables(ctx context.Context, db *store.DB, f *findings) {
	s, err := db.Server(ctx)
	if err != nil {
		f.failed("rights", err, "check the role of database.url")
		return
	}
	grant := "set DATABASE_ROLE to the role and run keyway migrate as the owner of the schema"
	if s.Exists && !s.Enters {
		f.fault("rights", grant, "the role may not use the schema %s", x.cfg.Database.Schema)
		return
	}
	if len(s.Missing) > 0 {
		f.fault("rights", grant, "the role lacks rights: %s", strings.Join(s.Missing, "; "))
	}
	if err := db.Check(ctx); err != nil {
		if len(s.Missing) == 0 {
			f.failed("schema", store.AtStart(err), "run keyway migrate")
		}
	} else {
		f.ok("schema", "%s fits this Keyway, which needs version %d", x.cfg.Database.Schema, store.SchemaVersion)
		x.backlog(ctx, db, s, f)
	}
	const wanted = 16 + leaseConns // what one keyway serve opens at most
	if free := s.MaxConns - s.UsedConns; free < wanted {
		f.warning("connections", "raise max_connections, lower pool_max_conns in database.url, or use a pooler",
			"%d of %d are free, and one keyway serve opens up to %d", max(free, 0), s.MaxConns, wanted)
	} else {
		f.ok("connections", "%d of %d are free", free, s.MaxConns)
	}
}

// lateAfter is how long a run may wait for a process until that is a warning.
const lateAfter = time.Minute

// backlog checks whether processes execute the runs that wait.
func (x *examination) backlog(ctx context.Context, db *store.DB, s store.Server, f *findings) {
	if len(s.Missing) > 0 {
		return
	}
	f.ok("rights", "the role can read and write all tables")
	b, err := db.Backlog(ctx)
	switch {
	case err != nil:
		f.failed("runs", err, "repeat the command")
	case b.OldestWait > lateAfter:
		f.warning("waiting", "start a keyway serve on this database, or more of them",
			"waiting for a process: %s, the oldest for %s", counted(b.Waiting, "run"), b.OldestWait.Round(time.Second))
	default:
		f.ok("waiting", "waiting for a process: %s", counted(b.Waiting, "run"))
	}
	switch {
	case err != nil:
	case b.OldestLoss > lateAfter:
		f.warning("orphaned", "start a keyway serve on this database: it continues them",
			"without their process: %s, the oldest for %s", counted(b.Orphaned, "run"), b.OldestLoss.Round(time.Second))
	default:
		f.ok("orphaned", "without their process: %s", counted(b.Orphaned, "run"))
	}
}

// origins checks which web pages can call this OS.
func (x *examination) origins(_ context.Context, f *findings) {
	if len(x.cfg.CORS.Origins) == 0 {
		f.ok("origins", "no page of another origin can call this OS; with serve --dev, AgentOS's web interface can")
	}
	for _, origin := range x.cfg.CORS.Origins {
		u, err := url.Parse(origin)
		if err == nil && (u.Hostname() == "localhost" || gateway.IsLoopback(u.Hostname())) {
			f.warning(origin, "leave it out of cors.origins in production",
				"any program on a caller's own machine can serve pages of this origin")
			continue
		}
		f.ok(origin, "its pages can call this OS")
	}
}

// doors checks how callers reach this OS, and what bounds what they use and what is kept.
func (x *examination) doors(_ context.Context, f *findings) {
	host, _, err := net.SplitHostPort(x.Addr)
	switch {
	case err != nil:
		f.fault("addr", "write HOST:PORT", "--addr %s: %v", x.Addr, err)
	case x.TLSCert != "":
		x.certificate(f)
	case gateway.IsLoopback(host):
		f.ok("http", "%s: only this machine reaches it", x.Addr)
	default:
		f.warning("http", "use --tls-cert and --tls-key, or put TLS in front of it",
			"%s is plain HTTP: tokens and conversations can be read and changed on the network", x.Addr)
	}
	if keys := x.cfg.Forgeable(); len(keys) > 0 && err == nil && !gateway.IsLoopback(host) {
		f.fault("keys", keys[0].Remedy, "%s: %s", keys[0].Path, keys[0].Text)
	}
	if noLimits(x.cfg) != "" {
		f.warning("limits", `add limits: {"*": {concurrent_runs: 10, runs_per_minute: 60}} to auth`,
			"auth.limits is absent, so that one token can use all capacity")
	} else {
		f.ok("limits", "callers have limits")
	}
	if dataRetention(x.cfg.Retention) == (store.Retention{}) {
		f.warning("retention", "add retention: {runs: 90d, sessions: 365d} to the file", "all data is kept for ever")
	} else {
		f.ok("retention", "old data is deleted")
	}
	keys, err := x.readKeys()
	switch {
	case err != nil:
		f.failed("log_key", err, "set "+loghash.Variable+" to at least 32 random characters")
	case len(keys) == 0:
		f.warning("log_key", "set "+loghash.Variable+" for servers that share a log, or for AWS",
			"there is no key for the hashes in logs yet; keyway serve makes one below --data")
	default:
		f.ok("log_key", "logs have hashes of callers and objects")
	}
}

// certificate checks the files of --tls-cert and --tls-key.
func (x *examination) certificate(f *findings) {
	pair, err := tls.LoadX509KeyPair(x.TLSCert, x.TLSKey)
	if err != nil {
		f.fault("tls", "name the certificate with those that signed it, and its private key, both PEM", "%v", err)
		return
	}
	const soon = 14 * 24 * time.Hour
	left := pair.Leaf.NotAfter.Sub(x.now())
	day := pair.Leaf.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case left <= 0:
		f.fault("tls", "renew it", "the certificate has expired on %s", day)
	case x.now().Before(pair.Leaf.NotBefore):
		f.fault("tls", "check the clock of this machine, or use another certificate", "the certificate is not valid yet")
	case left < soon:
		f.warning("tls", "renew it", "the certificate expires on %s", day)
	default:
		f.ok("tls", "the certificate is valid until %s", day)
	}
}

// The space on the disk of --data below which doctor reports it.
const (
	littleSpace = 1 << 30
	noSpace     = 100 << 20
)

// logs checks whether logs can be written below --data, and who can read them.
func (x *examination) logs(_ context.Context, f *findings) {
	dir := x.cli.Data
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.ok("data", "%s does not exist yet; keyway serve makes it", dir)
		return
	case err != nil || !info.IsDir():
		f.fault("data", "make --data a directory that keyway can write to", "%s is no directory that can be read", dir)
		return
	}
	probe, err := os.CreateTemp(dir, "doctor.*")
	if err != nil {
		f.fault("data", "make --data a directory that keyway can write to, or free space", "%v", err)
	} else {
		_ = probe.Close()
		_ = os.Remove(probe.Name())
		f.ok("data", "%s can be written", dir)
	}
	if free, known := freeSpace(dir); known {
		text := fmt.Sprintf("%.1f GB are free", float64(free)/1e9)
		switch {
		case free < noSpace:
			f.fault("space", "free space on the disk of --data", "%s", text)
		case free < littleSpace:
			f.warning("space", "free space on the disk of --data", "%s", text)
		default:
			f.ok("space", "%s", text)
		}
	}
	x.modes(f, dir)
}

// modes checks that only the user of keyway can read what it writes below --data.
func (x *examination) modes(f *findings, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	open := 0
	for _, file := range files {
		info, err := os.Stat(file)
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			open++
			f.warning(filepath.Base(file), "chmod 600 "+file, "other users can read or write it: its mode is %#o",
				info.Mode().Perm())
		}
	}
	if open == 0 {
		f.ok("modes", "only this user can read the files in it")
	}
}
