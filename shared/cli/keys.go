package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/token"
)

// keysCmd holds the commands about keys.
type keysCmd struct {
	Generate generateCmd `cmd:"" help:"Make a key pair, or use the one that the file holds."`
}

type generateCmd struct {
	Alg string `placeholder:"ALG" help:"RS256 (the default), RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, or HS256, HS384, HS512, for which the file holds a secret to put into an environment variable."`
	Out string `default:"keys.json" placeholder:"FILE" help:"A JWKS that also holds private_key and public_key as PEM, or the secret; kept when it exists."`
}

// Help shows what to do with the file.
func (generateCmd) Help() string {
	return `Examples:

  keyway keys generate --out keys.json
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

// makeKeys writes a new key file unless there is one, which must then be of the
// algorithm, if one is given. Two at once leave one file.
func makeKeys(alg, path string) (made bool, err error) {
	if _, err := os.Stat(path); err == nil {
		if _, err := token.LoadSigner(token.SigningKey{File: path, Algorithm: alg}); err != nil {
			return false, usage("%s exists and can't be used: %w", path, err)
		}
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	data, err := token.GenerateKeys(cmp.Or(alg, "RS256"), rand.Reader)
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
	if err := os.Link(tmp.Name(), path); !errors.Is(err, fs.ErrExist) { // never over another's
		return err == nil, err
	}
	return false, nil
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

// outside is the world as the authorizer may see it.
func (e env) outside() edge.Outside { return edge.Outside{Now: e.now, Lookup: e.lookup} }

// fetchKeys fetches keys that live elsewhere once, so that what is wrong with them is
// told at the start and not by the first request. Only what stays wrong is refused.
func (e env) fetchKeys(a *edge.Authorizer) error {
	for _, err := range a.Verifier.Fetch(context.Background()) {
		if errors.Is(err, fault.Invalid) {
			return usageError{fmt.Errorf("auth.%w", err)}
		}
		fmt.Fprintf(e.err, "warning: auth.%v; until it can be fetched, its tokens are answered 503, and requests ask again every 10 seconds at most\n", err)
	}
	return nil
}

// tokenCmd signs a token.
type tokenCmd struct {
	Sub     string        `required:"" placeholder:"SUBJECT" help:"Whom the token names."`
	Scopes  []string      `placeholder:"SCOPE" help:"What it grants."`
	TTL     time.Duration `name:"ttl" default:"1h" help:"How long it is good, such as 15m or 24h."`
	Aud     []string      `placeholder:"AUDIENCE" help:"For whom it is."`
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
	if c.Sub == "" {
		return usage("--sub is empty; give the user's name or id")
	}
	if c.TTL < time.Second {
		return usage("--ttl must be 1s or longer")
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
	if text, _ := e.lookup("JWT_SIGNING_KEY"); text != "" {
		s, err := envSigner(text, cfg.Auth.Algorithms)
		if err != nil {
			return s, usage("JWT_SIGNING_KEY: %w", err)
		}
		return s, nil
	}
	_ = e.devKey(cfg, false) // without one, what is said below is all there is to say
	none := errors.New("no key to sign with: set JWT_SIGNING_KEY, or name a file of keyway keys generate in keyway.yaml, or run keyway serve --dev once")
	for i, k := range cfg.Auth.Keys {
		var key token.SigningKey
		switch {
		case k.JWKSURL != "" || k.Secret != "":
			none = fmt.Errorf("%w\nauth.keys[%d] is fetched, and signs nothing here", none, i)
			continue
		case k.JWKSFile != "":
			key.File = k.JWKSFile
		case strings.HasPrefix(cfg.Auth.Algorithms[0], "HS"):
			key.HMAC, key.Algorithm = []byte(k.Literal), cfg.Auth.Algorithms[0]
		default: // a public key
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

// envSigner signs with a PEM private key or an HMAC secret, by the first
// algorithm that this OS accepts and the key can do.
func envSigner(text string, algorithms []string) (s token.Signer, err error) {
	key := token.SigningKey{HMAC: []byte(text)}
	if strings.Contains(text, "-----BEGIN ") {
		key = token.SigningKey{PEM: []byte(text)}
	}
	for _, key.Algorithm = range algorithms {
		if s, err = token.LoadSigner(key); err == nil {
			break
		}
	}
	return s, err
}
