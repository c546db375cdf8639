package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/agents"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/demo"
	"github.com/keyway-agents/keyway/shared/model/providers"
	"github.com/keyway-agents/keyway/shared/run"
)

// agents opens the models and tools of all agents: keyway.yaml's first, then those
// of Options. With --dev, the demo model replaces a model whose API key is missing,
// so that a new user can try everything without an account at a provider.
func (s *server) agents(cfg *config.Config) ([]run.Agent, error) {
	demos := map[string][]string{} // the variable that is not set -> IDs of the agents that need it
	o := agents.Options{Lookup: s.lookup, Tools: s.own.Tools}
	if s.Dev {
		o.StandIn = func(a config.Agent, missing providers.NoKey) model.Model {
			demos[missing.Variable] = append(demos[missing.Variable], a.ID)
			return demo.New(a.Model.ID)
		}
	}
	// The agents in Go need no opening: their models and tools exist already.
	all, err := o.Open(cfg, s.own.declaredInFile(cfg))
	if err != nil {
		return nil, usageError{err}
	}
	// One line for each variable and not for each agent: the remedy is the variable.
	for _, missing := range slices.Sorted(maps.Keys(demos)) {
		fmt.Fprintf(s.err, "no %s: the offline demo model answers for %s\n", missing, strings.Join(demos[missing], ", "))
	}
	for _, a := range s.own.Agents {
		a.Agent = a.Agent.WithDefaults()
		all = append(all, a)
	}
	return all, nil
}

// declaredInFile returns the agents that keyway.yaml declares. load appends those of
// Options to cfg.Agents, so that every command knows all of them.
func (o Options) declaredInFile(cfg *config.Config) []config.Agent {
	return cfg.Agents[:len(cfg.Agents)-len(o.Agents)]
}

// declaredAgents returns the agents of Options in the form of keyway.yaml's, for the
// commands that list or check agents without opening a model. The error holds every
// error of every agent.
func (o Options) declaredAgents() (declared []config.Agent, err error) {
	var faults []error
	// The messages name the Go field, since no line of a file is wrong.
	for i, a := range o.Agents {
		fault := func(text string) { faults = append(faults, fmt.Errorf("Options.Agents[%d]: %s", i, text)) }
		// The ID is a segment of the path and a part of scopes, so the rules of keyway.yaml
		// hold here too. config checks that the file has no agent of the same ID.
		switch {
		case !config.ValidAgentID(a.ID):
			fault(fmt.Sprintf("the ID %q is not 1 to 64 letters, digits, dots, _ and -; change it", a.ID))
		case slices.ContainsFunc(declared, func(other config.Agent) bool { return other.ID == a.ID }):
			fault(fmt.Sprintf("the ID %q is taken; give each agent its own", a.ID))
		}
		if a.Model == nil {
			fault("there is no Model; set one")
		}
		for _, f := range config.Unsupported(fmt.Sprintf("Options.Agents[%d]", i), a.Agent) {
			faults = append(faults, errors.New(f.String()))
		}
		declared = append(declared, a.Agent.WithDefaults())
	}
	return declared, errors.Join(faults...)
}
