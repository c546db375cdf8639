package cli

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// The names of the decision log's two files below --data. keyway serve writes them and
// keyway diff replays them.
const (
	decisionsName      = "decisions.jsonl"
	olderDecisionsName = "decisions.1.jsonl"
)

// maxDecisionsSize is the size at which the log starts a new file. Together with the
// older file it bounds what the log takes on the disk. A decision is about 500 bytes,
// so a file holds some 30,000 of them.
const maxDecisionsSize = 16 << 20

// decisionFiles returns the paths of the decision log in a data directory, the older
// file first. Either may be missing.
func decisionFiles(dir string) []string {
	return []string{filepath.Join(dir, olderDecisionsName), filepath.Join(dir, decisionsName)}
}

// logDecisions makes s.decided, which writes every decision to the server's log and,
// as JSON, to the decision log below --data. The file is an extra for keyway diff: if
// it cannot be written, the server warns and serves all the same.
func (s *server) logDecisions() (closeLog func() error) {
	// Until the file is open, and if it never is, decisions go to the log alone.
	s.decided = s.log
	f, err := openDecisionLog(s.cli.Data, maxDecisionsSize)
	if err != nil {
		s.log.Warn("decisions are not kept for keyway diff; make --data a directory that keyway can write to", "err", err)
		return func() error { return nil }
	}
	f.failed = func(err error) {
		s.log.Warn("decisions are no longer kept for keyway diff; free space or fix --data, then restart", "err", err)
	}
	s.decided = slog.New(slog.NewMultiHandler(s.log.Handler(), slog.NewJSONHandler(f, nil)))
	return f.close
}

// decisionLog appends lines to decisionsName. A line that would make the file larger
// than max renames it to olderDecisionsName, which replaces the previous older file,
// and begins a new one.
//
// It has no lock of its own: slog's handler calls Write under one, with a whole line.
type decisionLog struct {
	// dir is the directory of both files.
	dir string
	// max is the size in bytes at which a new file begins.
	max int64
	// f is the current file, and size its length.
	f    *os.File
	size int64
	// failed is called once, with the first error.
	failed func(error)
	// broken is the first error. Nothing is written after it.
	broken error
}

// openDecisionLog opens the log in dir, which it creates if need be. It appends to an
// existing file, so the log survives a restart.
func openDecisionLog(dir string, limit int64) (*decisionLog, error) {
	l := &decisionLog{dir: dir, max: limit, failed: func(error) {}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return l, l.openFile()
}

// openFile opens the current file for appending. With O_APPEND, POSIX makes each write
// go to the end of the file as one step, so the lines of two servers that share --data
// do not mix. The file is readable by its owner only: it shows who did what.
func (l *decisionLog) openFile() error {
	f, err := os.OpenFile(filepath.Join(l.dir, decisionsName), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// The size counts what an earlier server wrote.
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write appends one line. After an error it writes nothing more: keyway diff could not
// see that a log has gaps, and would report too few changes.
func (l *decisionLog) Write(line []byte) (int, error) {
	if l.broken != nil {
		return 0, l.broken
	}
	err := l.rotate(int64(len(line)))
	n := 0
	if err == nil {
		n, err = l.f.Write(line)
		l.size += int64(n)
	}
	if err != nil {
		l.broken = err
		l.failed(err)
	}
	return n, err
}

// rotate begins a new file if n more bytes do not fit into the current one. An empty
// file takes a line of any size.
func (l *decisionLog) rotate(n int64) error {
	if l.size == 0 || l.size+n <= l.max {
		return nil
	}
	// Windows cannot rename an open file.
	if err := l.f.Close(); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(l.dir, decisionsName), filepath.Join(l.dir, olderDecisionsName)); err != nil {
		return err
	}
	return l.openFile()
}

// close closes the file. It returns no error that failed has already reported.
func (l *decisionLog) close() error {
	if l.broken != nil {
		return nil
	}
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("%s: %w", decisionsName, err)
	}
	return nil
}
