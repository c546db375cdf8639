package revoke_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/revoke"
)

// keys makes a configuration with one key for each text, which lists the spellings of its issuer.
func keys(issuers ...string) (a config.Auth) {
	for _, list := range issuers {
		a.Keys = append(a.Keys, config.Key{Issuer: strings.Fields(list)})
	}
	return a
}

func TestARevocationNamesAnIssuerThatTokensCanHave(t *testing.T) {
	t.Parallel()
	global := keys("", "")
	global.Issuer = "g"
	for name, row := range map[string]struct {
		auth  config.Auth
		named *string
		want  string
		err   string
	}{
		"the only issuer":                 {keys("a"), nil, "a", ""},
		"the only issuer, by name":        {keys("a"), new("a"), "a", ""},
		"a rotation":                      {keys("a", "a"), nil, "a", ""},
		"spellings of one issuer":         {keys("a b"), nil, "a", ""},
		"a spelling":                      {keys("a b"), new("b"), "b", ""},
		"an issuer of all keys":           {global, nil, "g", ""},
		"any issuer":                      {keys(""), nil, "", ""},
		"any issuer, by name":             {keys(""), new("x"), "x", ""},
		"no key yet":                      {config.Auth{}, nil, "", ""},
		"one of two":                      {keys("a", "b"), new("b"), "b", ""},
		"two, and none named":             {keys("a", "b c"), nil, "", "must be named: a or b"},
		"two, and another one named":      {keys("a", "b"), new("x"), "", "must be a or b"},
		"one, and another one named":      {keys("a"), new("x"), "", "must be a"},
		"one and any, and none named":     {keys("a", ""), nil, "", `must be named: a or "" (for tokens`},
		"one and any":                     {keys("a", ""), new(""), "", ""},
		"the empty issuer where none has": {keys("a"), new(""), "", "must be a"},
	} {
		got, err := revoke.IssuersOf(row.auth).Choose(row.named)
		switch {
		case row.err == "" && (err != nil || got != row.want):
			t.Errorf("%s: %q, %v", name, got, err)
		case row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)):
			t.Errorf("%s: %v, want %s", name, err, row.err)
		}
	}
}

// A revocation holds for each spelling of the issuer that it names, and for keys of any issuer whatever iss says.
func TestATokenHasAllNamesOfItsIssuer(t *testing.T) {
	t.Parallel()
	i := revoke.IssuersOf(keys("a b", "c", ""))
	for _, row := range []struct {
		realm, issuer string
		want          []string
	}{
		{"a", "a", []string{"a", "b"}}, {"a", "b", []string{"a", "b"}}, {"c", "c", []string{"c"}},
		{"", "x", []string{"", "x"}}, {"", "", []string{""}},
	} {
		if got := i.Of(row.realm, row.issuer); !slices.Equal(got, row.want) {
			t.Errorf("%q %q: %q", row.realm, row.issuer, got)
		}
	}
}
