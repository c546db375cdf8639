package pgvalue_test

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/pgvalue"
)

func TestAValidTextIsCleanWithoutACopy(t *testing.T) { //nolint:paralleltest // it counts allocations
	text := strings.Repeat("é und ☃ ", 1000)
	if n := testing.AllocsPerRun(100, func() { pgvalue.CleanText(text) }); n > 0 {
		t.Errorf("%g allocations, want none", n)
	}
}
