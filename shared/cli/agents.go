package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/demo"
	"github.com/keyway-agents/keyway/shared/model/vendors"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/builtin"
)

// agents opens the models and tools of all agents: keyway.yaml's, then those of the
// operator's own program.
func (s *server) agents(cfg *config.Config) ([]run.Agent, error) {
	models, err := s.models(cfg)
	if err != nil {
		return nil, err
	}
	tools := builtin.Options{Egress: tool.Egress{Allow: cfg.Egress.Allow}, Lookup: s.lookup, Own: s.own.Tools}
	var all []run.Agent
	for _, a := range s.own.without(cfg) {
		agent := run.Agent{Agent: a, Model: models[a.ID]}
		for _, t := range a.Tools {
			set, err := builtin.Open(t, tools)
			if err != nil {
				return nil, usageError{fmt.Errorf("agent %s: %w", a.ID, err)}
			}
			agent.Tools = append(agent.Tools, set)
		}
		all = append(all, agent)
	}
	for _, a := range s.own.Agents {
		all = append(all, withDefaults(a))
	}
	return all, nil
}

// without are the agents that keyway.yaml itself declares.
func (o Own) without(cfg *config.Config) []config.Agent {
	return cfg.Agents[:len(cfg.Agents)-len(o.Agents)]
}

// declared are the agents in Go as keyway.yaml would describe them, for whoever
// asks what there is; every fault of them is told at once.
func (o Own) declared() (agents []config.Agent, err error) {
	var faults []error
	for i, a := range o.Agents {
		fault := func(text string) { faults = append(faults, fmt.Errorf("Own.Agents[%d]: %s", i, text)) }
		switch {
		case !config.ValidAgentID(a.ID):
			fault(fmt.Sprintf("the ID %q is not 1 to 64 letters, digits, dots, _ and -", a.ID))
		case slices.ContainsFunc(agents, func(other config.Agent) bool { return other.ID == a.ID }):
			fault(fmt.Sprintf("the ID %q is taken; give each agent its own", a.ID))
		}
		if a.Model == nil {
			fault("there is no Model; set one")
		}
		for _, path := range run.Unsupported(a.Agent) {
			fault(path + " is not part of this version; leave it out")
		}
		agents = append(agents, withDefaults(a).Agent)
	}
	return agents, errors.Join(faults...)
}

// withDefaults gives an agent declared in Go what keyway.yaml's agents have when it
// says nothing.
func withDefaults(a run.Agent) run.Agent {
	if a.Name == "" {
		a.Name = a.ID
	}
	if a.Timeout == 0 {
		a.Timeout = 10 * time.Minute
	}
	if a.NumHistoryRuns == 0 {
		a.NumHistoryRuns = 3
	}
	return a
}

// models opens the model of every agent. With --dev the demo model stands in
// for one whose key is missing.
func (s *server) models(cfg *config.Config) (map[string]model.Model, error) {
	out := map[string]model.Model{}
	var faults []error
	demos := map[string][]string{} // agents by what their models miss
	for i, a := range s.own.without(cfg) {
		m, err := vendors.Open(a.Model, vendors.Lookup(s.lookup))
		if variable, waits := cfg.Unset[config.Element("agents", i)+".model.api_key"]; waits { // never another's key instead
			err = vendors.NoKey{Variable: variable, Model: a.Model.Provider + ":" + a.Model.ID}
		}
		if noKey, ok := errors.AsType[vendors.NoKey](err); ok && s.Dev {
			m, err = demo.New(a.Model.ID), nil
			demos[noKey.Variable] = append(demos[noKey.Variable], a.ID)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("agents[%d].model: %w", i, err))
		}
		out[a.ID] = m
	}
	if len(faults) > 0 {
		return nil, usageError{errors.Join(faults...)}
	}
	for _, missing := range slices.Sorted(maps.Keys(demos)) {
		fmt.Fprintf(s.err, "no %s: the offline demo model answers for %s\n", missing, strings.Join(demos[missing], ", "))
	}
	return out, nil
}
