package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/agents"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/demo"
	"github.com/keyway-agents/keyway/shared/model/providers"
	"github.com/keyway-agents/keyway/shared/run"
)

// agents opens the models and tools of all agents: keyway.yaml's, then those of the
// operator's own program. With --dev the demo model stands in for one whose key is
// missing.
func (s *server) agents(cfg *config.Config) ([]run.Agent, error) {
	demos := map[string][]string{} // agents by what their models miss
	o := agents.Options{Lookup: s.lookup, Tools: s.own.Tools}
	if s.Dev {
		o.StandIn = func(a config.Agent, missing providers.NoKey) model.Model {
			demos[missing.Variable] = append(demos[missing.Variable], a.ID)
			return demo.New(a.Model.ID)
		}
	}
	all, err := o.Open(cfg, s.own.without(cfg))
	if err != nil {
		return nil, usageError{err}
	}
	for _, missing := range slices.Sorted(maps.Keys(demos)) {
		fmt.Fprintf(s.err, "no %s: the offline demo model answers for %s\n", missing, strings.Join(demos[missing], ", "))
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
