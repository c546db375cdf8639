//go:build unix

package devpg

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeBin makes a bin directory of programs that print a version and fail otherwise.
func fakeBin(t *testing.T, major int) string {
	t.Helper()
	bin := filepath.Join(freshDir(t, nil), "bin")
	must(t, os.Mkdir(bin, 0o755))
	for _, name := range []string{"initdb", "pg_ctl", "postgres"} {
		script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) %d.1'\n", major)
		must(t, os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755)) //nolint:gosec // a program
	}
	return bin
}

// listing returns every file below dir with its size and modification time.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files[path] = fmt.Sprint(info.Size(), info.ModTime())
		}
		return err
	}))
	return files
}

func TestADatabaseThatCannotStartIsReportedAndNotChanged(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	s, err := Start(t.Context(), Options{Dir: dir})
	must(t, err)
	remember(t, s.URL, "word")
	must(t, s.Close())
	add := func(line string) func(string) string { return func(old string) string { return old + line } }
	empty := func(string) string { return "" }
	for _, row := range []struct {
		name, file string
		change     func(string) string
		env        string
		want       []string
	}{
		{name: "another major is forced", file: "data/PG_VERSION", change: add(""), env: "KEYWAY_POSTGRES=" + fakeBin(t, 99),
			want: []string{s.Dir + " needs PostgreSQL 1", "is PostgreSQL 99", "unset the variable"}},
		{name: "its major version can't be fetched", file: "data/PG_VERSION", change: func(string) string { return "9\n" },
			want: []string{"needs PostgreSQL 9", "this machine has", "cannot be fetched", "install it"}},
		{name: "its version is missing", file: "data/PG_VERSION", change: empty,
			want: []string{s.Dir + "/data", "move it away"}},
		{name: "its version has a leading zero", file: "data/PG_VERSION",
			change: func(old string) string { return "0" + old },
			want:   []string{s.Dir + "/data", "move it away"}},
		{name: "the password is missing", file: "password", change: empty, want: []string{"password is missing", "restore"}},
		{name: "a setting is wrong", file: "data/postgresql.conf", change: add("\nno_such_setting = 1\n"),
			want: []string{"does not start", "no_such_setting"}},
		{name: "a file is damaged", file: "data/global/pg_control",
			change: func(old string) string { return strings.Repeat("\x00", len(old)) },
			want:   []string{"does not start", "incompatible with server"}},
	} {
		t.Run(row.name, func(t *testing.T) { //nolint:paralleltest // one database, broken in one way at a time
			file := filepath.Join(s.Dir, row.file)
			old, err := os.ReadFile(file)
			must(t, err)
			must(t, os.WriteFile(file, []byte(row.change(string(old))), 0o600))
			defer func() { must(t, os.WriteFile(file, old, 0o600)) }()
			before := listing(t, filepath.Join(s.Dir, "data"))
			wantText(t, refused(t, nil, dir, row.env), row.want...)
			if diff := cmp.Diff(before, listing(t, filepath.Join(s.Dir, "data"))); diff != "" {
				t.Error(diff)
			}
		})
	}
	wantWords(t, start(t, dir).URL, "word")
}

func TestKeywayPostgresMustNameABinDirectory(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"/nowhere":     "not the absolute path of a directory named bin",
		"bin":          "not the absolute path of a directory named bin",
		"/nowhere/bin": "no such file",
	} {
		wantText(t, refused(t, nil, freshDir(t, nil), "KEYWAY_POSTGRES="+value), "KEYWAY_POSTGRES: ", want)
	}
}

func TestAForcedBinDirectoryIsUsed(t *testing.T) {
	t.Parallel()
	p := launch(t, nil, freshDir(t, nil), "KEYWAY_POSTGRES="+fakeBin(t, 77))
	wantText(t, p.settled(t).Error(), "initdb of PostgreSQL ")
	wantText(t, p.progress[0], "with PostgreSQL 77")
}

func TestTheNewestCompleteInstallationIsChosen(t *testing.T) {
	t.Parallel()
	whole, links, half := fakeBin(t, 98), filepath.Join(freshDir(t, nil), "local"), fakeBin(t, 99)
	must(t, os.Remove(filepath.Join(half, "initdb")))
	must(t, os.Mkdir(links, 0o755))
	must(t, os.Symlink(filepath.Join(whole, "pg_ctl"), filepath.Join(links, "pg_ctl")))
	for _, path := range []string{links + ":" + half, links} {
		p := launch(t, nil, freshDir(t, nil), "PATH="+path+":/usr/bin:/bin")
		wantText(t, p.settled(t).Error(), "initdb of PostgreSQL ")
		wantText(t, p.progress[0], "with PostgreSQL 98")
	}
}
