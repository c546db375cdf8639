package strictjson_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/keyway-agents/keyway/shared/strictjson"
)

func FuzzTextIsWrittenAsByEncodingJSON(f *testing.F) {
	for _, seed := range []string{
		"", "a", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "ä€😀<>&", "\u2028\u2029\ufffd", "\xff", "a\xed\xa0\x80b", "\xe2\x80",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(text); err != nil {
			t.Fatal(err)
		}
		got := append(strictjson.AppendText([]byte("x"), text), '\n')
		if string(got) != "x"+want.String() || string(strictjson.AppendText(nil, []byte(text)))+"\n" != want.String() {
			t.Errorf("%q: %s, want %s", text, got, &want)
		}
	})
}
