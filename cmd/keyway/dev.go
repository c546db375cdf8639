package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/model/demo"
	"github.com/keyway-agents/keyway/shared/model/vendors"
)

// models opens the model of every agent. With --dev the demo model stands in
// for one whose key is missing.
func (s *server) models(cfg *config.Config) (map[string]model.Model, error) {
	out := map[string]model.Model{}
	var faults []error
	var demos []string
	missing := ""
	for i, a := range cfg.Agents {
		m, err := vendors.Open(a.Model, vendors.Lookup(s.lookup))
		if variable, waits := cfg.Unset[config.Element("agents", i)+".model.api_key"]; waits { // never another's key instead
			err = vendors.NoKey{Variable: variable, Model: a.Model.Provider + ":" + a.Model.ID}
		}
		if noKey, ok := errors.AsType[vendors.NoKey](err); ok && s.Dev {
			m, err, missing = demo.New(a.Model.ID), nil, noKey.Variable
			demos = append(demos, a.ID)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("agents[%d].model: %w", i, err))
		}
		out[a.ID] = m
	}
	if len(faults) > 0 {
		return nil, usageError{errors.Join(faults...)}
	}
	if len(demos) > 0 {
		fmt.Fprintf(s.err, "no %s: the offline demo model answers for %s\n", missing, strings.Join(demos, ", "))
	}
	return out, nil
}

// devTTL is how long the printed tokens are good.
const devTTL = 24 * time.Hour

// greet prints what a newcomer types next: tokens, the first an administrator's,
// and requests with the answers they get.
func (s *server) greet(cfg *config.Config, addr string) {
	signer, err := s.signer(cfg)
	if err != nil {
		fmt.Fprintf(s.err, "no tokens to try: %v\n", err)
		return
	}
	token := func(sub string, scopes ...string) string {
		text, err := mint(signer, cfg, tokenCmd{Sub: sub, Scopes: scopes, TTL: devTTL})
		if err != nil {
			return "(" + err.Error() + ")"
		}
		return text
	}
	first := cfg.Agents[0].ID
	base := "http://" + addr
	p := printer{s.err, isTerminal(s.err)}
	p.line("\n%s %s at %s  (development only: keys and tokens are made for you)", p.bold("keyway"), version, p.bold(base))
	p.line("\n# tokens, good for %s", devTTL)
	p.line("export ADMIN_TOKEN=%s", token("admin", cfg.Auth.AdminScope))
	p.line("export TOKEN=%s", token("ann", "agents:"+first+":read", "agents:"+first+":run", "sessions:read"))
	p.line("\n# ann may read and run %s, and see her own sessions", first)
	p.line(`curl -N -H "Authorization: Bearer $TOKEN" -F "message=Hello" %s/agents/%s/runs`, base, first)
	p.line(`curl -H "Authorization: Bearer $TOKEN" %s/sessions`, base)
	if len(cfg.Agents) > 1 {
		p.line("\n# %s is not hers: 403, and the answer says which scope is missing", cfg.Agents[1].ID)
		p.line(`curl -F "message=Hello" -H "Authorization: Bearer $TOKEN" %s/agents/%s/runs`, base, cfg.Agents[1].ID)
	}
	p.line("\n# the administrator sees everything")
	p.line("curl -H \"Authorization: Bearer $ADMIN_TOKEN\" %s/agents\n", base)
}

// printer writes for people, bold only on a terminal.
type printer struct {
	w        io.Writer
	terminal bool
}

func (p printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

func (p printer) bold(text string) string {
	if p.terminal {
		return "\x1b[1m" + text + "\x1b[0m"
	}
	return text
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// settle is how long a file must be left alone before it is read: editors write
// in several steps.
const settle = 100 * time.Millisecond

// reload puts keyway.yaml in force whenever it changes. The directory is
// watched, since editors replace the file rather than write it.
func (s *server) reload(ctx context.Context) {
	path, err := filepath.Abs(s.cli.Config)
	if err != nil {
		fmt.Fprintln(s.err, "changes of the configuration are not seen:", err)
		return
	}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		err = watcher.Add(filepath.Dir(path))
	}
	if err != nil {
		fmt.Fprintln(s.err, "changes of the configuration are not seen:", err)
		return
	}
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	for {
		select {
		case event := <-watcher.Events:
			if filepath.Clean(event.Name) == path && !event.Has(fsnotify.Chmod) {
				quiet.Reset(settle)
			}
		case <-quiet.C:
			s.reloadNow()
		case <-ctx.Done():
			return
		}
	}
}

func (s *server) reloadNow() {
	cfg, err := s.configure()
	if err == nil {
		err = s.unchangeable(cfg)
	}
	if err == nil {
		err = s.apply(cfg)
	}
	if err != nil {
		fmt.Fprintf(s.err, "%v\n%s has faults; the one read before stays in force\n", err, s.cli.Config)
		return
	}
	fmt.Fprintf(s.err, "%s changed and is in force: %d agents\n", s.cli.Config, len(cfg.Agents))
}

// unchangeable refuses what a running server can't take over.
func (s *server) unchangeable(cfg *config.Config) error {
	sameURL := cfg.Database.URL == "" || string(cfg.Database.URL) == s.url
	if !sameURL || cfg.Database.Schema != s.schema || cfg.ID != s.osID {
		return usage("id and database can't change while the server runs; restart it")
	}
	return nil
}
