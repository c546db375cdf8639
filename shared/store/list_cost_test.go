package store_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

func TestAListOfSessionsAllocatesLittle(t *testing.T) { //nolint:paralleltest // it counts allocations
	db := storetest.New(t)
	for i := range 20 {
		create(t, db, store.Session{
			Owner: "ann", SessionID: fmt.Sprint(i), AgentID: new("a"), Name: new("Hello"), State: json.RawMessage(`{"a":1}`),
		})
	}
	list := func(limit int) float64 {
		return testing.AllocsPerRun(20, func() {
			_, total, err := db.Sessions(t.Context(), admin, store.SessionQuery{Limit: limit, Page: 1})
			if err != nil || total != 20 {
				t.Errorf("%d sessions, error %v", total, err)
			}
		})
	}
	one, all := list(1), list(20)
	t.Logf("%g allocations for a list of 1, %g for one of 20", one, all)
	if each := (all - one) / 19; each > 7.5 {
		t.Errorf("%.1f allocations for each session, want 7: its texts, and a struct for those that can be NULL", each)
	}
	if one > 100 {
		t.Errorf("%g allocations for a list, want at most 100", one)
	}
}
