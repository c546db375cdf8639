package run

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJSONIsMadeFitForTheDatabase(t *testing.T) {
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
		if got := string(storableJSON(json.RawMessage(in))); got != want {
			t.Errorf("%.60s became %.60s, want %s", in, got, want)
		}
	}
	if storableJSON(nil) != nil {
		t.Error("nothing became something")
	}
}

// FuzzStorableJSON: what was JSON is JSON, and a second time changes nothing.
func FuzzStorableJSON(f *testing.F) {
	for _, s := range []string{`{"a":"\u0000\ud800"}`, `[1e999,"\\\\u0000"]`, `"\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once := storableJSON(json.RawMessage(text))
		if json.Valid([]byte(text)) && !json.Valid(once) {
			t.Errorf("%q became %q", text, once)
		}
		if twice := storableJSON(once); string(twice) != string(once) && json.Valid([]byte(text)) {
			t.Errorf("%q, %q", once, twice)
		}
	})
}
