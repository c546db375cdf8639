package cli

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/replay"
	"github.com/keyway-agents/keyway/shared/wire"
)

// maxDiffRows is how many rows POST /diff answers for each of gains and loses.
const maxDiffRows = 500

// diff compares a keyway.yaml with the log of decisions, as keyway diff does. The file is text of a caller: no variable
// in it is expanded, no file that it names is opened, and nothing is fetched.
func (s *server) diff(file []byte) (out wire.Diff, err error) {
	s.diffing.Lock() // A large file takes seconds, and each request reads up to 64 MB of logs.
	defer s.diffing.Unlock()
	cfg, err := s.parseRules(file)
	if err != nil {
		return out, err
	}
	policy, err := edge.Policy(cfg)
	if err != nil {
		return out, wrongFile(err)
	}
	log := &replay.Log{}
	for _, name := range decisionFiles(s.cli.Data) {
		if err := readLog(s.env, log, name, time.Time{}); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
	}
	r := log.Replay(newRules(cfg, policy))
	out = wire.Diff{
		Gains: []wire.DiffRow{}, Loses: []wire.DiffRow{}, Replayed: r.Replayed, Decisions: log.Decisions, Unsure: r.Unsure,
		UnsureMappings: r.Mappings, UnknownGrants: r.NoGrants,
	}
	for _, c := range r.Changes {
		to := &out.Loses
		if c.Verdict == replay.Allowed || c.Verdict == replay.Unfiltered {
			to = &out.Gains
		}
		if len(*to) == maxDiffRows {
			out.More++
			continue
		}
		*to = append(*to, wire.DiffRow{
			Verdict: string(c.Verdict), Request: c.Route, Agent: c.Agent, Callers: c.Callers, Count: c.Requests,
			Needs: orEmpty(c.Need), Missing: orEmpty(c.Missing), WasMissing: orEmpty(c.Was), Mapping: c.Mapping,
		})
	}
	return out, nil
}

// orEmpty returns a list that is [] and not null in JSON.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// parseRules parses the text of a keyway.yaml with no variable set.
func (s *server) parseRules(file []byte) (*config.Config, error) {
	o, err := s.options(true)
	if err != nil {
		return nil, err
	}
	o.Lookup = func(string) (string, bool) { return "", false }
	cfg, err := yamlfile.Parse("keyway.yaml", file, o)
	if err != nil {
		return nil, wrongFile(err)
	}
	if at, name := unsetRule(cfg); at != "" {
		return nil, wrongFile(fmt.Errorf("%s needs the variable %s, and no variable is expanded here: write its value", at,
			name))
	}
	return cfg, nil
}

// maxFileError is how many bytes of the errors of a file an answer has.
const maxFileError = 4 << 10

// wrongFile returns the answer for a keyway.yaml with an error.
func wrongFile(err error) error {
	text := err.Error()
	if len(text) > maxFileError {
		text = strings.ToValidUTF8(text[:maxFileError], "") + " …"
	}
	return fault.Public(fault.Unprocessable, text, nil)
}

// codeTTL is how long a code for opening the console of --dev is valid.
const codeTTL = 10 * time.Minute

// signInCode is the code with which the console of --dev is opened without a token. Only the terminal shows it.
type signInCode struct {
	// print shows a code to the person at the terminal.
	print func(code string)
	now   func() time.Time

	mu    sync.Mutex
	code  string // "" if it was used
	until time.Time
}

// renew makes a code and prints it.
func (c *signInCode) renew() {
	c.code, c.until = rand.Text(), c.now().Add(codeTTL)
	c.print(c.code)
}

// begin prints the first code.
func (c *signInCode) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renew()
}

// use reports whether the code is right, and ends it then. If the last code was used or is too old, it prints a new
// one.
func (c *signInCode) use(code string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code == "" || !c.now().Before(c.until) {
		c.renew()
		return false
	}
	given, right := sha256.Sum256([]byte(code)), sha256.Sum256([]byte(c.code)) // of one length
	if subtle.ConstantTimeCompare(given[:], right[:]) == 0 {
		return false
	}
	c.code = ""
	return true
}

// signIn returns the token of an administrator for the code that was printed last.
func (s *server) signIn(p prepared, code string) (string, error) {
	if !s.code.use(code) {
		return "", fault.Public(fault.Unauthenticated, "The code is wrong, was used or is older than 10 minutes", nil)
	}
	return s.mintDev(p, tokenCmd{Sub: "admin", Scopes: []string{p.cfg.Auth.AdminScope}, TTL: devTTL})
}

// mintDev is devToken for a request.
func (s *server) mintDev(p prepared, c tokenCmd) (string, error) {
	signed, err := s.devToken(p, c)
	if err != nil {
		return "", fault.Public(fault.Conflict, "No token can be signed: "+err.Error(), nil)
	}
	return signed, nil
}
