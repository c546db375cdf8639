package store_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// beginWith starts a run with a state and returns the session's state after the merge.
func beginWith(t testing.TB, db *store.DB, session, state string) string {
	t.Helper()
	r := store.Run{
		Status: "RUNNING", Attempt: 1, RunID: uuid.New(), Owner: "ann", SessionID: session, AgentID: "a", Input: "m",
		CreatedAt: day,
	}
	if state != "" {
		r.SessionState = json.RawMessage(state)
	}
	begun, err := db.BeginRun(t.Context(), r, store.BeginOptions{Leg: &r.RunID})
	if err != nil {
		t.Fatal(err)
	}
	return string(begun.State)
}

// The results are those of AgentOS 3.1.10.
func TestStatesAreMergedAsAgentOSMergesThem(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for name, row := range map[string]struct{ old, new, want string }{
		"members of objects":           {`{"a":{"b":1}}`, `{"a":{"c":2}}`, `{"a": {"b": 1, "c": 2}}`},
		"at every level":               {`{"a":{"b":{"c":1,"d":2}}}`, `{"a":{"b":{"c":3}}}`, `{"a":{"b":{"c":3,"d":2}}}`},
		"a list replaces a list":       {`{"a":[1,2]}`, `{"a":[3]}`, `{"a": [3]}`},
		"objects in a list are values": {`{"a":[{"b":1}]}`, `{"a":[{"c":1}]}`, `{"a": [{"c": 1}]}`},
		"null is a value":              {`{"a":{"b":1},"x":1}`, `{"a":{"b":null},"x":null}`, `{"a": {"b": null}, "x": null}`},
		"null replaces an object":      {`{"a":{"b":1}}`, `{"a":null}`, `{"a": null}`},
		"an object replaces null":      {`{"a":null}`, `{"a":{"b":1}}`, `{"a": {"b": 1}}`},
		"number, not object":           {`{"a":{"b":1}}`, `{"a":5}`, `{"a": 5}`},
		"object, not number":           {`{"a":5}`, `{"a":{"c":1}}`, `{"a": {"c": 1}}`},
		"{} changes nothing":           {`{"a":{"b":1}}`, `{}`, `{"a": {"b": 1}}`},
		"nor does one inside":          {`{"a":{"b":1}}`, `{"a":{}}`, `{"a": {"b": 1}}`},
		"no state changes nothing":     {`{"a":{"b":1}}`, ``, `{"a": {"b": 1}}`},
		"the first state":              {``, `{"a":{"b":1}}`, `{"a": {"b": 1}}`},
		"no state at all":              {``, ``, `{}`},
		"an empty name":                {`{"":{"a":1}}`, `{"":{"b":2}}`, `{"": {"a": 1, "b": 2}}`},
		"the same state again":         {`{"a":{"b":[1,{"c":2}]}}`, `{"a":{"b":[1,{"c":2}]}}`, `{"a": {"b": [1, {"c": 2}]}}`},
		"one change": {`{"a":{"b":1},"c":{"d":2}}`, `{"a":{"b":1},"c":{"d":3}}`,
			`{"a":{"b":1},"c":{"d":3}}`},
	} {
		beginWith(t, db, name, row.old)
		got := strings.ReplaceAll(beginWith(t, db, name, row.new), " ", "") // PostgreSQL adds spaces
		if got != strings.ReplaceAll(row.want, " ", "") {
			t.Errorf("%s: %s and %s became %s, want %s", name, row.old, row.new, got, row.want)
		}
	}
	created := store.Session{
		Owner: "ann", SessionID: "created", SessionType: "agent", State: json.RawMessage(`{"a":{"b":1}}`), CreatedAt: day,
	}
	if err := db.CreateSession(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	if got := beginWith(t, db, "created", `{"a":{"c":2}}`); got != `{"a": {"b": 1, "c": 2}}` {
		t.Errorf("a created session's state became %s", got)
	}
}

// Package input accepts no deeper nesting than 512.
func TestTheDeepestStatesAreMerged(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	nested := func(inner string) string { return strings.Repeat(`{"a":`, 511) + inner + strings.Repeat("}", 511) }
	beginWith(t, db, "s", nested(`{"x":1}`))
	if got := beginWith(t, db, "s", nested(`{"y":2}`)); !strings.Contains(got, `{"x": 1, "y": 2}`) {
		t.Errorf("%s", got)
	}
}

// Many clients send the whole state back with each run. A statement may take 5 seconds.
func TestLargeStatesAreMergedInTime(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	wide := func(value string) string {
		var members []string
		for i := range 9000 {
			members = append(members, fmt.Sprintf(`"k%d":{%q:"%d%s"}`, i, value, i, strings.Repeat("x", 90)))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	beginWith(t, db, "wide", wide("a"))
	got := beginWith(t, db, "wide", wide("b"))
	if strings.Count(got, `"a": `) != 9000 || strings.Count(got, `"b": `) != 9000 {
		t.Errorf("%d bytes", len(got))
	}
	deep := func(inner string) string { return strings.Repeat(`{"a":`, 50) + inner + strings.Repeat("}", 50) }
	beginWith(t, db, "deep", deep(wide("a")))
	if got := beginWith(t, db, "deep", deep(wide("b"))); strings.Count(got, `"b": `) != 9000 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestStatesOfRunsAtTheSameTimeAreAllMerged(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	var wg sync.WaitGroup
	for _, name := range strings.Split("bcdefghi", "") {
		wg.Go(func() { beginWith(t, db, "s", `{"a":{"`+name+`":1}}`) })
	}
	wg.Wait()
	if got := beginWith(t, db, "s", ""); strings.Count(got, ": 1") != 8 {
		t.Errorf("%s", got)
	}
}

// merge is what AgentOS's merge_dictionaries does.
func merge(old, new map[string]any) map[string]any {
	for name, value := range new {
		before, isOld := old[name].(map[string]any)
		after, isNew := value.(map[string]any)
		if isOld && isNew {
			value = merge(before, after)
		}
		old[name] = value
	}
	return old
}

func TestAnyStatesAreMerged(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	var value func(depth int) *rapid.Generator[any]
	object := func(depth int) *rapid.Generator[map[string]any] {
		return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "", "\u2028"}), value(depth), 0, 3)
	}
	value = func(depth int) *rapid.Generator[any] {
		leaf := rapid.SampledFrom([]any{nil, 1.0, "x", true, []any{}, []any{map[string]any{"a": 1.0}}})
		if depth == 0 {
			return leaf
		}
		return rapid.OneOf(leaf, rapid.Custom(func(r *rapid.T) any { return object(depth-1).Draw(r, "object") }))
	}
	rapid.Check(t, func(r *rapid.T) {
		session, want := uuid.NewString(), map[string]any{}
		got := ""
		for range 3 {
			state := object(4).Draw(r, "state")
			text, err := json.Marshal(state)
			if err != nil {
				r.Fatal(err)
			}
			got = beginWith(t, db, session, string(text))
			want = merge(want, state)
		}
		var have map[string]any
		if err := json.Unmarshal([]byte(got), &have); err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			r.Fatal(diff)
		}
	})
}
