package strictjson

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestMakeStorableReplacesWhatJSONBRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                       "",
		`{"b":1,"a":"\u00e9 é"}`:                 `{"b":1,"a":"\u00e9 é"}`,
		`"\u0000"`:                               `"\ufffd"`,
		`"\\u0000"`:                              `"\\u0000"`, // a backslash and u0000
		`"\\\u0000"`:                             `"\\\ufffd"`,
		`"\ud83d\ude00"`:                         `"\ud83d\ude00"`,
		`"\ud83d"`:                               `"\ufffd"`,
		`"\ud83d\ud83d\ude00"`:                   `"\ufffd\ud83d\ude00"`,
		`"\ude00x\n\""`:                          `"\ufffdx\n\""`,
		`{"\ud800":[-1.5e3,0,10]}`:               `{"\ufffd":[-1.5e3,0,10]}`,
		`[1e999,-1e999,1e-99999,0e9999]`:         `[null,null,0,0]`,
		`"1e999 -"`:                              `"1e999 -"`,
		`[0.` + strings.Repeat("1", 20000) + `]`: `[0.1111111111111111]`,
	} {
		if got := string(MakeStorable([]byte(in))); got != want {
			t.Errorf("%.60s became %.60s, want %s", in, got, want)
		}
	}
	if MakeStorable(nil) != nil {
		t.Error("nil became JSON")
	}
}

func TestHasNULFindsTheEscapeAndNothingLikeIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`"\u0000"`: true, `{"\u0000":1}`: true, `"\\\u0000"`: true, `"\n\u0000"`: true,
		`"\\u0000"`: false, `"u0000"`: false, `"\u0001"`: false, `"\u00000"`: true, "0": false,
	} {
		if got := HasNUL([]byte(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// FuzzMakeStorable: valid JSON becomes JSON that Check accepts and jsonb can store,
// and a second call changes nothing.
func FuzzMakeStorable(f *testing.F) {
	for _, s := range []string{`{"a":"\u0000\ud800"}`, `[1e999,"\\\\u0000"]`, `"\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once := MakeStorable([]byte(text))
		if !json.Valid([]byte(text)) {
			return // no panic is enough
		}
		e := Check(once, Options{MaxDepth: 9_999})
		if e != nil && e.Text != notUTF8 || HasNUL(once) {
			t.Errorf("%q became %q: %v", text, once, e)
		}
		if twice := MakeStorable(once); string(twice) != string(once) {
			t.Errorf("%q, %q", once, twice)
		}
	})
}
