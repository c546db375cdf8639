package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
)

// open makes the authorizer of the OS that keyway.json describes: keyway.yaml's
// canonical form, beside the program. What it refuses goes to log. The error has a line for each fault.
func open(log *slog.Logger) (*edge.Authorizer, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir := cmp.Or(os.Getenv("LAMBDA_TASK_ROOT"), filepath.Dir(program))
	data, err := os.ReadFile(filepath.Join(dir, "keyway.json")) // #nosec G703 -- Lambda names the directory
	if err != nil {
		return nil, fmt.Errorf("%w; it is the canonical JSON of keyway.yaml, and lies beside the program", err)
	}
	cfg, faults := config.Parse(data, config.Options{
		Lookup: os.LookupEnv, Dir: dir, Without: []config.Part{config.Data, config.Shown, config.Runs},
	})
	if faults == nil {
		faults = cfg.Forgeable()
	}
	if faults != nil {
		return nil, config.Faults(faults)
	}
	a, err := edge.New(cfg, edge.Outside{Now: time.Now, Lookup: os.LookupEnv})
	if err == nil {
		a.Log = authz.NewLog(log, cfg.Digest)
	}
	return a, err
}
