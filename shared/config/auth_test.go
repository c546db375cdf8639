package config_test

import (
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
)

const (
	onLaptop = "a secret of this laptop, thirty-two bytes or more"
	inVault  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf"
)

// portable returns a file that works on AWS, with sam local and on a laptop.
func portable(keys string) []byte {
	return []byte(`{"id": "os", "auth": {"keys": [` + keys + `]}, "agents": [{"id": "a", "model": "demo:x"}]}`)
}

// twoKeys are entries of which each place uses one.
const twoKeys = `"${LITERAL}", {"secret": "${ARN}"}`

// A variable that is set to an empty value removes its own entry and no other.
func TestKeyWithEmptyVariableIsLeftOutIfAnotherRemains(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		env  map[string]string
		want []config.Key
	}{
		"AWS": {map[string]string{"LITERAL": "", "ARN": inVault}, []config.Key{{Secret: inVault}}},
		"sam local": {map[string]string{"LITERAL": onLaptop, "ARN": ""},
			[]config.Key{{Literal: onLaptop, FromVariable: true}}},
		"both": {map[string]string{"LITERAL": onLaptop, "ARN": inVault},
			[]config.Key{{Literal: onLaptop, FromVariable: true}, {Secret: inVault}}},
	} {
		for _, dev := range []bool{false, true} {
			got := mustParse(t, portable(twoKeys), config.Options{Lookup: lookup(row.env), Dev: dev}).Auth.Keys
			if len(got) != len(row.want) {
				t.Fatalf("%s, dev %t: %d keys", name, dev, len(got))
			}
			for i, k := range got {
				if k.Literal != row.want[i].Literal || k.Secret != row.want[i].Secret ||
					k.FromVariable != row.want[i].FromVariable {
					t.Errorf("%s, dev %t: entry %d differs", name, dev, i)
				}
			}
		}
	}
}

func TestKeyIsNotLeftOutWhereThatCouldBeAMistake(t *testing.T) {
	t.Parallel()
	const (
		literal = "auth.keys[0]: ${LITERAL} is unset or empty; set LITERAL, or set it to an empty value to use only the " +
			"other keys, or write $${ for a literal ${"
		secret = "auth.keys[1].secret: ${ARN} is unset or empty; set ARN, or set it to an empty value to use only the " +
			"other keys, or write $${ for a literal ${"
		issuer = "auth.keys[1].issuer: ${ARN} is unset or empty; set ARN, or write $${ for a literal ${"
		inside = "auth.keys[0]: ${LITERAL} is unset or empty; set LITERAL, or write $${ for a literal ${"
		owner  = "auth.keys[1].secret: ${ARN} is unset or empty; set ARN, or write $${ for a literal ${"
	)
	nothing := map[string]string{"LITERAL": "", "ARN": ""}
	for name, row := range map[string]struct {
		keys string
		env  map[string]string
		want []string
	}{
		"none is left":             {twoKeys, nothing, []string{literal, secret}},
		"one is alone":             {`"${LITERAL}"`, nothing, []string{inside}},
		"one is not set":           {twoKeys, map[string]string{"ARN": inVault}, []string{literal}},
		"the other is not set":     {twoKeys, map[string]string{"LITERAL": onLaptop}, []string{secret}},
		"empty beside one not set": {twoKeys, map[string]string{"ARN": ""}, []string{literal}},
		"more than the variable": {`"x${LITERAL}", {"secret": "${ARN}"}`,
			map[string]string{"LITERAL": "", "ARN": inVault}, []string{inside}},
		"no source": {`{"secret": "` + inVault + `"}, {"issuer": "${ARN}"}`, nothing, []string{issuer}},
		"an issuer names the owner": {`{"secret": "` + inVault + `"}, {"secret": "${ARN}", "issuer": "https://i"}`, nothing,
			[]string{owner}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantErrors(t, portable(row.keys), config.Options{Lookup: lookup(row.env)}, strings.Join(row.want, "\n"))
		})
	}
}

// Leaving out entries does not change the other rules: an HMAC secret does not fit RS256.
func TestHMACSecretIsRejectedForPublicKeyAlgorithm(t *testing.T) {
	t.Parallel()
	file := strings.Replace(string(portable(twoKeys)), `"auth": {`, `"auth": {"algorithms": ["RS256"], `, 1)
	wantErrors(t, []byte(file), config.Options{Lookup: lookup(map[string]string{"LITERAL": onLaptop, "ARN": ""})},
		"auth.keys[0]: is not a PEM public key, which RS256 needs; give the text that begins with -----BEGIN PUBLIC "+
			"KEY-----, or set auth.algorithms to [HS256]")
}
