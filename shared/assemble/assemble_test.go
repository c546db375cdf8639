package assemble_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/route"
)

// Every route has one function, which serves it and no route of another.
func TestEachFunctionServesOnlyItsRoutes(t *testing.T) {
	t.Parallel()
	policy, err := authz.New(route.Table, "agent_os:admin", nil)
	if err != nil {
		t.Fatal(err)
	}
	parts := assemble.Parts{Config: &config.Config{ID: "os"}, Policy: policy, Log: slog.New(slog.DiscardHandler),
		Started: time.Now(), Local: &api.Local{}, Dev: &api.Dev{}}
	served := map[route.Name]int{}
	for _, f := range []route.Function{route.Settings, route.Agents, route.Runs, route.Sessions, route.Memories,
		route.LocalServer, route.DevServer} {
		server, ok := assemble.For(f, parts).Handler.(*api.Server)
		if !ok {
			t.Fatalf("%s is no server", f)
		}
		for r := range route.Table.All() {
			if got := server.Serves(r.Name); got != (r.Function == f) {
				t.Errorf("the function %s serves %s: %t", f, r, got)
			} else if got {
				served[r.Name]++
			}
		}
	}
	all, _ := assemble.All(parts).Handler.(*api.Server)
	for r := range route.Table.All() {
		if served[r.Name] != 1 || !all.Serves(r.Name) {
			t.Errorf("%s is served by %d functions", r, served[r.Name])
		}
	}
}
