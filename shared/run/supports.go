package run

import "github.com/keyway-agents/keyway/shared/config"

// Unsupported names the settings of an agent, by their paths below it, that this
// version does not honour: nobody must believe in a bound that isn't there.
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
