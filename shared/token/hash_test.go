package token_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/token"
)

func TestATokenHasOneHashInAllForms(t *testing.T) {
	t.Parallel()
	const want = "256d04db4e5e4ac3" // printf %s header.payload.signature | sha256sum
	for _, value := range []string{"Bearer a.b.c", "bearer   a.b.c ", "a.b.c"} {
		if got := token.Hash([]string{value}); got != token.Hash([]string{"Bearer a.b.c"}) || len(got) != 16 {
			t.Errorf("%q: %s", value, got)
		}
	}
	if got := token.Hash([]string{"Bearer header.payload.signature"}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, none := range [][]string{nil, {""}, {" "}} {
		if got := token.Hash(none); got != "" {
			t.Errorf("%q has the hash %s", none, got)
		}
	}
	if one, two := token.Hash([]string{"a"}), token.Hash([]string{"a", "b"}); one == two {
		t.Error("two headers have the hash of the first")
	}
}
