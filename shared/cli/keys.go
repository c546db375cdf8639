package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

// keysCmd holds the commands about keys.
type keysCmd struct {
	Generate generateCmd `cmd:"" help:"Make a key file, or keep the one that exists."`
}

// generateCmd makes a key file.
type generateCmd struct {
	// Alg is the JWS algorithm (RFC 7518, RFC 8037); empty: RS256, or the algorithm of the
	// existing file.
	Alg string `placeholder:"ALG" help:"${help_alg}"`
	// Out is the file to make.
	Out string `default:"keys.json" placeholder:"FILE" help:"${help_out}"`
}

// Help adds examples to the command's --help.
func (generateCmd) Help() string {
	return `Examples:

  keyway keys generate --out keys.json
  # keyway.yaml:
  #   auth: {algorithms: [RS256], keys: [{jwks_file: keys.json}]}
  keyway token --sub ann --scopes agents:read`
}

// Run makes the key file, or keeps the existing one.
func (c generateCmd) Run(e env) error {
	made, err := makeKeys(c.Alg, c.Out)
	if err != nil {
		return err
	}
	// The message goes to stderr like all progress: the key file is the result.
	verb := map[bool]string{true: "made", false: "kept"}[made]
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"file": c.Out, "made": made})
	}
	fmt.Fprintf(e.err, "%s %s\n", verb, c.Out)
	return nil
}

// makeKeys writes a new key file and returns true, or returns false if the file exists
// and holds a usable key of the algorithm; "" accepts any algorithm and makes RS256.
// An existing key is never overwritten: every token that it signed would be refused.
//
// The file is complete when it appears under its name, and two processes that make it
// at the same time get one file: it is written under another name and then linked,
// which fails if the name exists. Only the owner can read it.
func makeKeys(alg, path string) (made bool, err error) {
	// An existing file is checked, so that a mistyped path or a key of another kind is found
	// now and not by the first token.
	if _, err := os.Stat(path); err == nil {
		if _, err := token.LoadSigner(token.SigningKey{File: path, Algorithm: alg}); err != nil {
			return false, usage("%s exists and can't be used: %w", path, err)
		}
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	// RS256 is the default because every JWT library and every identity provider knows it.
	data, err := token.GenerateKeys(cmp.Or(alg, "RS256"), rand.Reader)
	if err != nil {
		return false, usageError{err}
	}
	// Other users may pass through the directory, but not list it: if root runs
	// keyway, the embedded PostgreSQL works below it as another user.
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil { // #nosec G301 -- the files in it are 0600
		return false, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // with mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		return false, errors.Join(err, tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return false, err
	}
	if err := os.Link(tmp.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err == nil, err
	}
	return false, nil // another process made it first
}

// devKeyFile returns the path of the key that serve --dev makes. Its name holds the
// algorithm, so that a change of auth.algorithms makes a new key.
func (e env) devKeyFile(cfg *config.Config) string {
	return filepath.Join(e.cli.Data, "dev-"+cfg.Auth.Algorithms[0]+".json")
}

// addDevKey gives a configuration without a key the one that serve --dev makes. With
// create it makes the key if it is missing; otherwise a missing key is an error, so
// that can, policy and token never make a key that no server knows.
func (e env) addDevKey(cfg *config.Config, create bool) error {
	if len(cfg.Auth.Keys) > 0 {
		return nil
	}
	path := e.devKeyFile(cfg)
	if create {
		if _, err := makeKeys(cfg.Auth.Algorithms[0], path); err != nil {
			return err
		}
	}
	if _, err := os.Stat(path); err != nil {
		return usage("no key to verify with: keyway.yaml names none that is set, and there is no %s "+
			"(keyway serve --dev makes it)", path)
	}
	cfg.Auth.Keys = []config.Key{{JWKSFile: path}}
	return nil
}

// outside returns the clock and the environment for the authorizer.
func (e env) outside() edge.Outside { return edge.Outside{Now: e.now, Lookup: e.lookup} }

// severalErrors is what errors.Join makes.
type severalErrors interface {
	error
	Unwrap() []error
}

// authorizer makes the authorizer of a keyway.yaml. What is wrong with a key is a usage error
// that begins with its place in the file.
func (e env) authorizer(cfg *config.Config) (*edge.Authorizer, error) {
	a, err := edge.New(cfg, e.outside())
	if err == nil {
		return a, nil
	}
	all := []error{err}
	if joined, ok := errors.AsType[severalErrors](err); ok {
		all = joined.Unwrap()
	}
	for i, one := range all {
		if of, ok := errors.AsType[*token.SourceError](one); ok {
			path := entryOf(cfg, of.Index)
			all[i] = fmt.Errorf("%s: %w", strings.TrimPrefix(e.place(path)+": "+path, ": "), of.Err)
		}
	}
	return nil, usageError{errors.Join(all...)}
}

// fetchKeys fetches the keys of every address and secret once, so that an error appears
// when the server starts and not with the first request. An answer that can't be used,
// such as a secret that is no key, is an error: it will not get better by itself. A key
// server that can't be reached is a warning: it may be back in a minute, and tokens
// with other keys must work in the meantime. So are keys that verify nothing: others of
// the same source may, and only its issuer can change it.
func fetchKeys(a *edge.Authorizer) (warnings []string, err error) {
	for _, err := range a.Verifier.Fetch(context.Background()) {
		if errors.Is(err, fault.Invalid) {
			return nil, usageError{fmt.Errorf("auth.%w", err)}
		}
		// The verifier asks again by itself; see docs/keys.md.
		warnings = append(warnings, fmt.Sprintf("warning: auth.%v; until it can be fetched, its tokens are answered 503, "+
			"and requests ask again every 10 seconds at most", err))
	}
	const most = 10 // of one source, which can have a hundred
	of := map[string]int{}
	for _, p := range a.Verifier.PassedOver() {
		if of[p.Source]++; of[p.Source] <= most {
			warnings = append(warnings, "warning: auth."+p.String())
		}
	}
	for _, source := range slices.Sorted(maps.Keys(of)) {
		if more := of[source] - most; more > 0 {
			warnings = append(warnings, fmt.Sprintf("warning: auth.%s: passes over %d more keys", source, more))
		}
	}
	return warnings, nil
}

// tokenCmd signs a token.
type tokenCmd struct {
	// Sub is the sub claim, or the claim that auth.claims names instead.
	Sub string `required:"" placeholder:"SUBJECT" help:"The user that the token identifies."`
	// Scopes is the scopes claim.
	Scopes []string `placeholder:"SCOPE" help:"The scopes that it grants."`
	// TTL is the time from iat to exp. There is no way to make a token without exp.
	TTL time.Duration `name:"ttl" default:"1h" help:"How long it is valid, such as 15m or 24h."`
	// Aud is the aud claim; empty: the first audience that keyway.yaml requires, if any, and that of the door for MCP.
	Aud []string `placeholder:"AUDIENCE" help:"The services it is meant for (the aud claim)."`
	// Session is the session_id claim.
	Session string `placeholder:"ID" help:"Limit it to one session."`
}

// Help explains which key signs, and adds examples.
func (tokenCmd) Help() string {
	return `Signs with $JWT_SIGNING_KEY (a PEM private key, or an HMAC secret), else with the
key that keyway.yaml names (an HMAC secret, or a file of keyway keys generate), else
with the key that keyway serve --dev made.

  keyway token --sub ann --scopes agents:read,agents:web-search-agent:run --ttl 24h
  keyway token --sub root --scopes agent_os:admin > admin.jwt`
}

// Run prints the token and nothing else, so that $(keyway token …) works.
func (c tokenCmd) Run(e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	// kong requires the flag, but accepts an empty value, such as that of an unset shell
	// variable.
	if c.Sub == "" {
		return usage("--sub is empty; give the user's name or id")
	}
	if c.TTL < time.Second { // exp holds whole seconds
		return usage("--ttl must be 1s or longer")
	}
	signer, err := e.signer(cfg)
	if err != nil {
		return err
	}
	signed, err := mint(signer, cfg, c)
	if err != nil {
		return usageError{err}
	}
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"token": signed, "expires_in": int(c.TTL.Seconds())})
	}
	_, err = fmt.Fprintln(e.out, signed)
	return err
}

// mint signs a token with the issuer, the audience and the claim names that
// keyway.yaml asks for. If an audience is required and none is given, it is the first
// of those that keyway.yaml accepts. It also fits the door for MCP, if that is open.
func mint(signer token.Signer, cfg *config.Config, c tokenCmd) (string, error) {
	// The real clock: a token is used on other machines than this one.
	now := time.Now()
	d := token.Draft{
		Claims: token.Claims{
			Subject: c.Sub, SessionID: c.Session, Issuer: cfg.Auth.Issuer, Scopes: c.Scopes,
			IssuedAt: now, ExpiresAt: now.Add(c.TTL),
		},
		Audience:     c.Aud,
		SubjectClaim: edge.At(cfg.Auth.Claims.Subject),
		SessionClaim: edge.At(cfg.Auth.Claims.Session),
	}
	if len(cfg.Auth.Claims.Scopes) > 0 {
		d.ScopesClaim = edge.At(cfg.Auth.Claims.Scopes[0])
	} else if len(c.Scopes) > 0 {
		return "", errors.New("--scopes: auth.claims.scopes is [], so no scope of a token counts; leave --scopes out, or " +
			"name a claim there")
	}
	// Without this, the token would be refused by the OS that it is made for.
	if len(d.Audience) == 0 {
		if cfg.Auth.VerifyAudience {
			d.Audience = slices.Clone(cfg.Auth.Audience[:1])
		}
		if door := cfg.MCPAudience(); len(door) > 0 {
			d.Audience = append(d.Audience, door[0])
		}
	}
	return signer.Sign(d)
}

// signer returns the key to sign with, in the order that tokenCmd.Help describes. The
// error names every key of keyway.yaml that can't sign, and why.
func (e env) signer(cfg *config.Config) (token.Signer, error) {
	if key, _ := e.lookup("JWT_SIGNING_KEY"); key != "" {
		s, err := envSigner(key, cfg.Auth.Algorithms)
		if err != nil {
			return s, usage("JWT_SIGNING_KEY: %w", err)
		}
		return s, nil
	}
	_ = e.addDevKey(cfg, false) // without any key, the loop is empty and the error below is complete
	// none collects, line by line, why each key of keyway.yaml can't sign.
	none := errors.New("no key to sign with: set JWT_SIGNING_KEY, or name a file of keyway keys generate " +
		"in keyway.yaml, or run keyway serve --dev once")
	// The first key that can sign is used, so the order in keyway.yaml decides which key
	// signs during a rotation.
	for i, k := range cfg.Auth.Keys {
		var key token.SigningKey
		switch {
		case k.JWKSURL != "" || k.Discovery != "" || k.Secret != "":
			none = fmt.Errorf("%w\nauth.keys[%d] is fetched from elsewhere and can't sign here", none, i)
			continue
		case k.JWKSFile != "":
			key.File = k.JWKSFile
		case strings.HasPrefix(cfg.Auth.Algorithms[0], "HS"):
			// Only with HMAC is the verification key the signing key as well.
			key.HMAC, key.Algorithm = []byte(k.Literal), cfg.Auth.Algorithms[0]
		default:
			// A PEM public key, which only verifies.
			continue
		}
		s, err := token.LoadSigner(key)
		if err == nil {
			return s, nil
		}
		none = fmt.Errorf("%w\nauth.keys[%d]: %w", none, i, err)
	}
	return token.Signer{}, usageError{none}
}

// envSigner returns a signer for a PEM private key or an HMAC secret. It uses the first
// of the algorithms that the key can sign with; the error is the last one's.
func envSigner(text string, algorithms []string) (s token.Signer, err error) {
	// A secret that begins like a PEM block would be a strange secret: it is a damaged key.
	key := token.SigningKey{HMAC: []byte(text)}
	if strings.Contains(text, "-----BEGIN ") {
		key = token.SigningKey{PEM: []byte(text)}
	}
	// An RSA key can sign RS256 and PS256, for example. The order of auth.algorithms is the
	// operator's preference.
	for _, key.Algorithm = range algorithms {
		if s, err = token.LoadSigner(key); err == nil {
			break
		}
	}
	return s, err
}
