package revoke_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/owner"
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
		got, err := revoke.IssuersOf(row.auth).Choose(row.named, nil)
		switch {
		case row.err == "" && (err != nil || got != row.want):
			t.Errorf("%s: %q, %v", name, got, err)
		case row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)):
			t.Errorf("%s: %v, want %s", name, err, row.err)
		}
	}
}

// A process with an earlier file must not make a revocation that refuses no token of the file in force.
func TestARevocationForEntriesWithoutAnIssuerNeedsOneInForce(t *testing.T) {
	t.Parallel()
	home := "a"
	for name, row := range map[string]struct {
		recorded owner.Record
		refused  bool
	}{
		"an entry has none":       {owner.Record{Entries: map[string]int{"": 1, "b": 1}}, false},
		"all have issuers":        {owner.Record{Entries: map[string]int{"a": 1}}, true},
		"it got the home issuer":  {owner.Record{Entries: map[string]int{"a": 1}, Home: &home, Unnamed: true}, false},
		"one was always at home":  {owner.Record{Entries: map[string]int{"a": 1}, Home: &home}, true},
		"entries are at home yet": {owner.Record{Entries: map[string]int{"b": 1}, Home: new("")}, false},
	} {
		_, err := revoke.IssuersOf(keys("")).Choose(nil, &row.recorded)
		if refused := err != nil && strings.Contains(err.Error(), "name the issuer of the token"); refused != row.refused {
			t.Errorf("%s: %v", name, err)
		}
		if issuer, err := revoke.IssuersOf(keys("")).Choose(new("a"), &row.recorded); issuer != "a" || err != nil {
			t.Errorf("%s, with its issuer: %v", name, err)
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
