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

// example is the remedy for a row that is no sentence of ours.
const example = `"ann may GET /agents" or "ann may not POST /agents/x/runs without agents:x:run"`

// Test is one promise: a row of the table.
type Test struct {
	Line   int
	Text   string // as in the file, with single spaces
	Caller string
	Method string
	Path   string // decoded

	Allow   bool
	Missing []string // the scopes whose lack is the reason; nil: not stated
	Status  int      // of a refusal: 403 unless the row says otherwise
	Detail  string   // the text of a refusal; "": not stated
	Lists   []string // a filtered list: the ids that it shows, sorted; nil: not stated
	AllIDs  bool     // … or that it shows every agent
}

// agents are the ids that the row is about.
func (t Test) agents() []string {
	ids := slices.Clone(t.Lists)
	if id := route.Table.Match(t.Method, t.Path).Params["agent_id"]; id != "" {
		ids = append(ids, id)
	}
	return ids
}

// methods are those that a row may name. OPTIONS asks for no token, and isn't decided.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

func (r *reader) row(at string, v any) {
	text, ok := v.(string)
	if !ok {
		r.fault(at, "is no sentence", "write "+example+", in quotes when it has a colon and a space")
		return
	}
	words := strings.Fields(text)
	t := Test{Line: r.table.doc.Line(at), Text: strings.Join(words, " "), Allow: true}
	take := func() (word string) {
		if len(words) > 0 {
			word, words = words[0], words[1:]
		}
		return word
	}
	t.Caller = take()
	if verb := take(); verb != "may" {
		r.fault(at, "is "+strconv.Quote(t.Text), "write "+example)
		return
	}
	if len(words) > 0 && words[0] == "not" {
		take()
		t.Allow, t.Status = false, http.StatusForbidden
	}
	t.Method, t.Path = take(), take()
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

// request checks the method, and reads the path as a server does.
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

// rest reads what follows the request.
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
			return "says " + strconv.Quote(status), "a refusal gets 401, 403, 404 or 405"
		}
	case t.Allow:
		return "goes on with " + strconv.Quote(rest), "end the row there, or write and sees only A and B, and sees every agent, or and sees no agent"
	default:
		return "goes on with " + strconv.Quote(rest), "end the row there, or write without SCOPE and SCOPE, or and gets 401 TEXT"
	}
	return "", ""
}

// listed reads "a, b and c", sorted.
func listed(text string) []string {
	out := strings.Fields(strings.NewReplacer(" and ", " ", ",", " ").Replace(text))
	slices.Sort(out)
	return slices.Compact(out)
}

// possible finds what no configuration could make true, or false.
func (r *reader) possible(t Test) (problem, remedy string) {
	if _, known := r.table.callers[t.Caller]; !known {
		return "is about " + strconv.Quote(t.Caller) + ", who is no caller", "name one of callers"
	}
	for _, other := range r.table.Tests {
		if t.Caller == other.Caller && t.Method == other.Method && t.Path == other.Path {
			return fmt.Sprintf("asks what line %d asks", other.Line), "keep one of them"
		}
	}
	m := route.Table.Match(t.Method, t.Path)
	unknown := m.Route == nil && (t.Allow || t.Status == http.StatusForbidden)
	switch {
	case unknown && len(m.Allow) > 0:
		return "names a path that is served for " + strings.Join(m.Allow, ", ") + " only", "correct the method, or write: may not … and gets 405"
	case unknown:
		return "names a path that no route serves", "compare with the output of keyway routes, or write: may not … and gets 404"
	case m.Public && !t.Allow && m.Route != nil:
		return "forbids a public route, which nothing can", "write may"
	case (t.Lists != nil || t.AllIDs) && m.Route.Lists != "agents":
		return "says what is seen, and " + m.Route.String() + " is no list of agents", "end the row after the path"
	}
	return "", ""
}
