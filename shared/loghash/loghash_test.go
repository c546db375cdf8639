package loghash_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/shared/loghash"
)

const one, two = "the first key of the tests of 40 bytes", "the second key of the tests of 41 bytes"

func keys(t *testing.T, text string) loghash.Keys {
	t.Helper()
	k, err := loghash.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// spaces replaces the spaces of a key, which would separate two.
func spaces(key string) string { return strings.ReplaceAll(key, " ", "_") }

func TestAHashDependsOnKeyKindIssuerAndName(t *testing.T) {
	t.Parallel()
	a, b := keys(t, spaces(one)), keys(t, spaces(two))
	seen := map[string]string{}
	for _, key := range []loghash.Keys{a, b} {
		hashes := map[string]string{"a session": key.Hash("session", "ann"), "an owner": key.Hash("owner", "ann")}
		for _, who := range [][2]string{{"i", "ann"}, {"i", "bob"}, {"j", "ann"}, {"", "iann"}, {"ia", "nn"}, {"", ""}} {
			hashes[fmt.Sprintf("%q", who)] = key.Subject(who[0], who[1])
		}
		for what, h := range hashes {
			if other, ok := seen[h]; ok || len(h) != 16 {
				t.Errorf("%s has the hash %s, as %s", what, h, other)
			}
			seen[h] = what
		}
	}
	if a.Subject("i", "ann") != keys(t, spaces(one)).Subject("i", "ann") {
		t.Error("the same caller has two hashes")
	}
}

// A reader who has only the log must not find a name by trying likely ones.
func TestAHashCannotBeMadeWithoutItsKey(t *testing.T) {
	t.Parallel()
	plain := sha256.Sum256([]byte("\x00ann@example.com"))
	if h := keys(t, spaces(one)).Subject("", "ann@example.com"); h == hex.EncodeToString(plain[:8]) {
		t.Error("the hash is that of the name alone")
	}
	if h := (loghash.Keys{}).Subject("", "ann@example.com"); h != "" {
		t.Errorf("without a key the hash is %s", h)
	}
}

// After a change of the key, earlier lines must still be found, those of earlier releases included.
func TestASearchKnowsEarlierKeys(t *testing.T) {
	t.Parallel()
	before := keys(t, spaces(one))
	after := keys(t, spaces(two)+","+spaces(one))
	if after.Subject("i", "ann") == before.Subject("i", "ann") || after.Subject("i", "ann") != keys(t,
		spaces(two)).Subject("i", "ann") {
		t.Error("the first key does not make the hashes")
	}
	all := after.Subjects("i", "ann")
	plain := sha256.Sum256([]byte("i\x00ann"))
	for _, h := range []string{before.Subject("i", "ann"), after.Subject("i", "ann"), hex.EncodeToString(plain[:8])} {
		if !slices.Contains(all, h) {
			t.Errorf("%s is not found among %v", h, all)
		}
	}
	if !slices.Contains(after.All("session", "s"), before.Hash("session", "s")) {
		t.Error("the hash of a session by the earlier key is not found")
	}
}

func TestAKeyIsMadeOnceForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "data")
	if k, err := loghash.Stored(dir); err != nil || len(k) != 0 {
		t.Errorf("%v, %v", k, err)
	}
	made := make(chan string, 8)
	var all sync.WaitGroup
	for range cap(made) {
		all.Go(func() {
			k, err := loghash.FromDir(dir)
			if err != nil || len(k) != 1 {
				t.Error(err)
				return
			}
			made <- k[0]
		})
	}
	all.Wait()
	close(made)
	first := <-made
	for k := range made {
		if k != first || len(k) != 64 {
			t.Error("two servers have two keys")
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "log.key" {
		t.Fatalf("%v, %v", files, err)
	}
	if info, err := files[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestAShortKeyIsRejectedWithoutItsText(t *testing.T) {
	t.Parallel()
	_, err := loghash.Parse(spaces(one) + " tiny-secret")
	if err == nil || !strings.Contains(err.Error(), "LOG_HASH_KEY: key 2 of 2 has fewer than 32") ||
		strings.Contains(err.Error(), "tiny-secret") {
		t.Error(err)
	}
}
