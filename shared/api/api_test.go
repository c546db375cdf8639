package api_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/route"
)

func TestEveryRouteOfTheTableHasAHandler(t *testing.T) {
	t.Parallel()
	whole := api.New(api.Options{}, api.OS{}, api.Agents{}, api.Runs{}, api.Sessions{}, api.Memories{})
	part := api.New(api.Options{}, api.Sessions{})
	for r := range route.Table.All() {
		if !whole.Serves(r.Name) {
			t.Errorf("nobody answers %s", r)
		}
		if got := part.Serves(r.Name); got != (r.Function == route.Sessions) {
			t.Errorf("the sessions alone answer %s: %t", r, got)
		}
	}
}

func TestTwoHandlersForOneRouteAreAMistake(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("the second handler was taken")
		}
	}()
	api.New(api.Options{}, api.Sessions{}, api.Sessions{})
}
