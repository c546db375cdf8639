// Package replay puts logged decisions to another policy, and tells which of them it
// would decide otherwise. It reads the decision log, and keeps equal decisions
// together, so that a long log fits.
// It knows no file, no token and no configuration but the policy it is given.
package replay

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/scope"
)

// Log is what was read of a decision log.
type Log struct {
	Decisions int            // lines that are one, within the time asked for
	Passed    int            // other lines: of requests, or of another program
	Broken    int            // lines that look like a decision and can't be read
	Old       int            // decisions from before the time asked for
	Configs   map[string]int // decisions by the configuration that made them
	Skipped   Skipped
	First     time.Time // of Decisions; zero: none says when
	Last      time.Time

	groups map[key]*group
}

// Skipped are decisions that no policy can be asked about again.
type Skipped struct {
	NoToken  int `json:"no_token"`  // 401: the policy was never asked
	NoScopes int `json:"no_scopes"` // too long for the log
	NoRoute  int `json:"no_route"`  // 404, 405, or a route that isn't served any more
	NoAgent  int `json:"no_agent"`  // an id that the log doesn't repeat
}

// key is what makes two decisions the same question with the same answer.
type key struct {
	route, agent, mapping, config string
	scopes                        string // a JSON array
	allow, filtered               bool
	missing                       string
}

// group are equal decisions.
type group struct {
	scopes []string
	seen
}

// seen is who asked, how often and when.
type seen struct {
	callers  map[string]struct{}
	requests int
	first    time.Time
	last     time.Time
}

func (s *seen) add(o seen) {
	if s.callers == nil {
		s.callers = map[string]struct{}{}
	}
	for c := range o.callers {
		s.callers[c] = struct{}{}
	}
	s.requests += o.requests
	if s.first.IsZero() || !o.first.IsZero() && o.first.Before(s.first) {
		s.first = o.first
	}
	if o.last.After(s.last) {
		s.last = o.last
	}
}

// maxLine is far above what a decision takes: its scopes end at 8 KB.
const maxLine = 256 << 10

// line is the log's line, as far as a replay reads it.
type line struct {
	Time        time.Time `json:"time"`
	Msg         string    `json:"msg"`
	Allow       *bool     `json:"allow"`
	Status      int       `json:"status"`
	Principal   string    `json:"principal"`
	Scopes      []string  `json:"scopes"`
	ScopesBytes int       `json:"scopes_bytes"`
	Route       string    `json:"route"`
	Agent       string    `json:"agent"`
	Missing     []string  `json:"missing"`
	Mapping     string    `json:"mapping"`
	Filtered    bool      `json:"filtered"`
	Config      string    `json:"config"`
}

// Read adds the decisions of r that are not older than since (zero: all) to l. The
// error is r's own: no line stops it.
func (l *Log) Read(r io.Reader, since time.Time) error {
	if l.groups == nil {
		l.groups, l.Configs = map[key]*group{}, map[string]int{}
	}
	in := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := in.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line too long to be ours
			_, err = in.ReadSlice('\n')
		}
		switch {
		case tooLong:
			l.Passed++
		case len(bytes.TrimSpace(text)) > 0:
			l.line(text, since)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line reads one line, from its first brace: log services put a time before it.
func (l *Log) line(text []byte, since time.Time) {
	begin := bytes.IndexByte(text, '{')
	if begin < 0 || !bytes.Contains(text, []byte(`"decision"`)) { // cheap, and most lines
		l.Passed++
		return
	}
	var d line
	switch err := json.NewDecoder(bytes.NewReader(text[begin:])).Decode(&d); {
	case err == nil && d.Msg != "decision":
		l.Passed++
		return
	case err != nil || d.Allow == nil:
		l.Broken++
		return
	case !since.IsZero() && d.Time.Before(since):
		l.Old++
		return
	}
	l.Decisions++
	d.Time = d.Time.UTC()
	if d.Config = short(d.Config); d.Config != "" {
		l.Configs[d.Config]++
	}
	span := seen{first: l.First, last: l.Last}
	span.add(seen{first: d.Time, last: d.Time})
	l.First, l.Last = span.first, span.last
	l.keep(d)
}

var (
	hexDigits = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
)

// short are the digits of a digest that a log has; "" for what is none.
func short(digest string) string {
	if !hexDigits.MatchString(digest) {
		return ""
	}
	return digest[:min(12, len(digest))]
}

// keep puts a decision to its equals, or counts why it can't be asked again.
func (l *Log) keep(d line) {
	r := routes[d.Route]
	switch family := ""; {
	case !*d.Allow && d.Status == 401:
		l.Skipped.NoToken++
		return
	case r == nil:
		l.Skipped.NoRoute++
		return
	case d.ScopesBytes > 0:
		l.Skipped.NoScopes++
		return
	default:
		if family, _ = r.Resource(); family != "" && !scope.IsAgentID(d.Agent) {
			l.Skipped.NoAgent++
			return
		}
		if family == "" {
			d.Agent = ""
		}
	}
	slices.Sort(d.Scopes)
	d.Scopes = slices.Compact(d.Scopes)
	scopes, _ := json.Marshal(d.Scopes) // a list of texts always encodes
	k := key{d.Route, d.Agent, d.Mapping, d.Config, string(scopes), *d.Allow, *d.Allow && d.Filtered, strings.Join(d.Missing, ", ")}
	g := l.groups[k]
	if g == nil {
		g = &group{scopes: d.Scopes}
		l.groups[k] = g
	}
	caller := "" // whose name isn't a hash is one caller, and not repeated
	if hexDigits.MatchString(d.Principal) {
		caller = d.Principal
	}
	g.add(seen{callers: map[string]struct{}{caller: {}}, requests: 1, first: d.Time, last: d.Time})
}

// order compares keys, so that a report is the same each time.
func order(a, b key) int {
	return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.agent, b.agent), cmp.Compare(a.mapping, b.mapping),
		cmp.Compare(a.config, b.config), cmp.Compare(a.scopes, b.scopes), cmp.Compare(a.missing, b.missing))
}
