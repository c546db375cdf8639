package policycheck

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
)

// example shows both kinds of row, for the remedy of one that cannot be read.
const example = `"ann may GET /agents" or "ann may not POST /agents/x/runs without agents:x:run"`

// Test is one promise: a row of the table. Its forms are:
//
//	CALLER may METHOD /path
//	CALLER may METHOD /path and sees only AGENT and AGENT
//	CALLER may METHOD /path and sees every agent
//	CALLER may METHOD /path and sees no agent
//	CALLER may not METHOD /path
//	CALLER may not METHOD /path without SCOPE and SCOPE
//	CALLER may not METHOD /path and gets STATUS TEXT
type Test struct {
	// Line is the row's line in the file.
	Line int
	// Text is the row as written, with single spaces.
	Text string
	// Caller is a name in callers.
	Caller string
	// Method and Path are the request. Path is decoded.
	Method, Path string

	// Allow is whether the request must be allowed.
	Allow bool
	// Missing are the scopes that a denied caller lacks, sorted. Nil if the row does not name them.
	Missing []string
	// Status is that of a denied request: 403 unless the row says otherwise.
	Status int
	// Detail is the text of a denied request. Empty if the row does not state it.
	Detail string
	// Lists are the ids of the agents that a list shows, sorted. Nil if the row does not name them.
	Lists []string
	// AllIDs is whether the list must show every agent.
	AllIDs bool
}

// agents returns the ids of the agents that the row is about: those in its path, and those that a list must
// show.
func (t Test) agents() []string {
	ids := slices.Clone(t.Lists)
	if id := route.Table.Match(t.Method, t.Path).Params["agent_id"]; id != "" {
		ids = append(ids, id)
	}
	return ids
}

// methods are the methods that a row can name. OPTIONS is not one of them: it needs no token, so there is
// nothing to decide.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// row reads one row, a sentence of the form "CALLER may [not] METHOD /path …". Words are separated by any
// white space. A row with an error is not added to the tests.
//
// "may not" alone means a 403. A token that is rejected (401) would otherwise keep every promise that
// something is denied, although the row tests scopes.
func (r *reader) row(at string, v any) {
	text, ok := v.(string)
	if !ok {
		r.fault(at, "is not a sentence", "write "+example+", in quotes when it has a colon and a space")
		return
	}
	words := strings.Fields(text)
	// The promise is read from left to right: next returns and removes the first word.
	t := Test{Line: r.table.doc.Line(at), Text: strings.Join(words, " "), Allow: true}
	next := func() (word string) {
		if len(words) > 0 {
			word, words = words[0], words[1:]
		}
		return word
	}
	t.Caller = next()
	if verb := next(); verb != "may" {
		r.fault(at, "is "+strconv.Quote(t.Text), "write "+example)
		return
	}
	if len(words) > 0 && words[0] == "not" {
		next()
		t.Allow, t.Status = false, http.StatusForbidden
	}
	t.Method, t.Path = next(), next()
	problem, remedy := t.request()
	if problem == "" {
		problem, remedy = t.rest(words)
	}
	if problem == "" {
		problem, remedy = r.possible(t)
	}
	if problem != "" {
		r.fault(at, problem, remedy)
		return
	}
	r.table.Tests = append(r.table.Tests, t)
}

// request checks the method, and decodes the path as a server does.
func (t *Test) request() (problem, remedy string) {
	if !slices.Contains(methods, t.Method) {
		return "has the method " + strconv.Quote(t.Method), "use " + config.OneOf(methods)
	}
	address, err := url.ParseRequestURI(t.Path)
	if err != nil || !strings.HasPrefix(t.Path, "/") || address.RawQuery != "" {
		return "has the path " + strconv.Quote(t.Path), "write it as in /agents/web-search-agent/runs, without a query"
	}
	t.Path = address.Path
	return "", ""
}

// rest reads the words after the request. An allowed request can state which agents a list shows. A denied
// one can state the missing scopes, or the status and text of the answer.
func (t *Test) rest(words []string) (problem, remedy string) {
	rest := strings.Join(words, " ")
	starts := func(begin string) bool {
		after, ok := strings.CutPrefix(rest, begin)
		if ok {
			rest = after
		}
		return ok
	}
	switch {
	case rest == "":
	case t.Allow && rest == "and sees every agent":
		t.AllIDs = true
	case t.Allow && rest == "and sees no agent":
		t.Lists = []string{}
	case t.Allow && starts("and sees only "):
		t.Lists = listed(rest)
	case !t.Allow && starts("without "):
		t.Missing = listed(rest)
	case !t.Allow && starts("and gets "):
		status, detail, _ := strings.Cut(rest, " ")
		t.Status, _ = strconv.Atoi(status)
		t.Detail = detail
		if !slices.Contains([]int{401, 403, 404, 405}, t.Status) {
			return "has the status " + strconv.Quote(status), "use 401, 403, 404 or 405"
		}
	case t.Allow:
		return "ends with " + strconv.Quote(rest), "end the row after the path, or with one of: " +
			"and sees only A and B, and sees every agent, and sees no agent"
	default:
		return "ends with " + strconv.Quote(rest), "end the row after the path, or with one of: " +
			"without SCOPE and SCOPE, and gets 401 TEXT"
	}
	return "", ""
}

// listed splits "a, b and c", and returns the words sorted and without duplicates.
func listed(text string) []string {
	out := strings.Fields(strings.NewReplacer(" and ", " ", ",", " ").Replace(text))
	slices.Sort(out)
	return slices.Compact(out)
}

// possible reports rows that would not test the configuration, because none could make them true, or
// none could make them false. It also reports an unknown caller and a repeated request.
func (r *reader) possible(t Test) (problem, remedy string) {
	if _, known := r.table.callers[t.Caller]; !known {
		return "begins with " + strconv.Quote(t.Caller) + ", which is not in callers", "use one of callers, or add it there"
	}
	// Two rows about one request would either repeat or contradict each other.
	for _, other := range r.table.Tests {
		if t.Caller == other.Caller && t.Method == other.Method && t.Path == other.Path {
			return fmt.Sprintf("repeats the request of line %d", other.Line), "keep one of them"
		}
	}
	m := route.Table.Match(t.Method, t.Path)
	unknown := m.Route == nil && (t.Allow || t.Status == http.StatusForbidden)
	// An unknown path is a 404 or 405 for every caller, so a row that expects anything else is a mistake.
	switch {
	case unknown && len(m.Allow) > 0:
		return "has a path that supports only " + strings.Join(m.Allow, ", "),
			"correct the method, or write: may not … and gets 405"
	case unknown:
		return "has a path that matches no route",
			"compare with the output of keyway routes, or write: may not … and gets 404"
	case m.Public && !t.Allow && m.Route != nil:
		return "denies a public route, which needs no token", "write may"
	case (t.Lists != nil || t.AllIDs) && m.Route.Lists != "agents":
		return "says which agents are seen, but " + m.Route.String() + " is not a list of agents",
			"end the row after the path"
	}
	return "", ""
}
