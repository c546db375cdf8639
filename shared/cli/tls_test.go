package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyway-agents/keyway/shared/logging"
)

// writeCertificate writes a certificate for localhost with this serial number, and its key.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAChangedCertificateIsUsedWithoutARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, cert, key, 1)
	now := time.Unix(1_900_000_000, 0)
	var log bytes.Buffer
	c, err := tlsConfig(cert, key, logging.NewLogger(&log, false), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, serial int64) {
		t.Helper()
		now = now.Add(certificateGap)
		got, err := c.GetCertificate(nil)
		if err != nil || got.Leaf.SerialNumber.Int64() != serial {
			t.Errorf("%s: the certificate %v (%v), want %d", what, got.Leaf.SerialNumber, err, serial)
		}
	}
	want("at the start", 1)
	if err := os.WriteFile(cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("with half a file", 1)
	want("again", 1)
	if n := strings.Count(log.String(), "stays in use"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, &log)
	}
	writeCertificate(t, cert, key, 2)
	want("renewed", 2)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	want("without the key", 2)
}

func TestTransportIsTLSOrAWarning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, cert, key, 1)
	for name, row := range map[string]struct {
		cmd       serveCmd
		encrypted bool
		says      string // the warning or the error
		fails     bool
	}{
		"loopback":                     {serveCmd{Addr: "127.0.0.1:1"}, false, "", false},
		"loopback, TLS required":       {serveCmd{Addr: "[::1]:1", RequireTLS: true}, false, "", false},
		"other machines":               {serveCmd{Addr: "0.0.0.0:1"}, false, "WARNING: 0.0.0.0:1 is plain HTTP", false},
		"every address":                {serveCmd{Addr: ":1"}, false, "WARNING: :1 is plain HTTP", false},
		"other machines, TLS required": {serveCmd{Addr: ":1", RequireTLS: true}, false, "--tls-cert", true},
		"a certificate":                {serveCmd{Addr: ":1", TLSCert: cert, TLSKey: key, RequireTLS: true}, true, "", false},
		"a certificate on loopback":    {serveCmd{Addr: "127.0.0.1:1", TLSCert: cert, TLSKey: key}, true, "", false},
		"a certificate without a key":  {serveCmd{Addr: ":1", TLSCert: cert}, false, "belong together", true},
		"a key without a certificate":  {serveCmd{Addr: ":1", TLSKey: key}, false, "belong together", true},
		"files the wrong way":          {serveCmd{Addr: ":1", TLSCert: key, TLSKey: cert}, false, "both files are PEM", true},
		"a missing certificate":        {serveCmd{Addr: ":1", TLSCert: dir + "/x", TLSKey: key}, false, "no such file", true},
	} {
		var printed bytes.Buffer
		s := &server{serveCmd: row.cmd, env: env{err: &printed, now: time.Now}, log: slog.New(slog.DiscardHandler)}
		c, err := s.transport()
		if err != nil {
			printed.WriteString(err.Error())
		}
		if (err != nil) != row.fails || (c != nil) != row.encrypted || !strings.Contains(printed.String(), row.says) ||
			row.says == "" && printed.Len() > 0 {
			t.Errorf("%s: encrypted %t, %v, %q", name, c != nil, err, &printed)
		}
		if c != nil && (c.MinVersion != tls.VersionTLS12 || len(c.NextProtos) != 1) {
			t.Errorf("%s: TLS %x, %v", name, c.MinVersion, c.NextProtos)
		}
	}
}
