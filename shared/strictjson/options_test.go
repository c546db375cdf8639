package strictjson

import (
	"strings"
	"testing"
)

func TestTheValuesOfATextAreCounted(t *testing.T) {
	t.Parallel()
	for text, n := range map[string]int{
		`1`: 1, `[]`: 1, `[1,"a",null]`: 4, `{"a":{"b":[true]},"c":{}}`: 5,
	} {
		if e := Check([]byte(text), Options{MaxValues: n}); e != nil {
			t.Errorf("%s with %d: %+v", text, n, *e)
		}
		if n == 1 {
			continue
		}
		if e := Check([]byte(text), Options{MaxValues: n - 1}); e == nil || !e.IsJSON() {
			t.Errorf("%s with %d: %v", text, n-1, e)
		}
	}
	long := `[` + strings.Repeat(`{"a":1},`, 1_000_000) + `1]`
	if e := Check([]byte(long), Options{MaxValues: 100}); e == nil || e.Offset > 1000 {
		t.Errorf("a long list is read until %v", e)
	}
}

func TestTwoMembersOfOneNameAreFoundAtAnyDepth(t *testing.T) {
	t.Parallel()
	for text, at := range map[string]int{
		`{"a":1,"b":{"a":1},"A":[{"a":1},{"a":2}]}`: -1,
		`{"a":1,"a":1}`:               7,
		`{"a":1,"\u0061":1}`:          7,
		`[{"b":{"a":1,"c":2,"a":3}}]`: 19,
	} {
		e := Check([]byte(text), Options{Distinct: true})
		if at < 0 != (e == nil) || e != nil && (e.Offset != at || !e.IsJSON()) {
			t.Errorf("%s: %v", text, e)
		}
		if e := Check([]byte(text), Options{}); e != nil {
			t.Errorf("%s without the option: %+v", text, *e)
		}
	}
}
