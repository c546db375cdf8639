package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/token"
)

// keysCmd holds the commands about keys.
type keysCmd struct {
	Generate generateCmd `cmd:"" help:"Make a key pair, or use the one that the file holds."`
}

type generateCmd struct {
	Alg string `default:"RS256" help:"RS256, PS256, ES256, ES384, ES512, EdDSA or HS256."`
	Out string `default:"keys.json" placeholder:"FILE" help:"A JWKS that also holds private_key and public_key as PEM; kept when it exists."`
}

// Help shows what to do with the file.
func (generateCmd) Help() string {
	return `  keyway keys generate --out keys.json
  # keyway.yaml:
  #   auth: {algorithms: [RS256], keys: [{jwks_file: keys.json}]}
  keyway token --sub ann --scopes agents:read`
}

// Run makes the file, readable by its owner only.
func (c generateCmd) Run(e env) error {
	made, err := makeKeys(c.Alg, c.Out)
	if err != nil {
		return err
	}
	verb := map[bool]string{true: "made", false: "kept"}[made]
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"file": c.Out, "made": made})
	}
	fmt.Fprintf(e.err, "%s %s\n", verb, c.Out)
	return nil
}

// makeKeys writes a new key file unless there is one. Two at once leave one file.
func makeKeys(alg, path string) (made bool, err error) {
	if _, err := os.Stat(path); err == nil {
		if _, err := token.LoadSigner(token.SigningKey{File: path}); err != nil {
			return false, fmt.Errorf("%s exists and can't be used: %w", path, err)
		}
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	data, err := token.GenerateKeys(alg, rand.Reader)
	if err != nil {
		return false, usageError{err}
	}
	// Others may pass through: as root, PostgreSQL runs below as another user.
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil { // #nosec G301 -- the files in it are 0600
		return false, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // 0600
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
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) { // never over another's
		return false, err
	}
	return true, nil
}

// devKeys is the key file that --dev makes for this configuration.
func (e env) devKeys(cfg *config.Config) string {
	return filepath.Join(e.cli.Data, "dev-"+cfg.Auth.Algorithms[0]+".json")
}

// devKey gives a configuration without a key the one of --dev, made when create
// is set.
func (e env) devKey(cfg *config.Config, create bool) error {
	if len(cfg.Auth.Keys) > 0 {
		return nil
	}
	path := e.devKeys(cfg)
	if create {
		if _, err := makeKeys(cfg.Auth.Algorithms[0], path); err != nil {
			return err
		}
	}
	if _, err := os.Stat(path); err != nil {
		return usage("no key to verify with: keyway.yaml names none that is set, and there is no %s (keyway serve --dev makes it)", path)
	}
	cfg.Auth.Keys = []config.Key{{JWKSFile: path}}
	return nil
}

// tokenCmd signs a token.
type tokenCmd struct {
	Sub     string        `required:"" help:"Whom the token names."`
	Scopes  []string      `placeholder:"SCOPE,…" help:"What it grants."`
	TTL     time.Duration `name:"ttl" default:"1h" help:"How long it is good."`
	Aud     []string      `placeholder:"AUDIENCE,…" help:"For whom it is."`
	Session string        `placeholder:"ID" help:"Binds it to one session."`
}

// Help says which key signs.
func (tokenCmd) Help() string {
	return `Signs with $JWT_SIGNING_KEY (a PEM private key, or an HMAC secret), else with the
key that keyway.yaml names (an HMAC secret, or a file of keyway keys generate), else
with the key that keyway serve --dev made.

  keyway token --sub ann --scopes agents:read,agents:web-search-agent:run --ttl 24h
  keyway token --sub root --scopes agent_os:admin > admin.jwt`
}

// Run prints the token alone, so that $(keyway token …) works.
func (c tokenCmd) Run(e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	if c.TTL <= 0 {
		return usage("--ttl must be positive")
	}
	signer, err := e.signer(cfg)
	if err != nil {
		return err
	}
	text, err := mint(signer, cfg, c)
	if err != nil {
		return usageError{err}
	}
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"token": text, "expires_in": int(c.TTL.Seconds())})
	}
	_, err = fmt.Fprintln(e.out, text)
	return err
}

// mint signs a token that this OS accepts.
func mint(signer token.Signer, cfg *config.Config, c tokenCmd) (string, error) {
	now := time.Now()
	d := token.Draft{
		Claims:      token.Claims{Subject: c.Sub, SessionID: c.Session, Issuer: cfg.Auth.Issuer, Scopes: c.Scopes, ExpiresAt: now.Add(c.TTL)},
		Audience:    c.Aud,
		IssuedAt:    now,
		ScopesClaim: cfg.Auth.Claims.Scopes, SubjectClaim: cfg.Auth.Claims.Subject, SessionClaim: cfg.Auth.Claims.Session,
	}
	if len(d.Audience) == 0 && cfg.Auth.VerifyAudience {
		d.Audience = cfg.Auth.Audience[:1]
	}
	return signer.Sign(d)
}

// signer finds the key to sign with.
func (e env) signer(cfg *config.Config) (token.Signer, error) {
	alg := cfg.Auth.Algorithms[0]
	if text, ok := e.lookup("JWT_SIGNING_KEY"); ok && text != "" {
		if strings.Contains(text, "-----BEGIN ") {
			return token.LoadSigner(token.SigningKey{PEM: []byte(text)})
		}
		return token.LoadSigner(token.SigningKey{HMAC: []byte(text), Algorithm: alg})
	}
	for _, k := range cfg.Auth.Keys {
		if literal := string(k.Literal); literal != "" && strings.HasPrefix(alg, "HS") {
			return token.LoadSigner(token.SigningKey{HMAC: []byte(literal), Algorithm: alg})
		}
		if k.JWKSFile != "" {
			if s, err := token.LoadSigner(token.SigningKey{File: k.JWKSFile}); err == nil {
				return s, nil
			}
		}
	}
	if err := e.devKey(cfg, false); err == nil && len(cfg.Auth.Keys) == 1 && cfg.Auth.Keys[0].JWKSFile == e.devKeys(cfg) {
		return token.LoadSigner(token.SigningKey{File: e.devKeys(cfg)})
	}
	return token.Signer{}, usage("no key to sign with: set JWT_SIGNING_KEY, or name a file of keyway keys generate in keyway.yaml, or run keyway serve --dev once")
}
