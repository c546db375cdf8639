package token

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAListWithOtherValuesThanStringsIsNil(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string][]string{
		`["a","b"]`: {"a", "b"}, `[ "a" , "b" ]`: {"a", "b"}, `"a b"`: {"a b"}, `""`: {""}, `["",""]`: {"", ""},
		`["a\"]","\u0061"]`: {`a"]`, "a"}, `["a,b"]`: {"a,b"}, `[]`: {},
		`["a",1]`: nil, `["a",null]`: nil, `["a",["b"]]`: nil, `[{"a":"b"}]`: nil, `{"a":"b"}`: nil, `null`: nil, `1`: nil,
	} {
		o, err := parseObject([]byte(`{"x":0,"list":` + raw + `,"y":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, o.list("list")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
}

// FuzzParseObject compares the members with those that encoding/json reads.
func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : [1, {"b": "]}"}] , "c":-1.5e3,"\u0061b":null } `, `{"a":1,"\u0061":2}`, `{"a":1,"A":2}`,
		`{"a":"\ud83d\ude42\\\""}`, `{"a":"\ud83d"}`, `{"a":"\ude42\ud83d"}`, `{"a":"\\ud83d"}`, "{\"\xff\":1}",
		`[]`, `{} {}`, ``,
		`{"a":true,"b":false}`, `{"a":"\ud83d\u0041"}`, `{"":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := parseObject(data)
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		got := map[string]json.RawMessage{}
		for name, raw := range o {
			got[name] = json.RawMessage(raw)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("members (-encoding/json +ours):\n%s", diff)
		}
		for name, raw := range want {
			if string(raw) != "null" {
				wantSameValue(t, o, name, raw)
			}
		}
	})
}

func wantSameValue(t *testing.T, o object, name string, raw []byte) {
	t.Helper()
	var theirs string
	isText := json.Unmarshal(raw, &theirs) == nil
	if ours, ok := o.text(name); ok != isText || ours != theirs {
		t.Fatalf("text %s: %q, %v, encoding/json says %q, %v", raw, ours, ok, theirs, isText)
	}
	if isText {
		return
	}
	var list []any
	var want []string
	allText := json.Unmarshal(raw, &list) == nil
	for _, item := range list {
		s, ok := item.(string)
		want, allText = append(want, s), allText && ok
	}
	if ours := o.list(name); allText && !slices.Equal(want, ours) || !allText && ours != nil {
		t.Fatalf("list %s: %q, encoding/json says %q, all text %v", raw, ours, want, allText)
	}
}
