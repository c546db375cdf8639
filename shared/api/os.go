package api

import (
	"context"
	"slices"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

// AgentOSVersion is the version whose contract is kept.
const AgentOSVersion = "3.1.10"

// OS answers what is asked about the OS itself.
type OS struct {
	ID, Name, Description string
	Version               string // Keyway's own
	Digest                string // of keyway.yaml
	Isolation             Isolation
	Agents                []wire.Agent
	Policy                *authz.Policy
	Started               time.Time
}

func (o OS) endpoints() []Endpoint {
	return []Endpoint{
		answer(route.Index, o.index),
		answer(route.Health, o.health),
		answer(route.Info, o.info),
		answer(route.Config, o.config),
		openAPI(),
		docs(),
	}
}

func (o OS) index(context.Context, *request, nothing) (wire.Index, error) {
	return wire.Index{Name: o.Name, Health: "/health", Info: "/info", Docs: "/docs"}, nil
}

func (o OS) health(context.Context, *request, nothing) (wire.Health, error) {
	return wire.Health{Status: "ok", InstantiatedAt: wire.MicroTime{Time: o.Started}}, nil
}

func (o OS) info(context.Context, *request, nothing) (wire.Info, error) {
	return wire.Info{
		OSID: o.ID, Name: o.Name, OSVersion: o.Version, AgnoVersion: AgentOSVersion, AgentCount: len(o.Agents),
		AuthMode: "jwt", UserIsolation: o.Isolation.On, ConfigDigest: o.Digest,
	}, nil
}

// config shows the agents that GET /agents would show the same caller.
func (o OS) config(_ context.Context, r *request, _ nothing) (wire.Config, error) {
	c := wire.Config{
		OSID: o.ID, Name: o.Name, Description: o.Description, AvailableModels: []wire.ModelRef{}, Databases: []string{DatabaseID},
		Session: wire.DBs{DBs: []wire.DB{{DBID: DatabaseID, DomainConfig: wire.DomainConfig{DisplayName: DatabaseID}, Tables: []string{"sessions"}}}},
		Agents:  []wire.AgentSummary{}, Teams: []any{}, Workflows: []any{}, Interfaces: []any{},
	}
	listing := o.Policy.Decide(r.principal, "GET", "/agents")
	for _, a := range o.Agents {
		m := wire.ModelRef{ID: a.Model.Model, Provider: a.Model.Provider}
		if !slices.Contains(c.AvailableModels, m) {
			c.AvailableModels = append(c.AvailableModels, m)
		}
		if listing.Lists(a.ID) {
			c.Agents = append(c.Agents, wire.AgentSummary{ID: a.ID, Name: a.Name, Description: a.Description, DBID: a.DBID, Model: m})
		}
	}
	return c, nil
}
