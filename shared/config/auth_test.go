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

// A key that is written as a text can have the other fields of an entry, if it is the member key of an object.
func TestAnEntryWithATextKeyHasTheFieldsOfAnEntry(t *testing.T) {
	t.Parallel()
	env := config.Options{Lookup: lookup(map[string]string{"LITERAL": onLaptop, "ARN": inVault})}
	const entry = `{"key": "${LITERAL}", "issuer": "https://i", "claims": {"subject": "email"}, "accept": ["id_token"]}`
	c := mustParse(t, portable(entry), env)
	k := c.Auth.Keys[0]
	if k.Literal != onLaptop || !k.FromVariable || k.Issuer[0] != "https://i" || k.Claims.Subject.Claim != "email" ||
		k.Accept[0] != "id_token" {
		t.Errorf("%+v", k)
	}
	if got, want := c.String(), `"key": "***"`; !strings.Contains(got, want) || strings.Contains(got, onLaptop) {
		t.Errorf("it prints as %s", got)
	}
	alone, text := mustParse(t, portable(`{"key": "${LITERAL}"}`), env), mustParse(t, portable(`"${LITERAL}"`), env)
	if alone.String() != text.String() {
		t.Errorf("alone it prints as %s", alone)
	}
	const pem = `{"key": "-----BEGIN PUBLIC KEY-----\\nAAAA\\n-----END PUBLIC KEY-----\\n", "audience": ["os"]}`
	if got := mustParse(t, rs256(pem), env).Auth.Keys[0].Literal; string(got) !=
		"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n" {
		t.Errorf("a PEM key on one line is %q", string(got))
	}
	literal := config.Faults(mustParse(t, portable(`{"key": "`+onLaptop+`", "issuer": "https://i"}`), env).Warnings)
	if !strings.Contains(literal.Error(), "is a secret written in the file") {
		t.Errorf("warnings %v", literal)
	}
	for entry, want := range map[string]string{
		`{"key": "${LITERAL}", "secret": "${ARN}"}`: "auth.keys[0]: needs exactly one source of keys; set one of key, " +
			"jwks_file, jwks_url, discovery and secret",
		`{"key": "sesame", "issuer": "https://i"}`: "auth.keys[0].key: is an HMAC secret of fewer than 32 bytes, which " +
			"can be guessed; make one with: openssl rand -hex 32",
		`{"key": 1, "issuer": "https://i"}`: "auth.keys[0].key: is a number; write text, in quotes where needed",
		`{"key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "issuer": "https://i"}`: "auth.keys[0]." +
			"key: is a private key; give the public key, which this command prints: openssl pkey -in private.pem -pubout",
		`{"key": "${UNSET}", "issuer": "https://i"}`: "auth.keys[0].key: ${UNSET} is unset or empty; set UNSET, or write " +
			"$${ for a literal ${",
	} {
		wantErrors(t, portable(entry), env, want)
	}
	// Beside other entries, one that is only a key is left out, as one that is a text.
	left := mustParse(t, portable(`{"key": "${LITERAL}"}, {"secret": "${ARN}"}`),
		config.Options{Lookup: lookup(map[string]string{"LITERAL": "", "ARN": inVault})}).Auth.Keys
	if len(left) != 1 || left[0].Secret != inVault {
		t.Errorf("left: %+v", left)
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

// rs256 returns a file with one entry in auth.keys.
func rs256(entry string) []byte {
	return []byte(strings.Replace(string(portable(entry)), `"auth": {`, `"auth": {"algorithms": ["RS256"], `, 1))
}

func TestHTTPIsForPrivateAddressesOnly(t *testing.T) {
	t.Parallel()
	const entry = `{"jwks_url": "http://HOST/k", "audience": ["os"], "http": true}`
	for _, dev := range []bool{false, true} {
		for _, host := range []string{
			"keycloak:8080", "127.0.0.1", "[::1]:1", "10.1.2.3", "192.168.0.9:80", "172.16.0.1", "[fd00::1]", "100.64.0.1",
			"[::ffff:10.0.0.1]", "localhost",
		} {
			file := rs256(strings.Replace(entry, "HOST", host, 1))
			got := config.Faults(mustParse(t, file, config.Options{Dev: dev}).Warnings).Error()
			const want = "auth.keys[0].jwks_url: is http, so any program in that network can replace the keys; use https, " +
				"unless only programs that you trust are in that network"
			if got != want {
				t.Errorf("%s: %s", host, got)
			}
		}
		for _, host := range []string{"8.8.8.8", "[2606:4700::1]:80", "169.254.169.254", "0.0.0.0", "[::ffff:8.8.8.8]"} {
			wantErrors(t, rs256(strings.Replace(entry, "HOST", host, 1)), config.Options{Dev: dev},
				"auth.keys[0].jwks_url: is http at a public address, so anyone on the network path could replace the keys; "+
					"use https; http: true is for private addresses only")
		}
	}
}

func TestAddressesOfAnIssuerAreChecked(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://login.example/{tenantid}/v2.0": "has a placeholder; write the name or id of one tenant; each tenant needs " +
			"an entry of its own",
		"https://i.example/a?b": "has a query or a fragment, which the address of an issuer has not; remove it, or " +
			"write the address of the metadata document, which contains /.well-known/",
		"https://i.example/a#b": "has a query or a fragment, which the address of an issuer has not; remove it, or " +
			"write the address of the metadata document, which contains /.well-known/",
		"i.example": "is not an https address; write https://host/path, without credentials",
		"http://i.example": "is not https, so anyone on the network path could replace the keys; use https; inside a " +
			"compose network or a cluster, add http: true to this key; with --dev, http on a loopback " +
			"address is accepted too",
	} {
		wantErrors(t, rs256(`{"discovery": "`+address+`"}`), config.Options{}, "auth.keys[0].discovery: "+want)
	}
	for address, want := range map[string]string{
		"https://i.example":      "https://i.example",
		"https://i.example/":     "https://i.example/",
		"https://i.example/a/b/": "https://i.example/a/b/",
		"https://i.example/a/.well-known/openid-configuration":       "https://i.example/a",
		"https://i.example/a/.well-known/openid-configuration?p=b":   "https://i.example/a",
		"https://i.example/.well-known/oauth-authorization-server/a": "https://i.example/a",
		"https://i.example/.well-known/oauth-authorization-server":   "https://i.example",
	} {
		c := mustParse(t, rs256(`{"discovery": "`+address+`"}`), config.Options{})
		if got := c.Auth.Keys[0].Realm(); got != want {
			t.Errorf("%s: the issuer is %s, want %s", address, got, want)
		}
	}
}

func TestSettingsOfAConnectionWithoutEffectAreWarnedOf(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]string{
		`"jwks_url": "https://i/k", "ca": "ca.pem"`:  "",
		`"discovery": "https://i/k", "ca": "ca.pem"`: "",
		`"discovery": "https://i", "http": true`:     "",
		`"jwks_file": "k", "ca": "ca.pem"`:           "ca: has no effect without jwks_url or discovery; remove it",
		`"jwks_file": "k", "http": true`:             "http: has no effect without jwks_url or discovery; remove it",
		`"jwks_url": "https://i/k", "http": true`:    "http: has no effect, because jwks_url is not http; remove it",
		`"jwks_url": "https://i/.well-known/openid-configuration"`: "jwks_url: is the address of a metadata document, " +
			"which contains no keys; write discovery in place of jwks_url",
	} {
		c := mustParse(t, rs256(`{`+entry+`, "audience": ["os"]}`), config.Options{})
		if want != "" {
			want = "auth.keys[0]." + want
		}
		if got := config.Faults(c.Warnings).Error(); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", entry, got, want)
		}
	}
	wantErrors(t, rs256(`{"jwks_url": "https://i", "ca": "-----BEGIN PRIVATE KEY-----"}`), config.Options{},
		"auth.keys[0].ca: contains a private key; give the certificate of the CA only")
}

// The keys of an identity provider sign tokens for other services too, whether they are fetched or not.
func TestPublicKeysWithoutAudienceAreWarnedOf(t *testing.T) {
	t.Parallel()
	const want = "auth.keys[0]: accepts tokens that its issuer made for other services; set verify_audience: true, " +
		"or set audience on this key"
	for _, source := range []string{
		`"jwks_file": "k"`, `"jwks_url": "https://i/k"`, `"discovery": "https://i"`,
	} {
		for more, want := range map[string]string{"": want, `, "audience": ["os"]`: "", `, "clients": ["app"]`: ""} {
			c := mustParse(t, rs256(`{`+source+more+`}`), config.Options{})
			if got := config.Faults(c.Warnings).Error(); got != want {
				t.Errorf("%s%s: %s", source, more, got)
			}
		}
	}
	pem := lookup(map[string]string{"PEM": "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"})
	c := mustParse(t, rs256(`"${PEM}"`), config.Options{Lookup: pem})
	if got := config.Faults(c.Warnings).Error(); got != want {
		t.Errorf("PEM: %s", got)
	}
}
