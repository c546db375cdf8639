package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/loghash"
)

// The logs below --data. The older file of each has a number before the extension: decisions.1.jsonl.
const (
	decisionsLog = "decisions" // what was allowed; keyway diff replays it
	refusalsLog  = "refusals"  // what was refused; keyway diff replays it too
	auditLog     = "audit"     // who changed what; keyway audit searches it
)

// maxLogSize is the size at which a log starts a new file. A decision is about 500 bytes, so a file holds some 30,000
// of them. Of decisions and refusals one older file is kept, and that bounds what they take on the disk. Of the audit
// log all files are kept: only the operator removes them.
const maxLogSize = 16 << 20

// decisionFiles returns the paths of the logs of decisions in a data directory, older files first. Each may be
// missing.
func decisionFiles(dir string) (paths []string) {
	for _, name := range []string{decisionsLog, refusalsLog} {
		paths = append(paths, filepath.Join(dir, name+".1.jsonl"), filepath.Join(dir, name+".jsonl"))
	}
	return paths
}

// auditFiles returns the paths of the audit log in a data directory, oldest first.
func auditFiles(dir string) (paths []string) {
	for _, n := range numbers(dir, auditLog) {
		paths = append(paths, numbered(dir, auditLog, n))
	}
	return append(paths, filepath.Join(dir, auditLog+".jsonl"))
}

func numbered(dir, name string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("%s.%d.jsonl", name, n))
}

// numbers returns the numbers of the older files of a log, oldest first. Some may be missing, because an operator or
// expire has removed them.
func numbers(dir, name string) (list []int) {
	files, _ := os.ReadDir(dir) // Without the directory there are no files.
	for _, f := range files {
		middle, ok := strings.CutPrefix(f.Name(), name+".")
		if middle, ok2 := strings.CutSuffix(middle, ".jsonl"); ok && ok2 {
			if n, err := strconv.Atoi(middle); err == nil && numbered(dir, name, n) == filepath.Join(dir, f.Name()) {
				list = append(list, n)
			}
		}
	}
	slices.Sort(list)
	return list
}

// openLogs makes s.decided, s.refused and s.audited, which write to the server's log and, as JSON, to a file below
// --data each. If a file can't be written, the server warns and serves all the same.
func (s *server) openLogs() (closeLogs func() error) {
	open := func(name string, keep bool, more ...io.Writer) *slog.Logger {
		f := &logFile{dir: s.cli.Data, name: name, max: maxLogSize, keep: keep, log: s.log, all: &s.lostLines}
		s.logFiles = append(s.logFiles, f)
		if _, err := f.ready(); err != nil {
			f.failed(err)
		}
		// A line of JSON is encoded once for all that get it.
		lines := append(everyone{f}, more...)
		if isTerminal(s.err) {
			return slog.New(slog.NewMultiHandler(s.log.Handler(), logging.NewJSON(lines).Handler()))
		}
		return logging.NewJSON(append(lines, s.err))
	}
	s.decided, s.refused = open(decisionsLog, false, &s.recent), open(refusalsLog, false, &s.recent)
	s.audited = open(auditLog, true)
	return func() (err error) {
		for _, f := range s.logFiles {
			err = errors.Join(err, f.close())
		}
		return err
	}
}

// everyone writes each line to all of its writers. One that fails keeps none of the others from it.
type everyone []io.Writer

// Write implements io.Writer.
func (e everyone) Write(line []byte) (n int, err error) {
	for _, w := range e {
		_, failed := w.Write(line)
		err = errors.Join(err, failed)
	}
	return len(line), err
}

// logKeys returns the keys of the hashes in logs: those of the environment, or those below --data, which are made if
// there are none. Without any, the logs have no hashes.
func (s *server) logKeys() (loghash.Keys, error) {
	keys, err := loghash.FromEnv(s.lookup)
	if err != nil {
		return nil, usageError{err}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	if keys, err = loghash.FromDir(s.cli.Data); err != nil {
		s.log.Warn("logs have no hashes of callers and objects, because their key can't be read or made; set "+
			loghash.Variable+", or make --data a directory that keyway can write to", "err", err)
		return nil, nil
	}
	return keys, nil
}

// readKeys returns the keys with which logs are searched.
func (e env) readKeys() (loghash.Keys, error) {
	keys, err := loghash.FromEnv(e.lookup)
	if err == nil && len(keys) == 0 {
		keys, err = loghash.Stored(e.cli.Data)
	}
	if err != nil {
		return nil, usageError{err}
	}
	return keys, nil
}

// logFile appends lines to a file. A line that would make the file larger than max begins a new one, and the previous
// one becomes NAME.1.jsonl, or the next number if all are kept. Several servers may share the directory.
//
// A line that can't be written, because the disk is full, is lost. The next one is tried again, and when it can be
// written, a line before it has the number of the lost ones.
type logFile struct {
	dir, name string
	// max is the size in bytes at which a new file begins.
	max int64
	// keep keeps all older files. Otherwise only the last one is kept.
	keep bool
	// log receives a warning when lines are lost, and another one when that has ended.
	log *slog.Logger
	// mu protects the members below. slog's handler calls Write, and the sweeper calls expire.
	mu sync.Mutex
	// f is the current file, nil if it must be opened first.
	f *os.File
	// size is how large f was when it was looked at, and what was written since. lookAgain is when that is due.
	size      int64
	lookAgain time.Time
	// torn means that a part of a line was written.
	torn bool
	// lost is how many lines were lost since the last one that was written.
	lost int
	// all counts the lines that were lost, nil for no count.
	all *atomic.Int64
}

// lookEvery is how often the current file is looked at. To look takes as long as to write a line. Until then lines may
// go to a file that another server has renamed, and the size lacks what it has written.
const lookEvery = 50 * time.Millisecond

// ready makes f the current file, and returns its size. Another server that shares the directory may have begun a new
// file since it was looked at.
func (l *logFile) ready() (size int64, err error) {
	if now := time.Now(); l.f != nil && now.Before(l.lookAgain) {
		return l.size, nil
	}
	return l.look()
}

// look is ready, and looks at the file in any case.
func (l *logFile) look() (size int64, err error) {
	if l.f != nil {
		opened, err := l.f.Stat()
		current, err2 := os.Stat(l.path())
		if err == nil && err2 == nil && os.SameFile(opened, current) {
			l.size, l.lookAgain = current.Size(), time.Now().Add(lookEvery)
			return l.size, nil
		}
		_ = l.f.Close()
		l.f = nil
	}
	if l.size, err = l.open(); err == nil {
		l.lookAgain = time.Now().Add(lookEvery)
	}
	return l.size, err
}

// open opens the current file for appending. With O_APPEND, POSIX makes each write go to the end of the file as one
// step, so the lines of two servers that share --data do not mix. The file is readable by its owner only: it shows who
// did what.
func (l *logFile) open() (size int64, err error) {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(l.path(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	// The size counts what other servers wrote.
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return 0, err
	}
	l.f = f
	// A process that crashed may have written a part of a line. Without an end, the next line would be lost with it.
	l.torn = endsWithin(l.path(), info.Size())
	return info.Size(), nil
}

// endsWithin reports whether the last line of a file of this size has no end. A file that can't be read counts as
// whole.
func endsWithin(path string, size int64) bool {
	f, err := os.Open(path)
	if err != nil || size == 0 {
		return false
	}
	defer f.Close()
	last := []byte{'\n'}
	_, err = f.ReadAt(last, size-1)
	return err == nil && last[0] != '\n'
}

func (l *logFile) path() string { return filepath.Join(l.dir, l.name+".jsonl") }

// Write appends one line.
func (l *logFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := line
	if l.lost > 0 {
		gap, _ := json.Marshal(map[string]any{"time": time.Now(), "level": "WARN", "msg": "lost lines", "lines": l.lost})
		out = join(gap, []byte("\n"), line)
	}
	if err := l.append(out); err != nil {
		l.failed(err)
		l.lost++
		if l.all != nil {
			l.all.Add(1)
		}
		return 0, err
	}
	if l.lost > 0 {
		l.log.Warn(l.name+".jsonl is written again", "lost_lines", l.lost)
		l.lost = 0
	}
	return len(line), nil
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// failed reports the first of several failures, and closes the file: it may have been replaced when the next line
// comes.
func (l *logFile) failed(err error) {
	if l.lost == 0 {
		l.log.Warn(l.name+".jsonl can't be written and loses lines until it can; free space, or make --data a directory "+
			"that keyway can write to", "err", err)
	}
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
}

func (l *logFile) append(data []byte) error {
	size, err := l.ready()
	if err == nil && l.full(size, data) { // also of a file that an earlier server has filled
		err = l.rotate(func(size int64) bool { return l.full(size, data) })
	}
	if err != nil {
		return err
	}
	if l.torn { // ends the line that was not written in full
		data = join([]byte("\n"), data)
	}
	n, err := l.f.Write(data)
	l.size += int64(n)
	l.torn = err != nil && (n > 0 || l.torn)
	return err
}

// full reports whether more data would make a file of this size too large.
func (l *logFile) full(size int64, data []byte) bool {
	return size > 0 && size+int64(len(data)) > l.max
}

// rotate renames the current file and opens the next one, if it is still due when no other server does the same. A
// server that writes to the renamed file meanwhile loses nothing: the line is in that file.
func (l *logFile) rotate(due func(size int64) bool) error {
	unlock, err := lockFile(filepath.Join(l.dir, "rotate.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	size, err := l.look() // Another server may have been faster.
	if err != nil || !due(size) {
		return err
	}
	// Windows cannot rename an open file.
	err = l.f.Close()
	l.f = nil
	if err != nil {
		return err
	}
	next := 1
	if all := numbers(l.dir, l.name); l.keep && len(all) > 0 {
		next = all[len(all)-1] + 1
	}
	if err := os.Rename(l.path(), numbered(l.dir, l.name, next)); err != nil {
		return err
	}
	_, err = l.look()
	return err
}

// expire removes older files whose last line is older than keep, and begins a new file if the first line of the
// current one is. So a line is kept for keep at least, and twice as long at most. It returns how many files it has
// removed.
func (l *logFile) expire(now time.Time, keep time.Duration) (removed int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := func(int64) bool {
		begun, ok := firstTime(l.path())
		return ok && now.Sub(begun) > keep
	}
	if old(0) {
		if err := l.rotate(old); err != nil {
			return 0, err
		}
	}
	for _, n := range numbers(l.dir, l.name) {
		path := numbered(l.dir, l.name, n)
		info, err := os.Stat(path)
		if err != nil || now.Sub(info.ModTime()) <= keep {
			continue // Without the file, another server has removed it.
		}
		if err := os.Remove(path); err == nil {
			removed++
		} else if !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
	}
	return removed, nil
}

// firstTime returns the time of the first line of a file. It reports false if there is none.
func firstTime(path string) (time.Time, bool) {
	f, err := os.Open(path) // #nosec G304 -- the operator chooses --data
	if err != nil {
		return time.Time{}, false
	}
	defer f.Close()
	var line struct{ Time time.Time }
	err = json.NewDecoder(f).Decode(&line)
	return line.Time, err == nil && !line.Time.IsZero()
}

// close closes the file. It returns no error that was reported already.
func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("%s.jsonl: %w", l.name, err)
	}
	return nil
}
