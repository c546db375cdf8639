package cli

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// The files of past decisions below --data, which `keyway diff` replays.
const (
	decisionsFile    = "decisions.jsonl"
	decisionsBefore  = "decisions.1.jsonl"
	maxDecisionsFile = 16 << 20
)

// logDecisions sends every decision to the log and, as JSON, to a file below
// --data. Without that file the server serves all the same.
func (s *server) logDecisions() (closeLog func() error) {
	s.decided = s.log
	f, err := openRolling(s.cli.Data, maxDecisionsFile)
	if err != nil {
		s.log.Warn("decisions are not kept for keyway diff; make --data a directory that keyway may write to", "err", err)
		return func() error { return nil }
	}
	f.failed = func(err error) { s.log.Warn("decisions are no longer kept for keyway diff", "err", err) }
	s.decided = slog.New(slog.NewMultiHandler(s.log.Handler(), slog.NewJSONHandler(f, nil)))
	return f.close
}

// rolling appends to decisionsFile. Past max bytes that becomes decisionsBefore, in
// place of the one before it. Its user, a slog handler, writes one line at a time.
type rolling struct {
	dir    string
	max    int64
	f      *os.File
	size   int64
	failed func(error) // told once
	broken error
}

func openRolling(dir string, most int64) (*rolling, error) {
	r := &rolling{dir: dir, max: most, failed: func(error) {}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return r, r.open()
}

func (r *rolling) open() error {
	// Appending, so that lines of two servers with one --data stay whole.
	f, err := os.OpenFile(filepath.Join(r.dir, decisionsFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	r.f, r.size = f, info.Size()
	return nil
}

// Write appends one line. After a failure it writes no more: a log with holes
// would pass for a whole one.
func (r *rolling) Write(line []byte) (int, error) {
	if r.broken != nil {
		return 0, r.broken
	}
	err := r.makeRoom(int64(len(line)))
	n := 0
	if err == nil {
		n, err = r.f.Write(line)
		r.size += int64(n)
	}
	if err != nil {
		r.broken = err
		r.failed(err)
	}
	return n, err
}

func (r *rolling) makeRoom(n int64) error {
	if r.size == 0 || r.size+n <= r.max {
		return nil
	}
	if err := r.f.Close(); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(r.dir, decisionsFile), filepath.Join(r.dir, decisionsBefore)); err != nil {
		return err
	}
	return r.open()
}

func (r *rolling) close() error {
	if r.broken != nil {
		return nil // told already
	}
	if err := r.f.Close(); err != nil {
		return fmt.Errorf("%s: %w", decisionsFile, err)
	}
	return nil
}
