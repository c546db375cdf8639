package main

import (
	"log/slog"
	"os"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/deployed"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/loghash"
)

// open makes the authorizer from the keyway.json beside the program. It leaves out the
// parts of the configuration that an authorizer doesn't use, so that a missing database
// URL, for example, doesn't stop it. Rejected tokens are logged to log. The error has one
// line for each error of the configuration.
func open(log *slog.Logger) (*edge.Authorizer, error) {
	cfg, err := deployed.Config(config.Data, config.Shown, config.Runs)
	if err != nil {
		return nil, err
	}
	a, err := edge.New(cfg, edge.Outside{Now: time.Now, Lookup: os.LookupEnv})
	if err != nil {
		return nil, err
	}
	a.Log = authz.NewLog(log, cfg.Digest, a.Agents)
	if a.Hash, err = loghash.FromEnv(os.LookupEnv); err != nil {
		return nil, err
	}
	if len(a.Hash) == 0 {
		log.Warn(loghash.Warning)
	}
	return a, nil
}
