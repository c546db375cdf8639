package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
)

func TestOfManyErrorsTheFirstAreReported(t *testing.T) {
	t.Parallel()
	var file strings.Builder
	file.WriteString(`{"id":"os"`)
	for i := range 24000 {
		fmt.Fprintf(&file, `,"k%d":1`, i)
	}
	file.WriteString("}")
	_, faults := config.Parse([]byte(file.String()), config.Options{})
	if len(faults) != 101 || !strings.Contains(faults[100].String(), "more errors") {
		t.Errorf("%d errors, the last is %s", len(faults), faults[len(faults)-1])
	}
}
