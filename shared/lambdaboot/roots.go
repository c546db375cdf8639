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

// rdsRoots are the CAs of RDS, below a line "# REGION" for each region. A database of RDS
// has a certificate of theirs, a proxy one that every system trusts. Where they are from
// is in docs/dependencies.md.
//
//go:embed rds.pem
var rdsRoots string

// rootsOf are those of one region, which is all that a function needs to parse; "" if
// there are none.
func rootsOf(region string) string {
	_, from, _ := strings.Cut(rdsRoots, "# "+region+"\n")
	roots, _, _ := strings.Cut(from, "# ")
	return roots
}

// trusted are whose certificates count for a host; nil: the system's. A database of RDS has
// RDS's alone, so that the system's, a hundred and more, are not even parsed.
func trusted(host, region string) *x509.CertPool {
	roots := rootsOf(region)
	if roots == "" || !strings.HasSuffix(host, "."+region+".rds.amazonaws.com") || strings.Contains(host, ".proxy-") {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(roots))
	return pool
}

// errUnproven refuses an address before a token is sent to whoever answers there.
var errUnproven = fault.Public(fault.Unavailable, "with DATABASE_IAM a token of AWS's is sent to the database, which has to prove first who it is: "+
	"DATABASE_URL needs sslmode=verify-full, as the template's parameter Database sets it", nil)

// errPlain refuses an address before the password that stands in it is sent in the open.
var errPlain = fault.Public(fault.Unavailable, "the address in the secret of the template's parameter DatabaseUrlSecret allows a connection without TLS; "+
	"end it with ?sslmode=verify-full", nil)

// secure has the server's certificate checked, its name included, on each way that the
// address opens.
func secure(c *pgx.ConnConfig) error {
	for _, way := range ways(c) {
		if way == nil || way.InsecureSkipVerify {
			return errUnproven
		}
		way.RootCAs = trusted(way.ServerName, os.Getenv("AWS_REGION"))
	}
	return nil
}

// encrypted refuses an address one of whose ways is without TLS. Whether a certificate is
// checked is up to who wrote the address.
func encrypted(c *pgx.ConnConfig) error {
	for _, way := range ways(c) {
		switch {
		case way == nil:
			return errPlain
		case !way.InsecureSkipVerify && way.RootCAs == nil:
			way.RootCAs = trusted(way.ServerName, os.Getenv("AWS_REGION"))
		}
	}
	return nil
}

// ways are those that an address opens, one after the other; nil is one without TLS.
func ways(c *pgx.ConnConfig) []*tls.Config {
	all := []*tls.Config{c.TLSConfig}
	for _, f := range c.Fallbacks {
		all = append(all, f.TLSConfig)
	}
	return all
}
