package acceptance

import (
	"slices"
	"strings"
)

// isList reports whether the answer lists what the whole database holds. The
// recorded one held more than the group had put there.
func (e exchange) isList() bool {
	path, _, _ := strings.Cut(e.Path, "?")
	switch path {
	case "/sessions", "/memories", "/memory_topics", "/user_memory_stats":
		return e.Method == "GET" && e.Status == 200
	}
	return false
}

// rows compares such a list. Rows that the group knows nothing of are left out; if
// there are any, or more on another page, totals are compared by form only, and so
// is which rows made it to a page. Nor is their order compared: the recorded rows
// were made within a second, and AgentOS sorts by seconds.
func (p *replayer) rows(c *comparison, want, got any) {
	w, ok1 := want.(*jsonObject)
	g, ok2 := got.(*jsonObject)
	wl, ok3 := w.get("data").([]any)
	gl, ok4 := g.get("data").([]any)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		p.topics(c, want, got)
		return
	}
	whole := true
	for _, row := range wl {
		whole = whole && p.known(row)
	}
	meta, _ := w.get("meta").(*jsonObject)
	if n, ok := meta.get("total_count").(interface{ Int64() (int64, error) }); ok {
		total, err := n.Int64()
		whole = whole && err == nil && total == int64(len(wl))
	}
	theirs := map[string]any{}
	for _, row := range gl {
		theirs[rowID(row)] = row
	}
	for _, row := range wl {
		id := p.ids.ours(rowID(row))
		if mine, ok := theirs[id]; ok {
			c.shape = !whole && strings.HasPrefix(rowID(row), "user:")
			c.value("data[]", row, mine)
			delete(theirs, id)
		} else if whole {
			c.differ("data[]", "lacks a row")
		}
	}
	if whole && len(theirs) > 0 {
		c.differ("data[]", "has a row too many")
	}
	c.shape = !whole
	rest := func(o *jsonObject) *jsonObject {
		out := &jsonObject{names: o.names, values: map[string]any{}}
		for name, v := range o.values {
			out.values[name] = v
		}
		out.values["data"] = nil
		return out
	}
	c.value("", rest(w), rest(g))
}

// topics compares a bare list of texts, as far as the group made them.
func (p *replayer) topics(c *comparison, want, got any) {
	w, ok1 := want.([]any)
	g, ok2 := got.([]any)
	if !ok1 || !ok2 {
		c.value("", want, got)
		return
	}
	for _, topic := range w {
		if strings.Contains(p.mentioned.String(), topic.(string)) && !slices.Contains(g, topic) {
			c.differ("", "lacks %s", brief(topic))
		}
	}
	for _, topic := range g {
		if !slices.Contains(w, topic) {
			c.differ("", "has %s too", brief(topic))
		}
	}
}

// rowID tells one row from another.
func rowID(row any) string {
	o, _ := row.(*jsonObject)
	for _, name := range []string{"session_id", "memory_id"} {
		if id, ok := o.get(name).(string); ok {
			return id
		}
	}
	id, _ := o.get("user_id").(string)
	return "user:" + id
}

// known reports whether the group made a row or named it in a request.
func (p *replayer) known(row any) bool {
	id := p.ids.ours(strings.TrimPrefix(rowID(row), "user:"))
	return strings.Contains(p.mentioned.String(), id) || p.ids.recorded[id] != ""
}
