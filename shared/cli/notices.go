package cli

import (
	"context"
	"time"

	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/notify"
)

// notifyEvery is how often a server looks for runs to report. The query reads one entry of an index.
const notifyEvery = time.Second

// notifyOften reports runs to the operator's webhook until ctx ends. What is left then is reported by another server,
// or by the next start.
func (s *server) notifyOften(ctx context.Context) {
	for {
		select {
		case <-time.After(notifyEvery):
		case <-ctx.Done():
			return
		}
		if _, err := s.notices.Load().Deliver(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("could not report all notices; will try again", "err", err)
		}
	}
}

// applyNotify puts the webhook of a configuration in force.
func (s *server) applyNotify(c config.Notify) {
	sender, err := notify.New(c, s.db, s.log, assemble.Now)
	if err != nil { // The check of the file has accepted the address and the secret.
		s.log.Error("runs are not reported to the webhook", "err", err)
	}
	s.notices.Store(sender)
}
