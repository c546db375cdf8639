package main

import (
	"log/slog"
	"os"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/deployed"
	"github.com/keyway-agents/keyway/shared/edge"
)

// open makes the authorizer of the OS that keyway.json describes. What it refuses goes
// to log. The error has a line for each fault.
func open(log *slog.Logger) (*edge.Authorizer, error) {
	cfg, err := deployed.Config(config.Data, config.Shown, config.Runs)
	if err != nil {
		return nil, err
	}
	a, err := edge.New(cfg, edge.Outside{Now: time.Now, Lookup: os.LookupEnv})
	if err == nil {
		a.Log = authz.NewLog(log, cfg.Digest)
	}
	return a, err
}
