package functions_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/keyway-agents/keyway/shared/lambdahttp/lambdatest"
)

// reasonable is longer than any step of these tests takes.
const reasonable = time.Minute

// authority makes a certificate for the host, and a file with the CA that signed it.
func authority(t *testing.T, host string) (server tls.Certificate, file string) {
	t.Helper()
	must := func(err error) {
		if t.Helper(); err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a CA of the tests"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	must(err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	must(err)
	file = filepath.Join(t.TempDir(), "ca.pem")
	must(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o600))
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}, file
}

// With DATABASE_IAM the password is a request that is signed for the user and the endpoint. It
// is sent only to a server with a verified certificate.
func TestIAMTokenIsSentOnlyToTheDatabase(t *testing.T) {
	t.Parallel()
	d := deploy(t, keyway)
	server, trusted := authority(t, "127.0.0.1")
	elsewhere, its := authority(t, "db.example.com")
	_, another := authority(t, "127.0.0.1")
	for name, row := range map[string]struct {
		certificate *tls.Certificate
		trusted     string
		want        string // in the log; "" if the token is sent
	}{
		"the right one":      {&server, trusted, ""},
		"of an untrusted CA": {&server, another, "certificate signed by unknown authority"},
		"another server's":   {&elsewhere, its, "doesn't contain any IP SANs"},
		"one without TLS":    {nil, trusted, "server refused TLS connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			password := make(chan string, 4)
			host := postgresAskingForAPassword(t, row.certificate, password)
			env := []string{
				"LAMBDA_TASK_ROOT=" + d.dir, "DATABASE_URL=postgres://keyway_app@" + host + "/db?sslmode=verify-full",
				"DATABASE_IAM=true", "SSL_CERT_FILE=" + row.trusted, "SSL_CERT_DIR=/none",
				"AWS_ACCESS_KEY_ID=AKID", "AWS_SECRET_ACCESS_KEY=b", "AWS_SESSION_TOKEN=c", "AWS_REGION=eu-central-1",
			}
			f := function{lambdatest.Start(t, filepath.Join(programs, "sessions"), env...), t}
			answer := f.ask(request{method: "GET", path: "/sessions?type=agent", scopes: everything})
			m := function{lambdatest.Start(t, filepath.Join(programs, "migrate"), env...), t}
			migrated := string(m.Invoke([]byte("{}"), reasonable).Body())
			if row.want != "" {
				const text = "TLS verification of the database server failed: its certificate is missing, not trusted or for " +
					"another host; check database.url (or DATABASE_URL; on AWS see the template's parameter Database)"
				answer.want(t, "the sessions", 503, text)
				f.WaitForLog(row.want)
				const named = "the template's parameter Database: TLS verification of the database server failed"
				if !strings.Contains(migrated, named) || !strings.Contains(migrated, row.want) {
					t.Errorf("migrate: %s", migrated)
				}
				if len(password) != 0 {
					t.Errorf("the token was sent: %s", <-password)
				}
				return
			}
			answer.want(t, "the sessions", 503, "The database rejects this server's user, password or database name")
			for range 2 { // one from each function
				got := <-password
				for _, want := range []string{host + "?", "Action=connect", "DBUser=keyway_app", "X-Amz-Credential=AKID%2F",
					"%2Feu-central-1%2Frds-db%2Faws4_request", "X-Amz-Security-Token=c"} {
					if !strings.Contains(got, want) {
						t.Errorf("no %s in %s", want, got)
					}
				}
			}
		})
	}
}

// behindTLS starts a proxy of the database that accepts only TLS, and returns the database's URL
// there, without parameters.
func behindTLS(t *testing.T, database string, certificate tls.Certificate) (address string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	to := u.Host
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := pgproto3.NewBackend(conn, conn).ReceiveStartupMessage(); err != nil {
					return
				}
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer server.Close()
				if _, err := conn.Write([]byte("S")); err != nil {
					return
				}
				client := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}})
				go func() { _, _ = io.Copy(server, client); server.Close() }()
				_, _ = io.Copy(client, server)
			}()
		}
	}()
	u.Host, u.RawQuery = l.Addr().String(), ""
	return u.String()
}

// postgresAskingForAPassword is a server with PostgreSQL's protocol, over TLS if it has a
// certificate. It sends the client's password to the channel, and rejects it.
func postgresAskingForAPassword(t *testing.T, certificate *tls.Certificate, password chan<- string) (host string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			secured(conn, certificate, password)
		}
	}()
	return l.Addr().String()
}

// secured answers the client's request for TLS.
func secured(conn net.Conn, certificate *tls.Certificate, password chan<- string) {
	defer conn.Close()
	if _, err := pgproto3.NewBackend(conn, conn).ReceiveStartupMessage(); err != nil {
		return
	}
	if certificate == nil {
		_, _ = conn.Write([]byte("N"))
		ask(conn, password)
		return
	}
	if _, err := conn.Write([]byte("S")); err == nil {
		ask(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*certificate}}), password)
	}
}

func ask(conn net.Conn, password chan<- string) {
	defer conn.Close()
	server := pgproto3.NewBackend(conn, conn)
	if _, err := server.ReceiveStartupMessage(); err != nil {
		return
	}
	server.Send(&pgproto3.AuthenticationCleartextPassword{})
	if server.Flush() != nil || server.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	if m, err := server.Receive(); err == nil {
		if p, ok := m.(*pgproto3.PasswordMessage); ok {
			select {
			case password <- p.Password:
			default:
			}
		}
	}
	server.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "no"})
	_ = server.Flush()
}
