// Package agents opens the declared agents, each with its model and its tools. It links
// every model provider and every tool, so only programs that execute runs import it.
package agents

import (
	"errors"
	"fmt"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/providers"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/builtin"
)

// Options configure how agents are opened.
type Options struct {
	// Lookup reads the environment, which holds the keys of models and tools. Required.
	Lookup func(string) (string, bool)
	// Tools are the operator's own tools in Go, which agents can name. Defaults to none.
	Tools []tool.Tool
	// StandIn returns the model of an agent whose API key is missing. Defaults to none: a
	// missing key is then an error.
	StandIn func(config.Agent, providers.NoKey) model.Model
}

// Open opens the agents of keyway.yaml as a deployed function does, without tools of the
// operator's own and without stand-ins for models.
func Open(cfg *config.Config, lookup func(string) (string, bool)) ([]run.Agent, error) {
	return Options{Lookup: lookup}.Open(cfg, cfg.Agents)
}

// OpenModel opens the model of the agent with this index in cfg. It makes no network request.
func OpenModel(cfg *config.Config, i int, lookup func(string) (string, bool)) (model.Model, error) {
	m := cfg.Agents[i].Model
	if variable, unset := cfg.Unset[config.Element("agents", i)+".model.api_key"]; unset {
		// The agent names its own variable. The provider's usual variable may hold
		// another account's key, so it is not used in its place.
		return nil, providers.NoKey{Variable: variable, Model: m.Provider + ":" + m.ID}
	}
	return providers.Open(m, lookup)
}

// Open opens the given agents. They must be the first agents of cfg, or all of them,
// because an error names an agent by its index in cfg (agents[1]). The error has one line
// for each error, such as a missing API key or a setting that this version doesn't
// implement. Open makes no network request.
//
// The tools can't reach Lambda's Runtime API. Its address is in AWS_LAMBDA_RUNTIME_API,
// and a tool that reached it, for example through a redirect, could read the events of
// other callers.
func (o Options) Open(cfg *config.Config, agents []config.Agent) ([]run.Agent, error) {
	var all []run.Agent
	var faults []error
	runtime, _ := o.Lookup("AWS_LAMBDA_RUNTIME_API")
	egress := tool.Egress{Allow: cfg.Egress.Allow, RuntimeAPI: runtime}
	tools := builtin.Options{Egress: egress, Lookup: o.Lookup, Own: o.Tools}
	for i, a := range agents {
		at := config.Element("agents", i)
		m, err := OpenModel(cfg, i, o.Lookup)
		if noKey, ok := errors.AsType[providers.NoKey](err); ok && o.StandIn != nil {
			m, err = o.StandIn(a, noKey), nil
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s.model: %w", at, err))
		}
		for _, f := range config.Unsupported(at, a) {
			faults = append(faults, errors.New(f.String()))
		}
		agent := run.Agent{Agent: a, Model: m}
		for j, t := range a.Tools {
			set, err := builtin.Open(t, tools)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", config.Element(at+".tools", j), err))
				continue
			}
			agent.Tools = append(agent.Tools, set)
		}
		all = append(all, agent)
	}
	return all, errors.Join(faults...)
}
