package store_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// authority makes a certificate for 127.0.0.1, its key, and the pool of the CA that signed it.
func authority(t *testing.T) (certificate, key string, trusted *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a CA of the tests"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, ca, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.CreateCertificate(rand.Reader, ca, ca, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	trusted = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(root)
	if err != nil {
		t.Fatal(err)
	}
	trusted.AddCert(parsed)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	return block("CERTIFICATE", signed), block("PRIVATE KEY", der), trusted
}

// enableTLS makes the PostgreSQL of the tests offer TLS, and waits until it does.
func enableTLS(t *testing.T, url, certificate, key string) {
	t.Helper()
	// PostgreSQL writes the files itself, as its own user in its own directory.
	for name, text := range map[string]string{"server.crt": certificate, "server.key": key} {
		sql(t, url, "COPY (SELECT unnest(string_to_array($$"+strings.TrimSpace(text)+
			"$$, E'\\n'))) TO PROGRAM 'umask 077; cat > "+name+"'")
	}
	for _, text := range []string{"ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"} {
		sql(t, url, text)
	}
	for {
		c, err := pgx.Connect(t.Context(), strings.Replace(url, "sslmode=disable", "sslmode=require", 1))
		if err == nil {
			_ = c.Close(t.Context())
			return
		}
		if !strings.Contains(err.Error(), "refused TLS") {
			t.Fatal(err)
		}
	}
}

func TestTheCertificateOfTheDatabaseIsVerified(t *testing.T) {
	t.Parallel()
	certificate, key, right := authority(t)
	_, _, wrong := authority(t)
	url := storetest.URL(t)
	if !strings.Contains(url, "127.0.0.1") || !strings.Contains(url, "sslmode=disable") {
		t.Fatalf("%s is not as expected", url)
	}
	enableTLS(t, url, certificate, key)
	full := strings.Replace(url, "sslmode=disable", "sslmode=verify-full", 1)
	for name, row := range map[string]struct {
		url     string
		trusted *x509.CertPool
		want    string // "": the connection succeeds
	}{
		"of a trusted CA": {full, right, ""},
		"of another CA":   {full, wrong, "certificate signed by unknown authority"},
		"for another host": {strings.Replace(full, "127.0.0.1", "localhost", 1), right,
			"certificate is not valid for any names, but wanted to match localhost"},
	} {
		secure := func(c *pgx.ConnConfig) error { c.TLSConfig.RootCAs = row.trusted; return nil }
		db, err := store.Open(store.Options{URL: row.url, Schema: storetest.Schema, Secure: secure})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		err = db.Check(t.Context())
		_, merr := migrations.Run(t.Context(), migrations.Target{URL: row.url, Schema: storetest.Schema,
			OSID: storetest.OSID, Secure: secure})
		if row.want == "" {
			if err != nil || merr != nil {
				t.Errorf("%s: %v, %v", name, err, merr)
			}
			if f, err := db.Probe(t.Context()); err != nil || f.TLS != "TLS 1.3" || f.Exposed {
				t.Errorf("%s: %+v %v", name, f, err)
			}
			continue
		}
		for _, err := range []error{err, merr} {
			if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !strings.Contains(fault.Detail(err), "the template's parameter Database") {
			t.Errorf("%s: %s", name, fault.Detail(err))
		}
	}
}

// No password is made for a connection that Secure rejects.
func TestAConnectionIsRejectedBeforeItsPasswordIsMade(t *testing.T) {
	t.Parallel()
	no := errors.New("rejected by the test")
	db, err := store.Open(store.Options{
		URL: storetest.URL(t), Schema: storetest.Schema, Secure: func(*pgx.ConnConfig) error { return no },
		Password: func(context.Context, string, string) (string, error) { t.Error("Password was called"); return "", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Check(t.Context()); !errors.Is(err, no) || !errors.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
}
