package api

import (
	"context"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Agents answers which agents there are.
type Agents struct {
	List []wire.Agent // in the order of keyway.yaml
}

// Describe is an agent as the wire shows it. Its instructions stay the
// operator's.
func Describe(a config.Agent, m wire.AgentModel) wire.Agent {
	out := wire.Agent{
		ID: a.ID, Name: a.Name, DBID: DatabaseID, Description: a.Description,
		Model:    m,
		Sessions: wire.AgentSession{SessionTable: "sessions", AddHistoryToContext: a.AddHistoryToContext},
	}
	if a.Markdown {
		out.SystemMessage = &wire.SystemFlags{Markdown: true}
	}
	return out
}

func (a Agents) endpoints() []Endpoint {
	return []Endpoint{
		answer(route.ListAgents, a.list),
		answer(route.GetAgent, a.get),
		answer(route.ListTeams, none),
		answer(route.ListWorkflows, none),
	}
}

// none answers a list of which Keyway serves nothing: teams and workflows.
func none(context.Context, *request, nothing) ([]wire.Agent, error) { return []wire.Agent{}, nil }

// list shows what the caller may read: a list is filtered, not refused.
func (a Agents) list(_ context.Context, r *request, _ nothing) ([]wire.Agent, error) {
	out := []wire.Agent{}
	for _, agent := range a.List {
		if r.decision.Lists(agent.ID) {
			out = append(out, agent)
		}
	}
	return out, nil
}

func (a Agents) get(_ context.Context, r *request, _ nothing) (wire.Agent, error) {
	return a.find(r.param("agent_id"))
}

func (a Agents) find(id string) (wire.Agent, error) {
	for _, agent := range a.List {
		if agent.ID == id {
			return agent, nil
		}
	}
	return wire.Agent{}, fault.Public(fault.NotFound, "Agent not found", nil)
}
