package api

import (
	"context"
	"slices"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

// AgentOSVersion is the AgentOS release whose API Keyway is compatible with. Clients
// read it from GET /info.
const AgentOSVersion = "3.1.10"

// OS answers the routes that describe the server itself: its identity, its health, its
// configuration and its documentation.
type OS struct {
	// ID, Name and Description are those of keyway.yaml. ID is required.
	ID, Name, Description string
	// Version is Keyway's own version. Required.
	Version string
	// Digest is the SHA-256 of the configuration, in hex. GET /config shows it as
	// config_digest. Required.
	Digest string
	// Isolation is shown by GET /info. Defaults to off.
	Isolation Isolation
	// Agents are all declared agents. GET /config shows those that the caller is
	// allowed to read. Defaults to none.
	Agents []wire.Agent
	// OwnerOf returns the owner of a caller's data and, if that is not certain, the one that it can be instead. Required.
	OwnerOf func(*authz.Principal) (name, otherwise string, err error)
	// AsWritten returns a text of keyway.yaml with variables in place of their values. POST /can explains mappings
	// with it. Required.
	AsWritten func(string) string
	// Policy decides which agents GET /config shows, and what POST /can answers. Required.
	Policy *authz.Policy
	// Local means that this program serves the routes of route.LocalServer too. GET /whoami shows it. Defaults to false.
	Local bool
	// MCP is how the door for MCP is described. Defaults to nil: the door is closed.
	MCP *wire.MCPOAuth
	// Started is when this process started. GET /health shows it. Required.
	Started time.Time
}

// endpoints implements Resource.
func (o OS) endpoints() []Endpoint {
	return []Endpoint{
		answer(route.Index, o.index),
		answer(route.Health, o.health),
		answer(route.HealthHead, o.health).withoutBody(),
		answer(route.Info, o.info),
		answer(route.Config, o.config),
		answer(route.MCPResource, o.mcpResource),
		answer(route.MCPResourceRoot, o.mcpResource),
		answer(route.WhoAmI, o.whoami),
		answer(route.Can, o.can),
		openAPI(),
		docs(),
		consolePage(),
		consoleFile(),
	}
}

// index answers the name of this OS and the paths at which a client starts.
func (o OS) index(context.Context, *request, nothing) (wire.Index, error) {
	return wire.Index{Name: o.Name, Health: "/health", Info: "/info", Docs: "/docs"}, nil
}

// health answers as long as the process can. It doesn't ask the database: a load
// balancer that replaced the process because of its database would gain nothing.
func (o OS) health(context.Context, *request, nothing) (wire.Health, error) {
	return wire.Health{Status: "ok", InstantiatedAt: wire.MicroTime{Time: o.Started}}, nil
}

// info answers who this server is. It needs no token, because AgentOS's clients ask for
// it before they have one: it shows how many agents there are, but not which ones.
func (o OS) info(context.Context, *request, nothing) (wire.Info, error) {
	return wire.Info{
		MCP:  o.mcpInfo(),
		OSID: o.ID, Name: o.Name, OSVersion: o.Version, AgnoVersion: AgentOSVersion, AgentCount: len(o.Agents),
		AuthMode: "jwt", UserIsolation: o.Isolation.On,
	}, nil
}

// mcpInfo describes the door for MCP, so that agno connect finds it.
func (o OS) mcpInfo() (m wire.MCP) {
	if o.MCP == nil {
		return m
	}
	m.Enabled, m.Path = true, new(config.MCPPath)
	if len(o.MCP.AuthorizationServers) > 0 {
		m.OAuth = o.MCP
	}
	return m
}

// mcpResource describes the door for MCP to OAuth clients, which ask for it before they have a token. It names no
// agent and no scope.
func (o OS) mcpResource(context.Context, *request, nothing) (out wire.ProtectedResource, err error) {
	if o.MCP == nil {
		return out, fault.NotFound
	}
	return wire.ProtectedResource{
		Resource: o.MCP.Resource, AuthorizationServers: o.MCP.AuthorizationServers,
		BearerMethodsSupported: []string{"header"}, ResourceName: o.Name,
	}, nil
}

// config answers the models and agents. It shows only the agents that GET /agents
// would show to the same caller, so the scope config:read reveals no agent. The list
// of models has each model once.
//
// config_digest lets an operator check which configuration a deployment has. GET /info, which needs no
// token, does not show it: somebody who guesses a secret that is written into the file could check the
// guess with it.
func (o OS) config(_ context.Context, r *request, _ nothing) (wire.Config, error) {
	c := wire.Config{
		OSID: o.ID, Name: o.Name, Description: o.Description, AvailableModels: []wire.ModelRef{},
		Databases: []string{DatabaseID},
		Session: wire.DBs{DBs: []wire.DB{{
			DBID: DatabaseID, DomainConfig: wire.DomainConfig{DisplayName: DatabaseID}, Tables: []string{"sessions"},
		}}},
		Agents: []wire.AgentSummary{}, Teams: []any{}, Workflows: []any{}, Interfaces: []any{}, ConfigDigest: o.Digest,
	}
	listing := o.Policy.Decide(r.principal, "GET", "/agents")
	for _, a := range o.Agents {
		m := wire.ModelRef{ID: a.Model.Model, Provider: a.Model.Provider}
		if !slices.Contains(c.AvailableModels, m) {
			c.AvailableModels = append(c.AvailableModels, m)
		}
		if listing.Lists(a.ID) {
			c.Agents = append(c.Agents, wire.AgentSummary{
				ID: a.ID, Name: a.Name, Description: a.Description, DBID: a.DBID, Model: m,
			})
		}
	}
	return c, nil
}
