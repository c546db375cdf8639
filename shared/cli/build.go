package cli

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/edge"
)

// artifacts is the directory that "sam build" writes to. It holds one directory for
// each function, which "sam deploy" zips.
const artifacts = ".aws-sam/build"

// buildCmd writes the checked configuration beside each function's program.
type buildCmd struct {
	Dirs []string `arg:"" optional:"" name:"dir" help:"${help_dirs}"`
}

// Help adds examples to the command's --help.
func (buildCmd) Help() string {
	return `A function reads keyway.json, the checked keyway.yaml in canonical form, from the
directory of its program. Variables stay as written: the function's environment sets
them. Files of public keys and of CAs that auth.keys names are copied too.

  sam build && keyway build
  keyway build --config prod.yaml dist/authorizer dist/agents`
}

// Run checks keyway.yaml, then writes it into every directory. After an error in the
// configuration or in the directories' names, none of them has changed.
func (c buildCmd) Run(e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	if err := e.deployable(cfg); err != nil {
		return usageError{err}
	}
	// Everything is read and checked before the first file is written.
	files, err := e.deployedFiles(cfg)
	if err != nil {
		return err
	}
	dirs, err := c.targets()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		for name, data := range files {
			if err := writeReadable(filepath.Join(dir, name), data); err != nil {
				return err
			}
		}
	}
	// A variable that is not set here is the normal case and only a warning.
	for _, note := range e.warnings(cfg) {
		fmt.Fprintln(e.err, note)
	}
	if e.cli.JSON {
		return printJSON(e.out, map[string]any{"digest": cfg.Digest, "directories": dirs})
	}
	for _, dir := range dirs {
		fmt.Fprintf(e.out, "%s: digest %.12s\n", filepath.Join(dir, "keyway.json"), cfg.Digest)
	}
	return nil
}

// deployable returns the errors that a function would report at its start, so that
// they are found before a deployment and not by its first request. It rejects what
// only "serve --dev" accepts. An unset variable is no error: the function's
// environment sets it.
//
// It also rejects the secret that the Agno documents print, if the file holds it as
// text: anybody can sign tokens with it.
func (e env) deployable(cfg *config.Config) error {
	if _, err := edge.Policy(cfg); err != nil {
		return err
	}
	_, err := e.load(false)
	faults, _ := errors.AsType[config.Faults](err)
	faults = slices.DeleteFunc(faults, func(f config.Fault) bool {
		_, unset := cfg.Unset[f.Path]
		return unset
	})
	published := func(k config.Key) bool { return k.Literal == config.PublishedSecret && !k.FromVariable }
	if slices.ContainsFunc(cfg.Auth.Keys, published) {
		faults = append(faults, cfg.Forgeable()...)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// deployedFiles returns the files to write, by name: keyway.json, and the files of keys
// and CAs that it names. Such a file keeps its path relative to keyway.yaml, so it must
// lie in the same directory or below.
func (e env) deployedFiles(cfg *config.Config) (map[string][]byte, error) {
	data, err := os.ReadFile(e.cli.Config)
	if err == nil {
		data, err = yamlfile.Canonical(e.cli.Config, data)
	}
	if err != nil {
		return nil, err
	}
	// The canonical form has no comments and sorted members: the same configuration gives
	// the same bytes, and so the same zip.
	files := map[string][]byte{"keyway.json": data}
	for _, k := range cfg.Auth.Keys {
		ca := k.CA
		if strings.Contains(ca, "-----BEGIN ") {
			ca = "" // a text, which keyway.json contains
		}
		for _, f := range []struct {
			path string
			read func(string) ([]byte, error)
		}{{k.JWKSFile, publicKeys}, {ca, certificates}} {
			if f.path == "" {
				continue
			}
			// IsLocal rejects .. and absolute paths: such a file would be written outside of
			// the function's directory, and not be deployed.
			name, err := filepath.Rel(filepath.Dir(e.cli.Config), f.path)
			if err != nil || !filepath.IsLocal(name) {
				return nil, usage("auth.keys: %s lies outside of the directory of %s and would not be deployed; move it there",
					f.path, e.cli.Config)
			}
			if files[name], err = f.read(f.path); err != nil {
				return nil, usage("auth.keys: %w", err)
			}
		}
	}
	return files, nil
}

// certificates returns the certificates of a PEM file. A private key beside them is an error:
// it must not reach a function.
func certificates(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, fmt.Errorf("%s holds a private key; keep only the certificate of the CA", file)
		}
		if block.Type == "CERTIFICATE" {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("%s holds no certificate; give the certificate of the CA in PEM form", file)
	}
	return out, nil
}

// publicKeys returns the JWKS of a key file alone. "keyway keys generate" writes the
// private key into the same file, outside of the set; it must not reach a function,
// which only verifies. A set that itself holds a private key (RFC 7517: the member d)
// or a symmetric one (k) is an error.
func publicKeys(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	// Decoding and encoding keeps every public member and drops what surrounds the set.
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if json.Unmarshal(data, &set) != nil || len(set.Keys) == 0 {
		return nil, fmt.Errorf("%s is not a JSON Web Key Set (JWKS) with keys; "+
			"create one: keyway keys generate --alg RS256 --out FILE", file)
	}
	for _, k := range set.Keys {
		if k["d"] != nil || k["k"] != nil {
			return nil, fmt.Errorf("%s holds a private key in its set; keep only its public members", file)
		}
	}
	return json.Marshal(set)
}

// targets returns the directories to write to. Each must exist: a mistyped name
// would otherwise become a new directory that nobody deploys.
func (c buildCmd) targets() ([]string, error) {
	// All are checked before the first is written to.
	for _, dir := range c.Dirs {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, usage("there is no directory %s; build the functions first, with sam build", dir)
		}
	}
	if len(c.Dirs) > 0 {
		return c.Dirs, nil
	}
	// A layer's directory has no bootstrap and needs no configuration.
	programs, err := filepath.Glob(filepath.Join(artifacts, "*", "bootstrap"))
	if err == nil && len(programs) == 0 {
		err = usage("no directory below %s holds a bootstrap; run sam build first, or name the directories", artifacts)
	}
	dirs := make([]string, len(programs))
	for i, program := range programs {
		dirs[i] = filepath.Dir(program)
	}
	return dirs, err
}

// writeReadable writes a file that every user can read: Lambda runs the function as
// another user than the one that built the zip, and the zip keeps the mode.
func writeReadable(name string, data []byte) error {
	err := os.MkdirAll(filepath.Dir(name), 0o755) // #nosec G301 -- no secret is in it
	if err == nil {
		err = os.WriteFile(name, data, 0o644) // #nosec G306
	}
	return err
}
