// Package deployed reads the configuration that keyway build put beside a function's
// program, with the function's environment. It decides nothing about it: see config.
package deployed

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyway-agents/keyway/shared/config"
)

// Config reads keyway.json, the canonical form of keyway.yaml. without are the parts
// that the function does not act on. The error has a line for each fault, among them
// keys with which anybody can sign.
func Config(without ...config.Part) (*config.Config, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir := cmp.Or(os.Getenv("LAMBDA_TASK_ROOT"), filepath.Dir(program))
	data, err := os.ReadFile(filepath.Join(dir, "keyway.json")) // #nosec G703 -- Lambda names the directory
	if err != nil {
		return nil, fmt.Errorf("%w; it is the canonical JSON of keyway.yaml, and lies beside the program: see keyway build", err)
	}
	cfg, faults := config.Parse(data, config.Options{Lookup: os.LookupEnv, Dir: dir, Without: without, Platform: true})
	if faults == nil {
		faults = cfg.Forgeable()
	}
	if faults != nil {
		return nil, config.Faults(faults)
	}
	return cfg, nil
}
