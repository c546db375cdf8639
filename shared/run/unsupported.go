package run

import "github.com/keyway-agents/keyway/shared/config"

// Unsupported returns the settings of an agent that keyway.yaml may have but that this version does not enforce, as
// paths below the agent. A configuration with one of them is rejected: an operator must not rely on a limit that has
// no effect.
func Unsupported(a config.Agent) (paths []string) {
	for _, setting := range []struct {
		path string
		set  bool
	}{
		{"update_memory_on_run", a.UpdateMemoryOnRun},
		{"limits", a.Limits != config.Limits{}},
	} {
		if setting.set {
			paths = append(paths, setting.path)
		}
	}
	return paths
}
