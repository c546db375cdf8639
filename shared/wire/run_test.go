package wire_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyway-agents/keyway/shared/wire"
)

// members returns the names of an object's members in the order of the text.
func members(t *testing.T, v any) (names []string) {
	t.Helper()
	data, err := wire.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func TestTimesAreWrittenAsAgentOSWritesThem(t *testing.T) {
	t.Parallel()
	east := time.FixedZone("east", 2*60*60)
	for name, row := range map[string]struct {
		at           time.Time
		whole, micro string
	}{
		"a moment": {
			time.Date(2026, 11, 21, 22, 53, 18, 44242000, time.UTC), `"2026-11-21T22:53:18Z"`, `"2026-11-21T22:53:18.044242Z"`,
		},
		"no fraction": {
			time.Date(2026, 11, 21, 22, 53, 18, 0, time.UTC), `"2026-11-21T22:53:18Z"`, `"2026-11-21T22:53:18.000000Z"`,
		},
		"cut, not rounded": {
			time.Date(2026, 12, 31, 23, 59, 59, 999999999, time.UTC), `"2026-12-31T23:59:59Z"`, `"2026-12-31T23:59:59.999999Z"`,
		},
		"another zone": {
			time.Date(2027, 1, 1, 0, 30, 0, 0, east), `"2026-12-31T22:30:00Z"`, `"2026-12-31T22:30:00.000000Z"`,
		},
		"single digits have two": {
			time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), `"2026-01-02T03:04:05Z"`, `"2026-01-02T03:04:05.000006Z"`,
		},
		"the zero time is a time": {time.Time{}, `"0001-01-01T00:00:00Z"`, `"0001-01-01T00:00:00.000000Z"`},
	} {
		whole, err := json.Marshal(wire.Time{Time: row.at})
		micro, err2 := json.Marshal(wire.MicroTime{Time: row.at})
		if err != nil || err2 != nil || string(whole) != row.whole || string(micro) != row.micro {
			t.Errorf("%s: %s %s (%v %v)", name, whole, micro, err, err2)
		}
	}
}

// For an absent member, the list of an agent's runs has null, and the list of a session's
// runs leaves the member out. Otherwise the two are the same.
func TestTheTwoListsOfRunsDifferOnlyInAbsentMembers(t *testing.T) {
	t.Parallel()
	empty := wire.StoredRun{}
	all := members(t, wire.Whole[wire.StoredRun]{Value: empty})
	if len(all) != reflect.TypeFor[wire.StoredRun]().NumField() {
		t.Errorf("a member is left out of %q", all)
	}
	var want []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[wire.StoredRun]()) {
		if name, options, _ := strings.Cut(f.Tag.Get("json"), ","); options == "" {
			want = append(want, name)
		}
	}
	if diff := cmp.Diff(want, members(t, empty)); diff != "" {
		t.Error(diff)
	}
	full := filled(t)
	a, err := wire.Marshal(full)
	b, err2 := wire.Marshal(wire.Whole[wire.StoredRun]{Value: full})
	if err != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("%v %v\n%s\n%s", err, err2, a, b)
	}
}

// filled returns a run in which no member is absent.
func filled(t *testing.T) (r wire.StoredRun) {
	t.Helper()
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Interface().(type) {
		case string:
			f.SetString("x")
		case json.RawMessage:
			f.SetBytes([]byte(`{"a":1}`))
		case []any:
			f.Set(reflect.ValueOf([]any{1}))
		case []string:
			f.Set(reflect.ValueOf([]string{"x"}))
		case *string:
			f.Set(reflect.ValueOf(new("x")))
		case *int:
			f.Set(reflect.ValueOf(new(1)))
		case wire.Time, wire.InputMedia:
		default:
			t.Fatalf("%s is a %T: fill it too", v.Type().Field(i).Name, f.Interface())
		}
	}
	return r
}

func TestARunLeavesOutAbsentMembers(t *testing.T) {
	t.Parallel()
	want := []string{
		"run_id", "agent_id", "agent_name", "session_id", "content_type", "model", "model_provider", "created_at",
		"status", "metrics", "input",
	}
	if diff := cmp.Diff(want, members(t, wire.Run{})); diff != "" {
		t.Error(diff)
	}
	// An empty list or text is not absent.
	list := json.RawMessage("[]")
	got := members(t, wire.Run{Content: new(""), Events: list, Messages: list, Tools: list})
	for _, name := range []string{"content", "events", "messages", "tools"} {
		if !slices.Contains(got, name) {
			t.Errorf("%s is left out", name)
		}
	}
}
