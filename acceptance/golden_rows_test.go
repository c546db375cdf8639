package acceptance

import (
	"slices"
	"strings"
)

// isList reports whether the answer lists rows of the whole database. The recorded
// database also had rows of other groups.
func (e exchange) isList() bool {
	path, _, _ := strings.Cut(e.Path, "?")
	switch path {
	case "/sessions", "/memories", "/memory_topics", "/user_memory_stats":
		return e.Method == "GET" && e.Status == 200
	}
	return false
}

// rows compares such a list, without the rows of other groups. If the recorded list has
// rows of other groups, or continues on another page, the totals and the choice of rows
// can't be equal, and only their form is compared. The order of rows is never compared: the
// recorded rows were made within one second, and AgentOS sorts by seconds.
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

// topics compares a plain list of texts: those that the group made.
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

// rowID identifies a row: by its session, its memory or its user.
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
