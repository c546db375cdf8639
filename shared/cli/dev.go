package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

// devTTL is how long the printed tokens are good.
const devTTL = 24 * time.Hour

// greet prints what a newcomer types next: tokens, the first an administrator's,
// and requests with the answers they get.
func (s *server) greet(p prepared, addr string) {
	w, base := printer{s.err, isTerminal(s.err)}, "http://"+addr
	w.line("\n%s %s at %s  (development only)", w.bold("keyway"), assemble.Version, w.bold(base))
	first := "/agents/" + p.cfg.Agents[0].ID
	ann := &authz.Principal{}
	for _, request := range []string{"GET " + first, "POST " + first + "/runs", "GET /sessions"} {
		method, path, _ := strings.Cut(request, " ")
		ann.Scopes = append(ann.Scopes, texts(p.authorizer.Policy.Decide(ann, method, path).Missing)...)
	}
	admin, err := s.devToken(p, "admin", p.cfg.Auth.AdminScope)
	token, err2 := s.devToken(p, "ann", ann.Scopes...)
	if err := cmp.Or(err, err2); err != nil {
		w.line("\n# no tokens to try: %v\n", err)
		return
	}
	w.line("\n# tokens, good for %.0f hours", devTTL.Hours())
	w.line("export ADMIN_TOKEN=%s", admin)
	w.line("export TOKEN=%s", token)
	w.line("\n# ann may read and run %s, and see her own sessions", p.cfg.Agents[0].ID)
	w.line(`curl -N -H "Authorization: Bearer $TOKEN" -F "message=Hello" %s%s/runs`, base, first)
	w.line(`curl -H "Authorization: Bearer $TOKEN" %s/sessions`, base)
	for _, a := range p.cfg.Agents[1:] {
		if path := "/agents/" + a.ID + "/runs"; !p.authorizer.Policy.Decide(ann, "POST", path).Allow {
			w.line("\n# %s is not hers: 403, and the answer says which scope is missing", a.ID)
			w.line(`curl -H "Authorization: Bearer $TOKEN" -F "message=Hello" %s%s`, base, path)
			break
		}
	}
	w.line("\n# the administrator sees everything")
	w.line("curl -H \"Authorization: Bearer $ADMIN_TOKEN\" %s/agents\n", base)
}

// devToken signs a token that this server accepts, or says why it can't.
func (s *server) devToken(p prepared, sub string, scopes ...string) (string, error) {
	signer, err := s.signer(p.cfg)
	if made := s.devKeys(p.cfg); p.cfg.Auth.Keys[0].JWKSFile == made { // whatever JWT_SIGNING_KEY is for
		signer, err = token.LoadSigner(token.SigningKey{File: made})
	}
	if err != nil {
		return "", err
	}
	text, err := mint(signer, p.cfg, tokenCmd{Sub: sub, Scopes: scopes, TTL: devTTL})
	if err != nil {
		return "", err
	}
	if _, err := p.authorizer.Verifier.Verify(context.Background(), []string{"Bearer " + text}); err != nil {
		return "", fmt.Errorf("the key at hand signs what auth refuses (%s)", fault.Detail(err))
	}
	return text, nil
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

// watch sees every change in keyway.yaml's directory: editors replace the file
// rather than write it. Nil: the server works, and doesn't reload.
func (s *server) watch() *fsnotify.Watcher {
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(filepath.Dir(s.cli.Config)); err == nil {
			return watcher
		}
		watcher.Close()
	}
	fmt.Fprintf(s.err, "changes of %s will not be seen: %v\n", s.cli.Config, err)
	return nil
}

// reload puts keyway.yaml in force whenever it changes.
func (s *server) reload(ctx context.Context, changes *fsnotify.Watcher) {
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	for {
		select {
		case event := <-changes.Events:
			if filepath.Base(event.Name) == filepath.Base(s.cli.Config) && !event.Has(fsnotify.Chmod) {
				quiet.Reset(settle)
			}
		case err := <-changes.Errors:
			fmt.Fprintf(s.err, "a change of %s may have been missed: %v\n", s.cli.Config, err)
			quiet.Reset(settle)
		case <-quiet.C:
			s.reloadNow()
		case <-ctx.Done():
			return
		}
	}
}

func (s *server) reloadNow() {
	p, err := s.prepare()
	if err == nil {
		err = s.unchangeable(p.cfg)
	}
	if err != nil {
		fmt.Fprintf(s.err, "%v\n%s is not put in force; the one read before stays\n", err, s.cli.Config)
		return
	}
	s.apply(p)
	fmt.Fprintf(s.err, "%s changed and is in force\n", s.cli.Config)
}

// unchangeable refuses what a running server can't take over.
func (s *server) unchangeable(cfg *config.Config) error {
	if cfg.ID != s.first.ID || cfg.Database != s.first.Database {
		return usage("id and database can't change while the server runs; restart it")
	}
	return nil
}
