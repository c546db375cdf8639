//go:build unix

package devpg

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// rootDir holds the binaries that root's holders fetch, and the databases whose directory
// the server's user cannot enter.
const rootDir = "/var/lib/keyway"

// account is a user and its main group: the one that the server runs as.
type account struct{ uid, gid uint32 }

// findPlace creates the directory of a database below dir and decides which user owns
// it. An ordinary user owns it itself. For root, see rootPlace.
func findPlace(dir string) (place, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(abs, 0o755)
	}
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return place{}, err
	}
	if os.Geteuid() == 0 {
		return rootPlace(abs)
	}
	p := place{dir: filepath.Join(abs, "pg"), attr: &syscall.SysProcAttr{Setpgid: true}}
	if err := os.Mkdir(p.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return place{}, err
	}
	if owner, err := ownerOf(p.dir); err != nil {
		return place{}, err
	} else if owner.uid != uint32(os.Geteuid()) {
		return place{}, fmt.Errorf("%s belongs to uid %d; run as that user or root, or choose another directory",
			p.dir, owner.uid)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = p.dir // a user without a home directory keeps the binaries with the data
	}
	p.cache = filepath.Join(cache, "keyway", "postgresql")
	return p, nil
}

// rootPlace is findPlace for root. PostgreSQL refuses to run as root, so the server runs
// as another user, which must be able to enter every directory above the database. If it
// can't, a new database goes below rootDir, into a directory whose name holds a hash of
// dir: the same dir finds the same database again. An existing database is never
// replaced that way, since an empty one would look like lost rows.
func rootPlace(dir string) (place, error) {
	p := place{dir: filepath.Join(dir, "pg")}
	who, err := serverAccount(p.dir)
	if err != nil {
		return place{}, err
	}
	if !who.reaches(dir) {
		if _, err := os.Lstat(p.dir); err == nil {
			return place{}, fmt.Errorf("uid %d, which owns the database, cannot enter %s; chmod o+x the directories above it",
				who.uid, dir)
		}
		dir = elsewhere(dir)
		p.note = fmt.Sprintf("the database is kept in %s/pg: its user (uid %d) cannot enter %s", dir, who.uid, p.dir)
		p.dir = filepath.Join(dir, "pg")
		if who, err = serverAccount(p.dir); err != nil {
			return place{}, err
		}
	}
	// Each user has a cache of its own: nobody runs binaries that another user can replace.
	p.cache = filepath.Join(rootDir, fmt.Sprintf("postgresql-%d", who.uid))
	p.attr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid}}
	return p, errors.Join(makeOpen(rootDir), makeOpen(dir), who.give(p.dir), who.give(p.cache))
}

// elsewhere returns the directory below rootDir for a database whose own one its user cannot enter.
func elsewhere(dir string) string {
	name := strings.TrimLeft(filepath.Base(dir), ".")
	return filepath.Join(rootDir, fmt.Sprintf("%s-%.4x", name, sha256.Sum256([]byte(dir))))
}

// serverAccount returns the user that root runs the server as: the owner of the database
// in dir if it exists, else the user who called sudo, else postgres, else nobody.
func serverAccount(dir string) (account, error) {
	if owner, err := ownerOf(dir); err == nil && owner.uid != 0 {
		return owner, nil
	}
	if who, err := parseAccount(os.Getenv("SUDO_UID"), os.Getenv("SUDO_GID")); err == nil && who.uid != 0 {
		return who, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return parseAccount(u.Uid, u.Gid)
		}
	}
	return account{}, errors.New("PostgreSQL refuses to run as root and this machine has no user postgres or nobody; " +
		"run as an ordinary user")
}

// parseAccount parses numeric IDs, as os/user and sudo give them.
func parseAccount(uid, gid string) (account, error) {
	u, err1 := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	return account{uint32(u), uint32(g)}, cmp.Or(err1, err2)
}

// ownerOf returns the owner of a file or directory; it does not follow a link.
func ownerOf(path string) (account, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return account{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return account{stat.Uid, stat.Gid}, nil
}

// reaches reports whether the account can enter dir and every directory above it. It
// reads the mode bits and knows neither further groups nor ACLs; with those it answers
// no too often, and the database moves to rootDir without need.
func (a account) reaches(dir string) bool {
	info, err := os.Stat(dir)
	owner, err2 := ownerOf(dir)
	if err != nil || err2 != nil {
		return false
	}
	bit := fs.FileMode(0o001)
	switch {
	case owner.uid == a.uid:
		bit = 0o100
	case owner.gid == a.gid:
		bit = 0o010
	}
	return info.Mode()&bit != 0 && (dir == filepath.Dir(dir) || a.reaches(filepath.Dir(dir)))
}

// give creates dir, closed to other users, and makes a its owner. An existing directory
// changes its owner only if it belongs to root: a start was interrupted between the two
// steps then.
func (a account) give(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	owner, err := ownerOf(dir)
	if err == nil && owner.uid == 0 {
		err = os.Lchown(dir, int(a.uid), int(a.gid))
	}
	return err
}

// makeOpen creates dir if it does not exist. Other users can pass through it, whatever
// the umask of this process.
func makeOpen(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755))
}
