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

// rootDir is where root's databases and fetched binaries go that cannot live elsewhere.
const rootDir = "/var/lib/keyway"

// account is whom the server runs as.
type account struct{ uid, gid uint32 }

// findPlace makes the directory for dir's database and decides whom it belongs to.
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
		return place{}, fmt.Errorf("%s belongs to uid %d; run as that user or root, or choose another directory", p.dir, owner.uid)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = p.dir // no home: the binaries stay with the data
	}
	p.cache = filepath.Join(cache, "keyway", "postgresql")
	return p, nil
}

// rootPlace is findPlace for root, whose server has to run as somebody else.
func rootPlace(dir string) (place, error) {
	p := place{dir: filepath.Join(dir, "pg")}
	who, err := serverAccount(p.dir)
	if err != nil {
		return place{}, err
	}
	if !who.reaches(dir) {
		if _, err := os.Lstat(p.dir); err == nil {
			// An empty database elsewhere would look like lost rows.
			return place{}, fmt.Errorf("uid %d, which owns the database, cannot enter %s; chmod o+x the directories above it", who.uid, dir)
		}
		name := strings.TrimLeft(filepath.Base(dir), ".")
		dir = filepath.Join(rootDir, fmt.Sprintf("%s-%.4x", name, sha256.Sum256([]byte(dir))))
		p.note = fmt.Sprintf("the database is kept in %s/pg: its user (uid %d) cannot enter %s", dir, who.uid, p.dir)
		p.dir = filepath.Join(dir, "pg")
		if who, err = serverAccount(p.dir); err != nil {
			return place{}, err
		}
	}
	// One cache for each user: nobody runs binaries that another could swap.
	p.cache = filepath.Join(rootDir, fmt.Sprintf("postgresql-%d", who.uid))
	p.attr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid}}
	return p, errors.Join(makeOpen(rootDir), makeOpen(dir), who.give(p.dir), who.give(p.cache))
}

// serverAccount is whom root runs the server as: the owner of a database that
// exists, else the user behind sudo, else postgres, else nobody.
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
	return account{}, errors.New("PostgreSQL refuses to run as root and this machine has no user postgres or nobody; run as an ordinary user")
}

func parseAccount(uid, gid string) (account, error) {
	u, err1 := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	return account{uint32(u), uint32(g)}, cmp.Or(err1, err2)
}

func ownerOf(path string) (account, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return account{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return account{stat.Uid, stat.Gid}, nil
}

// reaches reports whether a may enter dir and everything above it, by the mode bits.
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

// give makes dir, closed to others, and hands it to a. One that exists changes
// hands only from root: then a start was cut short in between.
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

// makeOpen makes dir, if it is absent, so that others may pass whatever the umask.
func makeOpen(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755))
}
