package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
	"github.com/keyway-agents/keyway/shared/edge"
)

// artifacts is where sam build leaves what it deploys: one directory a function.
const artifacts = ".aws-sam/build"

// buildCmd puts the configuration into what is deployed.
type buildCmd struct {
	Dirs []string `arg:"" optional:"" name:"dir" help:"Where to write keyway.json (each directory below .aws-sam/build that holds a bootstrap)."`
}

// Help shows what to type.
func (buildCmd) Help() string {
	return `A function reads keyway.json, the checked keyway.yaml in canonical form, beside its
program. Variables stay as written: the function's environment fills them.
Public keys that auth.keys names as a file go along.

  sam build && keyway build
  keyway build --config prod.yaml dist/authorizer dist/agents`
}

// Run checks keyway.yaml and writes it into every directory, or into none.
func (c buildCmd) Run(e env) error {
	cfg, err := e.load(true)
	if err != nil {
		return err
	}
	if err := e.deployable(cfg); err != nil {
		return usageError{err}
	}
	files, err := e.baked(cfg)
	if err != nil {
		return err
	}
	dirs, err := c.targets()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		for name, data := range files {
			if err := write(filepath.Join(dir, name), data); err != nil {
				return err
			}
		}
	}
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

// deployable refuses what is fine only with --dev, and what each function would
// refuse at its start.
func (e env) deployable(cfg *config.Config) error {
	if _, err := edge.Policy(cfg); err != nil {
		return err
	}
	_, err := e.load(false)
	faults, _ := errors.AsType[config.Faults](err)
	faults = slices.DeleteFunc(faults, func(f config.Fault) bool { _, waits := cfg.Unset[f.Path]; return waits })
	written := func(k config.Key) bool { return k.Literal == config.PublishedSecret && !k.FromVariable }
	if slices.ContainsFunc(cfg.Auth.Keys, written) {
		faults = append(faults, cfg.Forgeable()...)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// baked are the files that an artifact gets: keyway.json, and the key files it names.
func (e env) baked(cfg *config.Config) (map[string][]byte, error) {
	data, err := os.ReadFile(e.cli.Config)
	if err == nil {
		data, err = yamlfile.Canonical(e.cli.Config, data)
	}
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"keyway.json": data}
	for _, k := range cfg.Auth.Keys {
		if k.JWKSFile == "" {
			continue
		}
		name, err := filepath.Rel(filepath.Dir(e.cli.Config), k.JWKSFile)
		if err != nil || !filepath.IsLocal(name) {
			return nil, usage("auth.keys: %s lies outside of the directory of %s, and so of what is deployed; move it there", k.JWKSFile, e.cli.Config)
		}
		if files[name], err = publicSet(k.JWKSFile); err != nil {
			return nil, usage("auth.keys: %w", err)
		}
	}
	return files, nil
}

// publicSet is the set in a key file, without the private key that keyway keys
// generate writes beside it.
func publicSet(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if json.Unmarshal(data, &set) != nil || len(set.Keys) == 0 {
		return nil, fmt.Errorf("%s holds no set of keys", file)
	}
	for _, k := range set.Keys {
		if k["d"] != nil || k["k"] != nil {
			return nil, fmt.Errorf("%s holds a private key in its set; keep only its public members", file)
		}
	}
	return json.Marshal(set)
}

// targets are the directories to write to; each must be there.
func (c buildCmd) targets() ([]string, error) {
	for _, dir := range c.Dirs {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, usage("there is no directory %s; build the functions first, with sam build", dir)
		}
	}
	if len(c.Dirs) > 0 {
		return c.Dirs, nil
	}
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

// write makes a file that Lambda's user, another one, can read.
func write(name string, data []byte) error {
	err := os.MkdirAll(filepath.Dir(name), 0o755) // #nosec G301 -- no secret is in it
	if err == nil {
		err = os.WriteFile(name, data, 0o644) // #nosec G306
	}
	return err
}
