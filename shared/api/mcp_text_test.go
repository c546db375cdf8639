package api

import (
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
)

func TestTheTextOfALimitSaysOnceToAnMCPClientWhenToTryAgain(t *testing.T) {
	t.Parallel()
	used := limit.Use{Name: limit.RunsPerMinute, Limit: 1, Used: 1, Reset: 42 * time.Second}
	if text := (mcpError{used.Error()}).Error(); strings.Count(text, "42 seconds") != 1 {
		t.Error(text)
	}
	full := fault.Public(fault.Unavailable, "The server is full", nil)
	full.RetryAfter = 2 * time.Second
	if text := (mcpError{full}).Error(); text != "The server is full (in 2 seconds)" {
		t.Error(text)
	}
}
