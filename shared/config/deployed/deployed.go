// Package deployed reads the configuration of a Lambda function: the keyway.json that keyway build put
// into the function's package, with the variables of the function's environment. Package config
// decides whether it is valid.
package deployed

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyway-agents/keyway/shared/config"
)

// Config reads keyway.json, the canonical form of keyway.yaml, from Lambda's directory of the function
// ($LAMBDA_TASK_ROOT), or else from the directory of the program. without lists the parts that the
// function does not use. Invalid settings are returned as config.Faults. So is a key that is a published
// secret, because anyone could sign tokens for a deployed API with it.
func Config(without ...config.Part) (*config.Config, error) {
	// Lambda unpacks the function's package into this directory. Elsewhere, as in a test or a container image,
	// the file is in the directory of the program.
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir := cmp.Or(os.Getenv("LAMBDA_TASK_ROOT"), filepath.Dir(program))
	data, err := os.ReadFile(filepath.Join(dir, "keyway.json")) // #nosec G703 -- Lambda names the directory
	if err != nil {
		return nil, fmt.Errorf("%w; run keyway build, which writes it into the directory of the program", err)
	}
	cfg, faults := config.Parse(data, config.Options{
		Lookup: os.LookupEnv, Dir: dir, Without: without, OptionalKeys: true, OnAWS: true,
	})
	if faults == nil {
		faults = cfg.Forgeable()
	}
	if faults != nil {
		return nil, config.Faults(faults)
	}
	return cfg, nil
}
