// Package loghash makes the hashes that stand in logs for the names of callers, owners and objects. They are keyed, so
// that nobody without the key can find a name by trying likely ones. See docs/adr/0022.
package loghash

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Variable is the environment variable that has the keys.
const Variable = "LOG_HASH_KEY"

// Warning is what a program without a key logs at its start.
const Warning = "logs have no hashes of callers and objects, because " + Variable + " is not set"

// minKey is the length of the shortest key, in bytes. A key that is made has 64 hex digits.
const minKey = 32

// Keys are the keys of an OS. The first one makes the hashes, and the others are earlier keys, which only a search
// uses. The zero value makes no hash: a log then has nothing in the place of a name.
type Keys []string

// Parse reads keys that are separated by commas or white space. The error names no key.
func Parse(text string) (Keys, error) {
	keys := Keys(strings.FieldsFunc(text,
		func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' }))
	for i, k := range keys {
		if len(k) < minKey {
			return nil, fmt.Errorf("%s: key %d of %d has fewer than %d characters", Variable, i+1, len(keys), minKey)
		}
	}
	return keys, nil
}

// FromEnv reads the keys from the environment. There are none if the variable is not set or empty.
func FromEnv(lookup func(string) (string, bool)) (Keys, error) {
	text, _ := lookup(Variable)
	return Parse(text)
}

// fileName is the file below --data that has the keys, one in a line. New keys go in front.
const fileName = "log.key"

// FromDir reads the keys of a directory, and makes one if there is none. Two processes that do so at the same time
// get the same key.
func FromDir(dir string) (Keys, error) {
	name := filepath.Join(dir, fileName)
	keys, err := read(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// The file appears under its name only when it is complete.
	f, err := os.CreateTemp(dir, fileName+".*") // its mode is 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // It never returns an error.
	_, err = fmt.Fprintf(f, "%x\n", key)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return read(name)
}

// Stored reads the keys of a directory. There are none if it has no file of them.
func Stored(dir string) (Keys, error) {
	keys, err := read(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

func read(name string) (Keys, error) {
	data, err := os.ReadFile(name) // #nosec G304 -- the operator chooses --data
	if err != nil {
		return nil, err
	}
	keys, err := Parse(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return keys, nil
}

// Hash returns 16 hex digits for a name of a kind, such as "session", or "" without a key. The same name has different
// hashes for two kinds.
func (k Keys) Hash(kind, name string) string {
	if len(k) == 0 {
		return ""
	}
	return hash(k[0], kind, name)
}

// All returns what Hash has returned with any of the keys.
func (k Keys) All(kind, name string) (hashes []string) {
	for _, key := range k {
		hashes = append(hashes, hash(key, kind, name))
	}
	return hashes
}

// Subject returns the hash of a caller. The issuer is part of it, because two issuers can give one subject to two
// people. The NUL between them can be in neither.
func (k Keys) Subject(issuer, subject string) string { return k.Hash("subject", issuer+"\x00"+subject) }

// Subjects returns every hash of a caller that a log can have: by each of the keys, and the one without a key that
// earlier releases wrote.
func (k Keys) Subjects(issuer, subject string) []string {
	sum := sha256.Sum256([]byte(issuer + "\x00" + subject))
	return append(k.All("subject", issuer+"\x00"+subject), hex.EncodeToString(sum[:digits/2]))
}

// digits is how many hex digits a hash has.
const digits = 16

func hash(key, kind, name string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(kind + "\x00" + name))
	return hex.EncodeToString(mac.Sum(nil)[:digits/2])
}
