package process

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Recipe is what docs/identity.md says about one issuer.
type Recipe struct {
	Issuer string
	YAML   string   // the part auth of keyway.yaml
	Tokens []string // the claims of ann, and those of a service if there are any
}

// Recipes returns the recipes of docs/identity.md. Tests use them as they stand there.
func Recipes(t *testing.T) (list []Recipe) {
	t.Helper()
	page, err := os.ReadFile(Path("docs/identity.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range strings.Split(string(page), "\n## ")[1:] {
		r := Recipe{}
		r.Issuer, section, _ = strings.Cut(section, "\n")
		for _, block := range regexp.MustCompile("(?s)\n```(\\w+)\n(.*?)```\n").FindAllStringSubmatch(section, -1) {
			switch block[1] {
			case "yaml":
				r.YAML += block[2]
			case "json":
				r.Tokens = append(r.Tokens, block[2])
			}
		}
		if r.YAML == "" || len(r.Tokens) == 0 {
			t.Fatalf("docs/identity.md: %s has no YAML or no token", r.Issuer)
		}
		list = append(list, r)
	}
	return list
}

// RecipeOf returns the recipe of one issuer.
func RecipeOf(t *testing.T, issuer string) Recipe {
	t.Helper()
	for _, r := range Recipes(t) {
		if r.Issuer == issuer {
			return r
		}
	}
	t.Fatalf("docs/identity.md has no recipe for %s", issuer)
	return Recipe{}
}

// fetched is an entry of auth.keys that is fetched, and its issuer if it has one of its own.
var fetched = regexp.MustCompile(`(?m)^    - (?:discovery|jwks_url): (\S+)\n(      issuer: .*\n)?`)

// WithKeys is the recipe with a file of keys in place of each address.
func (r Recipe) WithKeys(file string) string {
	return fetched.ReplaceAllStringFunc(r.YAML, func(entry string) string {
		m := fetched.FindStringSubmatch(entry)
		if m[2] == "" {
			m[2] = "      issuer: " + m[1] + "\n"
		}
		return "    - jwks_file: " + file + "\n" + m[2]
	})
}
