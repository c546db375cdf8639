package acceptance

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// comparison collects the differences between an answer and the recorded one. Its paths
// have no array indices, so that the same difference in every element counts once.
type comparison struct {
	ids   *bindings
	found []string
	shape bool // compare only that a number is a number: the recorded database held more rows
}

func (c *comparison) differ(path, format string, args ...any) {
	d := strings.TrimSpace(path + " " + fmt.Sprintf(format, args...))
	if !slices.Contains(c.found, d) {
		c.found = append(c.found, d)
	}
}

func (c *comparison) changed(path string, want, got any) {
	c.differ(path, "%s → %s", brief(want), brief(got))
}

// value compares two values at a path. The last part of the path is the member's name.
func (c *comparison) value(path string, want, got any) {
	switch w := want.(type) {
	case *jsonObject:
		if g, ok := got.(*jsonObject); ok {
			c.object(path, w, g)
			return
		}
	case []any:
		if g, ok := got.([]any); ok {
			c.array(path, w, g)
			return
		}
	case string:
		if g, ok := got.(string); ok {
			c.text(path, w, g)
			return
		}
	default:
		if c.sameScalar(path, want, got) {
			return
		}
	}
	c.changed(path, want, got)
}

func (c *comparison) object(path string, want, got *jsonObject) {
	var common, mine []string
	for _, name := range want.names {
		if _, ok := got.values[name]; !ok {
			c.differ(join(path, name), "is missing")
			continue
		}
		common = append(common, name)
		c.value(join(path, name), want.values[name], got.values[name])
	}
	for _, name := range got.names {
		if _, ok := want.values[name]; ok {
			mine = append(mine, name)
		} else {
			c.differ(join(path, name), "is extra")
		}
	}
	if !slices.Equal(common, mine) {
		c.differ(path, "has its members in the order %s", strings.Join(mine, " "))
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (c *comparison) array(path string, want, got []any) {
	if len(want) != len(got) {
		c.differ(path, "has %d → %d elements", len(want), len(got))
		return
	}
	for i := range want {
		c.value(path+"[]", want[i], got[i])
	}
}

// clocks are members that hold times and durations. Only their form is compared.
var (
	clocks = regexp.MustCompile(`(^|\.)(created_at|updated_at|start_time|end_time|duration|time_to_first_token|` +
		`search_time_ms)$`)
	moment  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?`)
	elapsed = regexp.MustCompile(`\d+\.\d+s`) // in "web_search(query=cats) completed in 0.0008s. "
)

// timeless replaces the digits of times and durations in a text.
func timeless(s string) string {
	s = moment.ReplaceAllStringFunc(s, func(m string) string {
		return regexp.MustCompile(`\d+`).ReplaceAllString(m, "0")
	})
	return elapsed.ReplaceAllString(s, "0.0s")
}

func (c *comparison) text(path, want, got string) {
	if kindOfID(want) != "" {
		if why := c.ids.bind(want, got); why != "" {
			c.differ(path, "is an id that %s", why)
		}
		return
	}
	if strings.HasSuffix(path, "system_fingerprint") { // made by the stub model
		return
	}
	if timeless(c.ids.ours(want)) != timeless(got) {
		c.changed(path, want, got)
	}
}

// sameScalar compares numbers, booleans and null.
func (c *comparison) sameScalar(path string, want, got any) bool {
	w, err1 := strconv.ParseFloat(fmt.Sprint(want), 64)
	g, err2 := strconv.ParseFloat(fmt.Sprint(got), 64)
	if _, isText := got.(string); err1 != nil || err2 != nil || isText {
		return want == got
	}
	return w == g || c.shape || clocks.MatchString(path)
}

// events compares two streams: the names of their events in order, and the members of
// the events that both streams have.
func (c *comparison) events(want, got []namedEvent) {
	inCallOrder(got)
	missing, extra := map[string]int{}, map[string]int{}
	var order []string
	note := func(counts map[string]int, name string) {
		if counts[name]++; missing[name]+extra[name] == 1 {
			order = append(order, name)
		}
	}
	for _, pair := range align(want, got) {
		switch {
		case pair.got < 0:
			note(missing, want[pair.want].name)
		case pair.want < 0:
			note(extra, got[pair.got].name)
		default:
			c.value(want[pair.want].name, want[pair.want].data, got[pair.got].data)
		}
	}
	for _, name := range order {
		if n := missing[name]; n > 0 {
			c.differ("event "+name, "is missing %d×", n)
		}
		if n := extra[name]; n > 0 {
			c.differ("event "+name, "is extra %d×", n)
		}
	}
}

// inCallOrder sorts the ToolCallCompleted events of parallel calls by their
// ToolCallStarted events, because parallel calls complete in any order.
func inCallOrder(list []namedEvent) {
	begun := map[any]int{}
	call := func(e namedEvent) any {
		o, _ := e.data.(*jsonObject)
		tool, _ := o.get("tool").(*jsonObject)
		return tool.get("tool_call_id")
	}
	for i := range list {
		from := i
		switch list[i].name {
		case "ToolCallStarted":
			begun[call(list[i])] = i
		case "ToolCallCompleted":
			for from > 0 && list[from-1].name == "ToolCallCompleted" && begun[call(list[from-1])] > begun[call(list[from])] {
				list[from-1], list[from] = list[from], list[from-1]
				from--
			}
		}
	}
}

type namedEvent struct {
	name string
	data any
}

// pair is the indices of two matching events. An index is -1 if the event has no match.
type pair struct{ want, got int }

// align matches two streams by the longest common subsequence of event names.
func align(want, got []namedEvent) (out []pair) {
	length := make([][]int, len(want)+1)
	for i := range length {
		length[i] = make([]int, len(got)+1)
	}
	for i := len(want) - 1; i >= 0; i-- {
		for j := len(got) - 1; j >= 0; j-- {
			if want[i].name == got[j].name {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(want) || j < len(got) {
		switch {
		case i < len(want) && j < len(got) && want[i].name == got[j].name:
			out = append(out, pair{i, j})
			i, j = i+1, j+1
		case j == len(got) || i < len(want) && length[i+1][j] >= length[i][j+1]:
			out = append(out, pair{i, -1})
			i++
		default:
			out = append(out, pair{-1, j})
			j++
		}
	}
	return out
}

// bindings map each recorded id to the id that this server generated in its place, and
// back. An id must map to the same id in all answers of a group.
type bindings struct{ here, recorded map[string]string }

func newBindings() *bindings { return &bindings{map[string]string{}, map[string]string{}} }

var (
	uuidText = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`
	modelIDs = regexp.MustCompile(`^(chatcmpl-|resp_|call_|fc_|msg_)`)
	anyID    = regexp.MustCompile(uuidText + `|(?:chatcmpl-|resp_|call_|fc_|msg_)[0-9a-f]{20,}`)
	wholeID  = regexp.MustCompile(`^` + uuidText + `$`)
)

// kindOfID returns the form of an id: "uuid", a prefix that the model uses, or "". The ids of
// tool calls are of one kind, because this server makes them itself: AgentOS shows those of
// the Responses API, which begin with fc_.
func kindOfID(s string) string {
	if wholeID.MatchString(s) {
		return "uuid"
	}
	return strings.Replace(modelIDs.FindString(s), "fc_", "call_", 1)
}

// bind records that got replaces the recorded id want. It returns why it can't, or "".
func (b *bindings) bind(want, got string) (why string) {
	switch kind := kindOfID(want); {
	case kind != kindOfID(got):
		return "became " + brief(got)
	case kind != "uuid": // the recorded model repeats its ids; this server's ids are unique
	case b.here[want] != "" && b.here[want] != got:
		return "changes between answers"
	case b.recorded[got] != "" && b.recorded[got] != want:
		return "stands for two"
	}
	b.here[want], b.recorded[got] = got, want
	return ""
}

// ours replaces the recorded ids in a text by those of this server.
func (b *bindings) ours(s string) string {
	return anyID.ReplaceAllStringFunc(s, func(id string) string {
		if here := b.here[id]; here != "" {
			return here
		}
		return id
	})
}
