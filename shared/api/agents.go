package api

import (
	"context"
	"net/url"
	"reflect"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Agents answers the routes that list agents, teams and workflows.
type Agents struct {
	// List holds the declared agents in the order of keyway.yaml. Defaults to none.
	List []wire.Agent
}

// Describe returns the public description of an agent, as GET /agents shows it. It
// leaves out the instructions, the tools and the limits: callers have no need to
// see them, and instructions can contain what the operator keeps private.
func Describe(a config.Agent, m wire.AgentModel) wire.Agent {
	out := wire.Agent{
		ID: a.ID, Name: a.Name, DBID: DatabaseID, Description: a.Description,
		Model:    m,
		Sessions: wire.AgentSession{SessionTable: "sessions", AddHistoryToContext: a.AddHistoryToContext},
	}
	if names := toolNames(a.Tools); len(names) > 0 {
		out.Tools = &wire.AgentTools{Tools: names}
	}
	if a.Markdown {
		out.SystemMessage = &wire.SystemFlags{Markdown: true}
	}
	return out
}

// toolNames returns what keyway.yaml names: tools, the allowed tools of MCP servers, and the host of a server whose
// tools are all allowed. Its address may have a key, and only a run asks it.
func toolNames(tools []config.Tool) (names []wire.AgentTool) {
	for _, t := range tools {
		switch {
		case t.MCP == nil:
			names = append(names, wire.AgentTool{Name: t.Name})
		case len(t.MCP.Allow) > 0:
			for _, name := range t.MCP.Allow {
				names = append(names, wire.AgentTool{Name: name})
			}
		default:
			if u, err := url.Parse(string(t.MCP.URL)); err == nil && u.Hostname() != "" {
				names = append(names, wire.AgentTool{Name: u.Hostname() + " (MCP)"})
			}
		}
	}
	return names
}

// endpoints implements Resource.
func (a Agents) endpoints() []Endpoint {
	return []Endpoint{
		answer(route.ListAgents, a.list()).returning(reflect.TypeFor[[]wire.Agent]()),
		answer(route.GetAgent, a.get),
		answer(route.ListTeams, none),
		answer(route.ListWorkflows, none),
	}
}

// none answers the lists of teams and of workflows, which Keyway doesn't have. AgentOS's
// clients ask for them at start and need an empty list, not a 404.
func none(context.Context, *request, nothing) ([]wire.Agent, error) { return []wire.Agent{}, nil }

// list answers the agents that the caller is allowed to read. A caller allowed to read
// only some agents gets a shorter list, not a 403, as in AgentOS.
// Each agent is encoded once: which ones a caller gets is all that differs between two answers.
func (a Agents) list() func(context.Context, *request, nothing) (any, error) {
	texts, size := make([]encoded, len(a.List)), len("[]")
	for i, agent := range a.List {
		data, err := wire.Marshal(agent)
		if err != nil {
			panic(err) // texts, numbers and booleans always encode
		}
		texts[i], size = data, size+len(data)+len(",")
	}
	return func(_ context.Context, r *request, _ nothing) (any, error) {
		out := append(make(encoded, 0, size), '[')
		for i, agent := range a.List {
			if !r.decision.Lists(agent.ID) {
				continue
			}
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, texts[i]...)
		}
		return append(out, ']'), nil
	}
}

// get answers one agent. The policy has checked the scope for this id, so only a
// caller allowed to read an unknown id gets the 404.
func (a Agents) get(_ context.Context, r *request, _ nothing) (wire.Agent, error) {
	return a.find(r.param("agent_id"))
}

// find returns the agent with the id, or fault.NotFound with AgentOS's text.
func (a Agents) find(id string) (wire.Agent, error) {
	for _, agent := range a.List {
		if agent.ID == id {
			return agent, nil
		}
	}
	return wire.Agent{}, fault.Public(fault.NotFound, "Agent not found", nil)
}
