package lambdaboot

import (
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// rdsRoots holds the CA certificates of RDS in PEM form, each region's after a line
// "# REGION". A server of RDS or Aurora has a certificate of its region's RDS CA, which no
// system trusts by default. The endpoint of an RDS Proxy has one of Amazon's public CA,
// which every system trusts. docs/dependencies.md names the source of the file.
//
//go:embed rds.pem
var rdsRoots string

// rootsOf returns the certificates of one region, or "" for an unknown region. A function
// parses its own region's only, since parsing all of them would slow down a cold start.
func rootsOf(region string) string {
	_, from, _ := strings.Cut(rdsRoots, "# "+region+"\n")
	roots, _, _ := strings.Cut(from, "# ")
	return roots
}

// trustedRoots returns the CAs to verify the host against, or nil for the system's pool.
// For a server of RDS only the RDS CA of its region is trusted: no public CA can then
// vouch for a false server, and the system's more than one hundred CAs need no parsing.
func trustedRoots(host, region string) *x509.CertPool {
	roots := rootsOf(region)
	isRDS := strings.HasSuffix(host, "."+region+".rds.amazonaws.com") && !strings.Contains(host, ".proxy-")
	if roots == "" || !isRDS {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(roots))
	return pool
}

// errUnverified rejects a URL before a token is sent to a server of unverified identity.
var errUnverified = fault.Public(fault.Unavailable, "with DATABASE_IAM an AWS token is sent to the database, "+
	"so the database's identity must be verified first: DATABASE_URL needs sslmode=verify-full, "+
	"as the template's parameter Database sets it", nil)

// errPlain rejects a URL before the password in it is sent without encryption.
var errPlain = fault.Public(fault.Unavailable, "the URL in the secret of the template's parameter DatabaseUrlSecret "+
	"allows a connection without TLS; end it with ?sslmode=verify-full", nil)

// requireVerifiedTLS returns an error unless every address that the URL allows uses TLS
// with a verified certificate and host name (sslmode=verify-full), and sets the CAs that
// verify the certificate. A false server that received an IAM token could log in to the
// database with it for 15 minutes.
func requireVerifiedTLS(c *pgx.ConnConfig) error {
	for _, t := range tlsConfigs(c) {
		if t == nil || t.InsecureSkipVerify {
			return errUnverified
		}
		t.RootCAs = trustedRoots(t.ServerName, os.Getenv("AWS_REGION"))
	}
	return nil
}

// requireTLS returns an error if an address that the URL allows doesn't use TLS. Whether
// the certificate is verified is the choice of the URL's author: a database outside AWS
// can have a private CA, which the URL names with sslrootcert.
func requireTLS(c *pgx.ConnConfig) error {
	for _, t := range tlsConfigs(c) {
		switch {
		case t == nil:
			return errPlain
		case !t.InsecureSkipVerify && t.RootCAs == nil:
			t.RootCAs = trustedRoots(t.ServerName, os.Getenv("AWS_REGION"))
		}
	}
	return nil
}

// tlsConfigs returns the TLS settings of all addresses that pgx tries in turn: several
// hosts, or with sslmode=prefer the same host without TLS. An entry is nil for an address
// without TLS.
func tlsConfigs(c *pgx.ConnConfig) []*tls.Config {
	all := []*tls.Config{c.TLSConfig}
	for _, f := range c.Fallbacks {
		all = append(all, f.TLSConfig)
	}
	return all
}
