package replay

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/scope"
)

// Log is the summary of a decision log. The zero value is an empty log; Read adds to it.
type Log struct {
	// Decisions is the number of decisions in the requested time.
	Decisions int
	// Passed is the number of other lines: of requests, or of other programs.
	Passed int
	// Broken is the number of lines that look like a decision and cannot be read.
	Broken int
	// Old is the number of decisions before the requested time.
	Old int
	// Configs counts Decisions by the configuration that made them: the first digits of its digest.
	Configs map[string]int
	// Skipped counts the Decisions that cannot be replayed.
	Skipped Skipped
	// First and Last are the times of the first and last of Decisions. Zero if no line has a time.
	First, Last time.Time

	groups map[key]*group
}

// Skipped counts decisions that cannot be replayed, by the reason.
type Skipped struct {
	// NoToken counts rejected tokens (401). No policy was involved.
	NoToken int `json:"no_token"`
	// NoScopes counts decisions with so many scopes that the log contains only their size.
	NoScopes int `json:"no_scopes"`
	// NoRoute counts unknown paths and methods (404, 405), and routes that do not exist any more.
	NoRoute int `json:"no_route"`
	// NoAgent counts decisions about an agent that was not declared. The log does not repeat such an id.
	NoAgent int `json:"no_agent"`
}

// key identifies a group of decisions: the same question with the same answer.
type key struct {
	route, agent, mapping, config string
	scopes                        string // a JSON array
	origins                       string // a JSON array in the order of scopes, or ""
	issuer                        string // only if there are origins
	allow, filtered               bool
	missing                       string
}

// group is all decisions with the same key.
type group struct {
	scopes  []string
	origins []string // of each of scopes; nil if all of them are as the token had them
	seen
}

// seen counts the callers and requests of a group, and has the times of its first and last request.
type seen struct {
	callers  map[string]struct{} // hashed subjects
	requests int
	first    time.Time
	last     time.Time
}

// add adds the counts of o to s.
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

// maxLine is the longest line that is read, in bytes. A decision is always shorter, because the log
// limits its scopes to 8 KB.
const maxLine = 256 << 10

// line is a line of the decision log with the members that a replay uses.
// Package authz writes it; docs/operating.md describes all members.
type line struct {
	Time time.Time `json:"time"`
	// Msg is "decision" for a decision. A server logs other lines too.
	Msg string `json:"msg"`
	// Allow is nil if the line is no valid decision.
	Allow *bool `json:"allow"`
	// Status is only set for a denied request.
	Status int `json:"status"`
	// Principal is a hash of the subject, the same for all requests of one user.
	Principal string `json:"principal"`
	// Scopes are those of the token. If they are too long, ScopesBytes has their size instead.
	Scopes      []string `json:"scopes"`
	ScopesBytes int      `json:"scopes_bytes"`
	// Origins say where each of Scopes was from: a claim, or "claim=role" for what a role granted.
	Origins []string `json:"origins"`
	// Issuer is the issuer whose roles these are. It is only set together with Origins.
	Issuer string `json:"issuer"`
	// Route is empty if the path matched none.
	Route string `json:"route"`
	// Agent is empty if the path names none, or one that was not declared.
	Agent   string   `json:"agent"`
	Missing []string `json:"missing"`
	// Mapping is the scope mapping that decided, such as "GET /sessions/s-1".
	Mapping string `json:"mapping"`
	// Filtered is whether a list showed only some resources.
	Filtered bool `json:"filtered"`
	// Config is the beginning of the configuration's digest.
	Config string `json:"config"`
	// Times is how many equal refusals the line stands for. 0 means one.
	Times int `json:"times"`
}

// maxTimes is how many refusals one line can stand for. Anyone could have written the log.
const maxTimes = 1 << 30

// Read adds the decisions of r to l, except those before since. A zero since adds all. Only distinct
// decisions are stored, so that the memory does not grow with the length of the log. A line that cannot
// be read is counted; the only errors are those of r.
func (l *Log) Read(r io.Reader, since time.Time) error {
	if l.groups == nil {
		l.groups, l.Configs = map[key]*group{}, map[string]int{}
	}
	in := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := in.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) { // discard the rest of a line that is too long
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

// line reads one line from its first brace on, because the tools of log services print a time before it.
func (l *Log) line(text []byte, since time.Time) {
	begin := bytes.IndexByte(text, '{')
	if begin < 0 || !bytes.Contains(text, []byte(`"decision"`)) { // a cheap test that skips most lines
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
	if d.Status == http.StatusNotFound || d.Status == http.StatusMethodNotAllowed {
		d.Route = "" // This program does not serve it, and no file changes that.
	}
	d.Times = min(max(d.Times, 1), maxTimes)
	l.Decisions += d.Times
	d.Time = d.Time.UTC()
	if d.Config = short(d.Config); d.Config != "" {
		l.Configs[d.Config] += d.Times
	}
	// The lines of several functions or files are not in the order of time.
	span := seen{first: l.First, last: l.Last}
	span.add(seen{first: d.Time, last: d.Time})
	l.First, l.Last = span.first, span.last
	l.keep(d)
}

var (
	hexDigits = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
)

// short returns the first digits of a digest, as many as the log has. It returns "" for any other text,
// because the log is input that anyone could have written, and the result is printed.
func short(digest string) string {
	if !hexDigits.MatchString(digest) {
		return ""
	}
	return digest[:min(12, len(digest))]
}

// keep adds a decision to the group of its key, or counts it in Skipped.
func (l *Log) keep(d line) {
	r := routes[d.Route]
	switch family := ""; {
	case !*d.Allow && d.Status == 401:
		l.Skipped.NoToken += d.Times
		return
	case r == nil:
		l.Skipped.NoRoute += d.Times
		return
	case d.ScopesBytes > 0:
		l.Skipped.NoScopes += d.Times
		return
	default: // only routes of an agent need its id
		if family, _ = r.Resource(); family != "" && !scope.IsAgentID(d.Agent) {
			l.Skipped.NoAgent += d.Times
			return
		}
		if family == "" {
			d.Agent = ""
		}
	}
	d.sortScopes()
	scopes, _ := json.Marshal(d.Scopes) // encoding a list of strings cannot fail
	origins := ""
	if d.Origins != nil {
		text, _ := json.Marshal(d.Origins)
		origins = string(text)
	}
	k := key{
		route: d.Route, agent: d.Agent, mapping: d.Mapping, config: d.Config, scopes: string(scopes),
		origins: origins, issuer: d.Issuer,
		allow: *d.Allow, filtered: *d.Allow && d.Filtered, missing: strings.Join(d.Missing, ", "),
	}
	g := l.groups[k]
	if g == nil {
		g = &group{scopes: d.Scopes, origins: d.Origins}
		l.groups[k] = g
	}
	caller := "" // all principals that are not a hash count as one caller, and their text is not kept
	if hexDigits.MatchString(d.Principal) {
		caller = d.Principal
	}
	g.add(seen{callers: map[string]struct{}{caller: {}}, requests: d.Times, first: d.Time, last: d.Time})
}

// sortScopes sorts the scopes with their origins, and removes repeated scopes. Origins that don't fit the scopes are
// removed.
func (d *line) sortScopes() {
	if d.Origins == nil || len(d.Origins) != len(d.Scopes) {
		d.Origins, d.Issuer = nil, ""
		slices.Sort(d.Scopes)
		d.Scopes = slices.Compact(d.Scopes)
		return
	}
	from := map[string]string{}
	for i, s := range d.Scopes {
		from[s] = d.Origins[i]
	}
	d.Scopes, d.Origins = slices.Sorted(maps.Keys(from)), nil
	for _, s := range d.Scopes {
		d.Origins = append(d.Origins, from[s])
	}
}

// order compares keys, so that two reports about the same log are equal.
func order(a, b key) int {
	return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.agent, b.agent), cmp.Compare(a.mapping, b.mapping),
		cmp.Compare(a.config, b.config), cmp.Compare(a.scopes, b.scopes), cmp.Compare(a.missing, b.missing),
		cmp.Compare(a.origins, b.origins), cmp.Compare(a.issuer, b.issuer))
}
