package yamlfile_test

import (
	"testing"

	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/yamlfile"
)

// keyway config check prints notes about files that earlier versions read in another way, and about scopes that each
// client can ask for.
func TestNotesNameTheEffectsThatAnOperatorMayNotExpect(t *testing.T) {
	t.Parallel()
	const split = ": reads the claim scope, of which a text is split at spaces (RFC 8693, RFC 9068); earlier " +
		"versions read it " +
		"as one scope; write {claim: scope, split: true} to confirm that, or split: false for one scope"
	const asked = ": reads what a client may ask for, which at many issuers each user can ask for; let the issuer " +
		"tie these " +
		"scopes to roles, or read the user's roles too: claims.roles and grants"
	for name, row := range map[string]struct{ auth, want string }{
		"the default": {`keys: [{jwks_url: "https://i/k"}]`, ""},
		"scope of an identity provider": {
			"claims: {scopes: scope}\n  keys: [{jwks_url: \"https://i/k\"}]",
			"keyway.yaml:4:12: auth.claims.scopes" + split + "\nkeyway.yaml:4:12: auth.claims.scopes" + asked},
		"scope of one entry": {
			`keys: [{discovery: "https://i", claims: {scopes: scope}}]`,
			"keyway.yaml:4:44: auth.keys[0].claims.scopes" + split + "\nkeyway.yaml:4:44: auth.keys[0].claims.scopes" + asked},
		"scope that is split on purpose": {
			"claims: {scopes: {claim: scope, split: true}}\n  keys: [{jwks_url: \"https://i/k\"}]",
			"keyway.yaml:4:12: auth.claims.scopes" + asked},
		"scope beside roles": {
			"claims: {scopes: {claim: scope, split: true}, roles: groups}\n  grants: {g: [\"a:b\"]}\n" +
				"  keys: [{jwks_url: \"https://i/k\"}]", ""},
		"scope beside permissions": {
			"claims: {scopes: [scope, permissions]}\n  keys: [{jwks_url: \"https://i/k\"}]",
			"keyway.yaml:4:21: auth.claims.scopes[0]" + split},
		"scope of a key file": {
			"claims: {scopes: {claim: scp, split: true}}\n  keys: [{jwks_file: k.json}]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := "id: os\nauth:\n  algorithms: [RS256]\n  " + row.auth + "\nagents: [{id: a, model: \"demo:x\"}]\n"
			c, err := yamlfile.Parse("keyway.yaml", []byte(text), config.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := config.Faults(c.Notes).Error(); got != row.want {
				t.Errorf("got\n%s\nwant\n%s", got, row.want)
			}
		})
	}
}
