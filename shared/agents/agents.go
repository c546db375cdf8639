// Package agents opens the declared agents, each with its model and tools. It links
// every vendor and every tool, so only what runs agents imports it.
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

// Options are what Open takes from its surroundings. Lookup is required.
type Options struct {
	Lookup func(string) (string, bool)
	Tools  []tool.Tool // the operator's own, which agents name
	// StandIn answers for a model whose key is missing; nil: that is a fault.
	StandIn func(config.Agent, providers.NoKey) model.Model
}

// Open opens the agents of keyway.yaml as a function does: with nothing of an
// operator's own, and no stand-in.
func Open(cfg *config.Config, lookup func(string) (string, bool)) ([]run.Agent, error) {
	return Options{Lookup: lookup}.Open(cfg, cfg.Agents)
}

// Open opens agents, the first of cfg's. The error has a line for each fault: a model
// whose key is missing, a setting that this version doesn't honour.
func (o Options) Open(cfg *config.Config, agents []config.Agent) ([]run.Agent, error) {
	var all []run.Agent
	var faults []error
	runtime, _ := o.Lookup("AWS_LAMBDA_RUNTIME_API") // Lambda sets it, nothing else does
	tools := builtin.Options{Egress: tool.Egress{Allow: cfg.Egress.Allow, RuntimeAPI: runtime}, Lookup: o.Lookup, Own: o.Tools}
	for i, a := range agents {
		at := config.Element("agents", i)
		m, err := providers.Open(a.Model, o.Lookup)
		if variable, waits := cfg.Unset[at+".model.api_key"]; waits { // never another's key instead
			err = providers.NoKey{Variable: variable, Model: a.Model.Provider + ":" + a.Model.ID}
		}
		if noKey, ok := errors.AsType[providers.NoKey](err); ok && o.StandIn != nil {
			m, err = o.StandIn(a, noKey), nil
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s.model: %w", at, err))
		}
		for _, f := range Unsupported(at, a) {
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

// Unsupported returns an error for each setting of the agent that this version does
// not implement. at is the agent's own path, such as agents[1].
func Unsupported(at string, a config.Agent) (faults []config.Fault) {
	for _, setting := range run.Unsupported(a) {
		faults = append(faults, config.Fault{
			Path: config.Member(at, setting), Text: "is not part of this version", Remedy: "leave it out",
		})
	}
	return faults
}
