package cli

import (
	"errors"
	"fmt"
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
	for _, a := range cfg.Agents {
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
		if a.ID == "" || a.Model == nil || slices.ContainsFunc(all, func(other run.Agent) bool { return other.ID == a.ID }) {
			return nil, usage("the agent %q in Go: it needs an ID of its own and a Model", a.ID)
		}
		all = append(all, withDefaults(a))
	}
	return all, nil
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
	var demos []string
	missing := ""
	for i, a := range cfg.Agents {
		m, err := vendors.Open(a.Model, vendors.Lookup(s.lookup))
		if variable, waits := cfg.Unset[config.Element("agents", i)+".model.api_key"]; waits { // never another's key instead
			err = vendors.NoKey{Variable: variable, Model: a.Model.Provider + ":" + a.Model.ID}
		}
		if noKey, ok := errors.AsType[vendors.NoKey](err); ok && s.Dev {
			m, err, missing = demo.New(a.Model.ID), nil, noKey.Variable
			demos = append(demos, a.ID)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("agents[%d].model: %w", i, err))
		}
		out[a.ID] = m
	}
	if len(faults) > 0 {
		return nil, usageError{errors.Join(faults...)}
	}
	if len(demos) > 0 {
		fmt.Fprintf(s.err, "no %s: the offline demo model answers for %s\n", missing, strings.Join(demos, ", "))
	}
	return out, nil
}
