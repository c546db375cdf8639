// Package roster opens the declared agents, each with its model and tools. It links
// every vendor and every tool, so only what runs agents imports it.
package roster

import (
	"errors"
	"fmt"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model/vendors"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/tool"
	"github.com/keyway-agents/keyway/shared/tool/builtin"
)

// Open opens the agents of keyway.yaml. The error has a line for each fault: a model
// whose key is missing, a setting that this version doesn't honour.
func Open(cfg *config.Config, lookup func(string) (string, bool)) ([]run.Agent, error) {
	var all []run.Agent
	var faults []error
	for i, a := range cfg.Agents {
		at := config.Element("agents", i)
		m, err := vendors.Open(a.Model, lookup)
		if variable, waits := cfg.Unset[at+".model.api_key"]; waits { // never another's key instead
			err = vendors.NoKey{Variable: variable, Model: a.Model.Provider + ":" + a.Model.ID}
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s.model: %w", at, err))
		}
		for _, path := range run.Unsupported(a) {
			faults = append(faults, fmt.Errorf("%s.%s: is not part of this version; leave it out", at, path))
		}
		agent := run.Agent{Agent: a, Model: m}
		for j, t := range a.Tools {
			set, err := builtin.Open(t, builtin.Options{Egress: tool.Egress{Allow: cfg.Egress.Allow}, Lookup: lookup})
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
