//go:build unix

package devpg

import (
	"os"
	"path/filepath"
	"testing"
)

// asRoot skips the test unless root runs it: it starts processes as other users.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process as another user")
	}
}

func TestRootsServerRunsAsTheUserWhoCalledSudo(t *testing.T) {
	t.Parallel()
	asRoot(t)
	dir := freshDir(t, nil)
	sudo := run(t, nil, dir, "SUDO_UID=65534", "SUDO_GID=65534")
	remember(t, sudo.URL, "word")
	sudo.close(t)
	plain := run(t, nil, dir)
	wantWords(t, plain.URL, "word")
	plain.close(t)
	if who, err := ownerOf(filepath.Join(plain.Dir, "data")); err != nil || who != *ordinary(t) {
		t.Errorf("the data belongs to %v (%v)", who, err)
	}
	self := run(t, ordinary(t), dir)
	wantWords(t, self.URL, "word")
	self.close(t)
}

func TestRootsDatabaseMovesWhenItsUserCannotEnterTheDirectory(t *testing.T) {
	t.Parallel()
	asRoot(t)
	closed := freshDir(t, nil)
	must(t, os.Chmod(closed, 0o700))
	dir := filepath.Join(closed, "app", ".keyway")
	first := run(t, nil, dir)
	t.Cleanup(func() { must(t, os.RemoveAll(filepath.Dir(first.Dir))) })
	wantText(t, first.Dir, rootDir+"/keyway-")
	wantText(t, first.progress[0], first.Dir, "cannot enter "+dir)
	remember(t, first.URL, "word")
	first.close(t)
	second := run(t, nil, dir)
	wantWords(t, second.URL, "word")
	second.close(t)

	must(t, os.Mkdir(filepath.Join(dir, "pg"), 0o700))
	wantText(t, refused(t, nil, dir), "cannot enter", "chmod o+x")
}

func TestAUserWithoutPasswdEntryIsReported(t *testing.T) {
	t.Parallel()
	asRoot(t)
	who, err := parseAccount("54321", "54321")
	must(t, err)
	wantText(t, refused(t, &who, freshDir(t, &who)), "uid 54321 has no entry in /etc/passwd", "run as another user")
	t.Cleanup(func() { must(t, os.RemoveAll(rootDir+"/postgresql-54321")) })
	wantText(t, refused(t, nil, freshDir(t, nil), "SUDO_UID=54321", "SUDO_GID=54321"),
		"uid 54321 has no entry in /etc/passwd")
}

func TestADatabaseOfAnotherUserIsReported(t *testing.T) {
	t.Parallel()
	asRoot(t)
	dir := freshDir(t, nil)
	s := start(t, dir)
	wantText(t, refused(t, ordinary(t), dir), s.Dir+" belongs to uid", "choose another directory")
}

func TestReachesReadsTheModeBits(t *testing.T) {
	t.Parallel()
	self, err := ownerOf(t.TempDir())
	must(t, err)
	other, group := account{self.uid + 1, self.gid + 1}, account{self.uid + 1, self.gid}
	for mode, want := range map[os.FileMode][3]bool{
		0o755: {true, true, true},
		0o701: {true, false, true},
		0o710: {true, true, false},
		0o700: {true, false, false},
		0o077: {false, true, true},
	} {
		dir := freshDir(t, nil)
		inner := filepath.Join(dir, "inner")
		must(t, os.Mkdir(inner, 0o755))
		must(t, os.Chmod(dir, mode))
		if got := [3]bool{self.reaches(dir), group.reaches(dir), other.reaches(dir)}; got != want {
			t.Errorf("%v: owner, group, others reach it: %v, want %v", mode, got, want)
		}
		if os.Geteuid() == 0 && other.reaches(inner) != want[2] {
			t.Errorf("%v: a directory below it is reached: %v, want %v", mode, !want[2], want[2])
		}
		must(t, os.Chmod(dir, 0o700))
	}
	if self.reaches("/no/such/directory") {
		t.Error("a missing directory is reached")
	}
}
