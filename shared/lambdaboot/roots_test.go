package lambdaboot

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

var bundle = flag.String("bundle", "", "a file with AWS's certificates, from which rds.pem is written again")

// ofRDS matches the names of the CAs that sign RDS's certificates today. RDS has other CAs
// for its preview environment, and had others until 2024.
var ofRDS = regexp.MustCompile(`^Amazon RDS ([a-z]{2}(?:-[a-z]+)+-\d) Root CA (RSA2048|RSA4096|ECC384) G1$`)

func TestOnlyTheCurrentRootsOfRDSAreTrusted(t *testing.T) {
	t.Parallel()
	if *bundle != "" {
		remake(t, *bundle)
	}
	if want := arranged(t, file(t)); !bytes.Equal(file(t), want) {
		t.Error("rds.pem differs from what -bundle would write")
	}
	certificates := parse(t, file(t))
	if begun := strings.Count(string(file(t)), "-----BEGIN"); begun != len(certificates) || begun < 96 {
		t.Errorf("%d blocks and %d certificates, want at least 96 of both", begun, len(certificates))
	}
	for _, c := range certificates {
		name := c.Subject.CommonName
		subject := "CN=" + name + ",OU=Amazon RDS,O=Amazon Web Services\\, Inc.,L=Seattle,ST=WA,C=US"
		if !ofRDS.MatchString(name) || c.Subject.String() != subject {
			t.Errorf("%s is not an RDS root CA", c.Subject)
		}
		if !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0 {
			t.Errorf("%s is not allowed to sign certificates", name)
		}
		if err := c.CheckSignatureFrom(c); err != nil || c.Issuer.String() != c.Subject.String() {
			t.Errorf("%s is not self-signed: %v", name, err)
		}
		if until := time.Now().AddDate(1, 0, 0); c.NotAfter.Before(until) || c.NotBefore.After(time.Now()) {
			t.Errorf("%s is valid from %s to %s; write rds.pem again, see docs/dependencies.md", name, c.NotBefore, c.NotAfter)
		}
	}
}

// A function trusts the three root CAs of its own region, and no others.
func TestFunctionTrustsRootsOfItsRegionOnly(t *testing.T) {
	t.Parallel()
	for _, region := range []string{"af-south-1", "eu-central-1", "us-east-1", "us-west-2"} {
		var kinds []string
		for _, c := range parse(t, []byte(rootsOf(region))) {
			m := ofRDS.FindStringSubmatch(c.Subject.CommonName)
			if m == nil || m[1] != region {
				t.Errorf("%s trusts %s", region, c.Subject.CommonName)
				continue
			}
			kinds = append(kinds, m[2])
		}
		if got := strings.Join(kinds, " "); got != "ECC384 RSA2048 RSA4096" {
			t.Errorf("%s: %s", region, got)
		}
	}
	for _, none := range []string{"", "us-east", "eu-central-11", "# us-east-1"} {
		if roots := rootsOf(none); roots != "" {
			t.Errorf("%q trusts %s", none, roots)
		}
	}
}

// The RDS CAs are trusted only for RDS servers of this region. Any other host needs a
// certificate that the system trusts.
func TestRDSRootsAreTrustedForRDSHostsOnly(t *testing.T) {
	t.Parallel()
	for host, own := range map[string]bool{
		"keyway-cluster.cluster-c1a2.eu-central-1.rds.amazonaws.com": true,
		"keyway.c1a2.eu-central-1.rds.amazonaws.com":                 true,
		"keyway-db.proxy-c1a2.eu-central-1.rds.amazonaws.com":        false,
		"keyway.c1a2.eu-west-1.rds.amazonaws.com":                    false,
		"eu-central-1.rds.amazonaws.com.example.com":                 false,
		"db.example.com": false,
	} {
		pool := trustedRoots(host, "eu-central-1")
		if (pool != nil) != own {
			t.Errorf("%s: %v", host, pool)
		}
		for _, c := range parse(t, file(t)) {
			_, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			if region := ofRDS.FindStringSubmatch(c.Subject.CommonName)[1]; own && (err == nil) != (region == "eu-central-1") {
				t.Errorf("%s: %s: %v", host, c.Subject.CommonName, err)
			}
		}
	}
	if trustedRoots("keyway.c1a2.xx-none-1.rds.amazonaws.com", "xx-none-1") != nil {
		t.Error("an unknown region has roots")
	}
}

func TestIAMTokenNeedsAVerifiedServer(t *testing.T) {
	t.Parallel()
	for mode, good := range map[string]bool{
		"verify-full": true, "verify-ca": false, "require": false, "prefer": false, "allow": false, "disable": false,
		"": false,
	} {
		c, err := pgx.ParseConfig("postgres://u@keyway.c1a2.eu-central-1.rds.amazonaws.com/db?sslmode=" + mode)
		if mode == "" {
			c, err = pgx.ParseConfig("postgres://u@keyway.c1a2.eu-central-1.rds.amazonaws.com/db")
		}
		if err != nil {
			t.Fatal(err)
		}
		err = requireVerifiedTLS(c)
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "the template's parameter Database") {
			t.Errorf("sslmode=%s: %v", mode, err)
		}
	}
}

// The password in a secret's URL is never sent without encryption. The RDS CAs are
// trusted for such a URL too.
func TestPasswordInASecretNeedsTLS(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-central-1")
	for mode, row := range map[string]struct{ good, roots bool }{
		"verify-full": {true, true}, "verify-ca": {true, false}, "require": {true, false},
		"prefer": {}, "allow": {}, "disable": {}, "": {},
	} {
		address := "postgres://u:p@keyway.c1a2.eu-central-1.rds.amazonaws.com/db"
		if mode != "" {
			address += "?sslmode=" + mode
		}
		c, err := pgx.ParseConfig(address)
		if err != nil {
			t.Fatal(err)
		}
		err = requireTLS(c)
		if (err == nil) != row.good || err != nil && !strings.Contains(err.Error(), "DatabaseUrlSecret") {
			t.Errorf("sslmode=%s: %v", mode, err)
		}
		if row.good && (c.TLSConfig.RootCAs != nil) != row.roots {
			t.Errorf("sslmode=%s: roots %v", mode, c.TLSConfig.RootCAs)
		}
	}
}

func BenchmarkRootsOfARegion(b *testing.B) {
	for b.Loop() {
		x509.NewCertPool().AppendCertsFromPEM([]byte(rootsOf("us-west-2")))
	}
}

func BenchmarkAllRoots(b *testing.B) {
	for b.Loop() {
		x509.NewCertPool().AppendCertsFromPEM([]byte(rdsRoots))
	}
}

func file(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("rds.pem")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func parse(t *testing.T, text []byte) (out []*x509.Certificate) {
	t.Helper()
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
}

// remake writes rds.pem again. The file from can be any text that contains the
// certificates in PEM form, such as the source of a program.
func remake(t *testing.T, from string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile("rds.pem", arranged(t, text), 0o644) // #nosec G306 -- a source file
	}
	if err != nil {
		t.Fatal(err)
	}
}

// arranged returns the current root CAs in text, sorted by region and kind.
func arranged(t *testing.T, text []byte) []byte {
	t.Helper()
	regions := map[string]map[string][]byte{}
	for _, c := range parse(t, text) {
		if m := ofRDS.FindStringSubmatch(c.Subject.CommonName); m != nil {
			if regions[m[1]] == nil {
				regions[m[1]] = map[string][]byte{}
			}
			if other := regions[m[1]][m[2]]; other != nil && !bytes.Equal(other, c.Raw) {
				t.Fatalf("there are two different certificates of %s", c.Subject.CommonName)
			}
			regions[m[1]][m[2]] = c.Raw
		}
	}
	var out bytes.Buffer
	for _, region := range slices.Sorted(maps.Keys(regions)) {
		fmt.Fprintf(&out, "# %s\n", region)
		for _, kind := range slices.Sorted(maps.Keys(regions[region])) {
			if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: regions[region][kind]}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out.Bytes()
}
