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

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/token"
	"github.com/keyway-agents/keyway/shared/version"
)

// devTTL is how long the tokens are valid that serve --dev prints: a day of trying.
const devTTL = 24 * time.Hour

// greet prints what a new user types next: two tokens, and requests that show a 200,
// the caller's own sessions and a 403. ann's token holds exactly the scopes that the
// first agent's requests need, as keyway.yaml maps them.
func (s *server) greet(p prepared, base string) {
	// To stderr: stdout stays free for programs that read it.
	w := printer{s.err, isTerminal(s.err)}
	w.line("\n%s %s at %s  (development only)", w.bold("keyway"), version.ThisBuild().Version, w.bold(base))
	first := "/agents/" + p.cfg.Agents[0].ID
	ann := &authz.Principal{}
	// What the decision reports as missing is exactly what ann needs. The scopes are not
	// written here, since a mapping of keyway.yaml may replace them.
	for _, request := range []string{"GET " + first, "POST " + first + "/runs", "GET /sessions"} {
		method, path, _ := strings.Cut(request, " ")
		ann.Scopes = append(ann.Scopes, scopeNames(p.authorizer.Policy.Decide(ann, method, path).Missing)...)
	}
	// A configuration may accept only the tokens of a foreign issuer. The server works all
	// the same; there are no tokens to print then.
	admin, err := s.devToken(p, tokenCmd{Sub: "admin", Scopes: []string{p.cfg.Auth.AdminScope}, TTL: devTTL})
	token, err2 := s.devToken(p, tokenCmd{Sub: "ann", Scopes: ann.Scopes, TTL: devTTL})
	if err := cmp.Or(err, err2); err != nil {
		w.line("\n# no tokens to try: %v\n", err)
		return
	}
	s.code.begin()
	w.line("\n# tokens, valid for %.0f hours", devTTL.Hours())
	w.line("export ADMIN_TOKEN=%s", admin)
	w.line("export TOKEN=%s", token)
	w.line("\n# ann may read and run %s, and see her own sessions", p.cfg.Agents[0].ID)
	w.line(`curl -N -H "Authorization: Bearer $TOKEN" -F "message=Hello" %s%s/runs`, base, first)
	w.line(`curl -H "Authorization: Bearer $TOKEN" %s/sessions`, base)
	if door := p.cfg.MCPAudience(); len(door) > 0 {
		w.line("\n# the agents that ann may run, as tools of an MCP client")
		w.line(`claude mcp add --transport http keyway %s --header "Authorization: Bearer $TOKEN"`, door[0])
	}
	// The first agent that ann may not run shows how a refusal looks.
	for _, a := range p.cfg.Agents[1:] {
		if path := "/agents/" + a.ID + "/runs"; !p.authorizer.Policy.Decide(ann, "POST", path).Allow {
			w.line("\n# ann may not run %s: 403, and the answer names the missing scope", a.ID)
			w.line(`curl -H "Authorization: Bearer $TOKEN" -F "message=Hello" %s%s`, base, path)
			break
		}
	}
	w.line("\n# the administrator sees everything")
	w.line("curl -H \"Authorization: Bearer $ADMIN_TOKEN\" %s/agents\n", base)
}

// printConsole prints the address of the console. The code is behind a #, so that no browser sends it to a server.
func (s *server) printConsole(base, code string) {
	w := printer{s.err, isTerminal(s.err)}
	w.line("\nconsole: %s", w.bold(base+consolePath()+"/#code="+code))
}

// consolePath returns the path of the console.
func consolePath() string {
	for r := range route.Table.All() {
		if r.Name == route.Console {
			return r.Pattern
		}
	}
	return ""
}

// devToken signs a token and verifies it with this server's own verifier, so that no
// token is printed that the server would refuse.
func (s *server) devToken(p prepared, c tokenCmd) (string, error) {
	signer, err := s.signer(p.cfg)
	if made := s.devKeyFile(p.cfg); p.cfg.Auth.Keys[0].JWKSFile == made {
		// The server verifies with the key of --dev. JWT_SIGNING_KEY, which signer
		// prefers, belongs to another OS then.
		signer, err = token.LoadSigner(token.SigningKey{File: made})
	}
	if err != nil {
		return "", err
	}
	signed, err := mint(signer, p.cfg, c)
	if err != nil {
		return "", err
	}
	// The audience, the issuer or the claims that auth demands may exclude what mint makes.
	if _, err := p.authorizer.Verifier.Verify(context.Background(), []string{"Bearer " + signed}); err != nil {
		return "", fmt.Errorf("the available key signs tokens that auth in keyway.yaml refuses (%s)", fault.Detail(err))
	}
	return signed, nil
}

// printer writes lines for people, with bold text if w is a terminal.
type printer struct {
	w io.Writer
	// terminal reports that w understands escape sequences. A log or a pipe must not
	// contain them.
	terminal bool
}

// line prints one line.
func (p printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

// bold returns the text in bold if the output is a terminal.
func (p printer) bold(text string) string {
	if p.terminal {
		return "\x1b[1m" + text + "\x1b[0m"
	}
	return text
}

// isTerminal reports whether w is a terminal that understands escape sequences.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	// Emacs and some CI systems set TERM=dumb: a terminal that shows escape sequences as text.
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// reloadDelay is how long keyway.yaml must be unchanged before it is read again. An
// editor saves in several steps, and a file in between may be empty or half written.
const reloadDelay = 100 * time.Millisecond

// watchConfig watches the directory of keyway.yaml, not the file: many editors replace
// the file by a new one, and a watch on the old one would see nothing after that.
// Without a watcher (nil) the server works and does not reload.
func (s *server) watchConfig() *fsnotify.Watcher {
	// Linux limits the number of watchers of a user, so an error is possible on a healthy
	// machine and must not stop the server.
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(filepath.Dir(s.cli.Config)); err == nil {
			return watcher
		}
		watcher.Close()
	}
	fmt.Fprintf(s.err, "changes of %s will not be seen, restart keyway after one: %v\n", s.cli.Config, err)
	return nil
}

// reload applies keyway.yaml whenever it changes, until ctx ends.
func (s *server) reload(ctx context.Context, changes *fsnotify.Watcher) {
	// The timer starts with the first change; each further change starts it again.
	unchanged := time.NewTimer(time.Hour)
	unchanged.Stop()
	for {
		select {
		case event := <-changes.Events:
			// Other files of the directory change too. Chmod events come from indexers and
			// backups, which change no content.
			if filepath.Base(event.Name) == filepath.Base(s.cli.Config) && !event.Has(fsnotify.Chmod) {
				unchanged.Reset(reloadDelay)
			}
		case err := <-changes.Errors:
			// The kernel's queue of events may have overflowed. The file is read to be
			// sure; reading it once too often does no harm.
			fmt.Fprintf(s.err, "a change of %s may have been missed: %v\n", s.cli.Config, err)
			unchanged.Reset(reloadDelay)
		case <-unchanged.C:
			s.reloadNow(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// reloadNow applies keyway.yaml, or keeps the configuration in force if the file has
// an error: a typing error must not stop a running server.
func (s *server) reloadNow(ctx context.Context) {
	// prepare opens everything anew, so an error leaves the running configuration as it is.
	p, err := s.prepare()
	if err == nil {
		err = s.sameDatabase(p.cfg)
	}
	if err == nil {
		err = s.adoptIssuers(ctx, p.cfg)
	}
	if err != nil {
		fmt.Fprintf(s.err, "%v\n%s is not put in force; the previous configuration stays in force\n", err, s.cli.Config)
		return
	}
	s.apply(p)
	fmt.Fprintf(s.err, "%s changed and is in force\n", s.cli.Config)
}

// adoptIssuers records the issuers of cfg in the database, or returns an error if somebody would own
// other data with them.
func (s *server) adoptIssuers(ctx context.Context, cfg *config.Config) error {
	at := s.target
	at.Owners = cfg.Auth.Owners()
	if _, err := migrations.Run(ctx, at); err != nil {
		return err
	}
	return s.db.Check(ctx)
}

// sameDatabase returns an error if cfg needs another database or schema than the one
// that was opened when the server started. A schema belongs to one OS, so a new id is
// such a change too.
func (s *server) sameDatabase(cfg *config.Config) error {
	if cfg.ID != s.first.ID || cfg.Database != s.first.Database {
		return usage("id and database can't change while the server runs; restart it")
	}
	return nil
}
