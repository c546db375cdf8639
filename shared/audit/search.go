package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/keyway-agents/keyway/shared/loghash"
)

// Line is one line of the audit log. docs/operating.md describes the members.
type Line struct {
	Time      time.Time `json:"time"`
	Msg       string    `json:"msg"`
	RequestID string    `json:"request_id"`
	Actor     string    `json:"actor"`
	Admin     bool      `json:"admin"`
	Action    string    `json:"action"`
	Route     string    `json:"route"`
	Agent     string    `json:"agent"`
	Object    string    `json:"object"`
	Objects   []string  `json:"objects"`
	Count     int       `json:"count"`
	Owners    []string  `json:"owners"`
	AllOwners bool      `json:"all_owners"`
	Source    string    `json:"source"`
	Status    int       `json:"status"`
	// Lost is how many lines are missing before this one. Such a line has no other member than Time.
	Lost int `json:"lines"`
}

// Query selects lines. The zero value selects all.
type Query struct {
	// Actors, Owners and Objects are hashes, of which a line must have one. nil selects all.
	Actors, Owners, Objects []string
	// Action is the name of a route. "" selects all.
	Action string
	// Since and Until are the first time and the one after the last. Zero times select all.
	Since, Until time.Time
}

// OwnerHashes returns every hash that lines can have of an owner.
func OwnerHashes(keys loghash.Keys, name string) []string { return keys.All(kindOwner, name) }

// ObjectHashes returns every hash that lines can have of an object of any kind.
func ObjectHashes(keys loghash.Keys, id string) (hashes []string) {
	for _, kind := range kinds {
		hashes = append(hashes, keys.All(kind, id)...)
	}
	return hashes
}

// Selects reports whether a line is selected.
func (q Query) Selects(l Line) bool {
	one := func(wanted []string, has ...string) bool {
		return wanted == nil || slices.ContainsFunc(has, func(h string) bool { return slices.Contains(wanted, h) })
	}
	return one(q.Actors, l.Actor) && one(q.Owners, l.Owners...) && one(q.Objects, l.Objects...) &&
		(q.Action == "" || q.Action == l.Action) &&
		(q.Since.IsZero() || !l.Time.Before(q.Since)) && (q.Until.IsZero() || l.Time.Before(q.Until))
}

// Found counts what a search has read.
type Found struct {
	Lines  int // of the audit log
	Lost   int // lines that could not be written
	Broken int // lines that look like one of the audit log and can't be read
	Other  int // lines of other logs
}

// maxLine is the longest line that is read, in bytes. The log bounds what a line names, so its lines are shorter.
const maxLine = 64 << 10

// Search calls each with the lines that q selects, and with their JSON. The lines of log services may have text before
// the JSON. found is increased.
func (q Query) Search(r io.Reader, found *Found, each func(l Line, text []byte) error) error {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := in.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) { // discard the rest of a line that is too long
			_, err = in.ReadSlice('\n')
		}
		if !long {
			if err := q.line(text, found, each); err != nil {
				return err
			}
		} else {
			found.Other++
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (q Query) line(text []byte, found *Found, each func(Line, []byte) error) error {
	begin := bytes.IndexByte(text, '{')
	is := begin >= 0 && bytes.Contains(text, []byte(`"`+message+`"`))
	if begin < 0 || !is && !bytes.Contains(text, []byte(`"lost lines"`)) {
		if len(bytes.TrimSpace(text)) > 0 {
			found.Other++
		}
		return nil
	}
	var l Line
	decoder := json.NewDecoder(bytes.NewReader(text[begin:]))
	switch err := decoder.Decode(&l); {
	case err == nil && l.Msg == "lost lines":
		found.Lost += max(0, l.Lost)
	case err != nil || l.Msg == message && l.Action == "":
		found.Broken++
	case l.Msg != message:
		found.Other++
	default:
		found.Lines++
		if q.Selects(l) {
			return each(l, text[begin:begin+int(decoder.InputOffset())])
		}
	}
	return nil
}
