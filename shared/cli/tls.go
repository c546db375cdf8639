package cli

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/shared/gateway"
)

// transport returns what requests are encrypted with: nil for plain HTTP.
func (s *server) transport() (*tls.Config, error) {
	switch {
	case (s.TLSCert == "") != (s.TLSKey == ""):
		return nil, usage("--tls-cert and --tls-key belong together: name the certificate and its key")
	case s.TLSCert != "":
		return tlsConfig(s.TLSCert, s.TLSKey, s.log, s.now)
	}
	host, _, err := net.SplitHostPort(s.Addr)
	switch {
	case err != nil || gateway.IsLoopback(host): // configure has reported the error
	case s.RequireTLS:
		return nil, usage("--require-tls: other machines reach %s without encryption; name a certificate with --tls-cert "+
			"and --tls-key, or listen on 127.0.0.1 behind a proxy that has one", s.Addr)
	default:
		fmt.Fprintf(s.err, "WARNING: %s is plain HTTP. Tokens and conversations can be read and changed on the network. "+
			"Use --tls-cert FILE --tls-key FILE, or put TLS in front of this server.\n", s.Addr)
	}
	return nil, nil
}

// tlsConfig accepts TLS 1.2 and later, with HTTP/1.1 alone: deadlines and the number of clients are bounded for each
// connection, and one of HTTP/2 carries many requests.
func tlsConfig(cert, key string, log *slog.Logger, now func() time.Time) (*tls.Config, error) {
	c := &certificate{cert: cert, key: key, log: log, now: now}
	if err := c.load(); err != nil {
		return nil, usage("--tls-cert and --tls-key: %w; both files are PEM: the certificate with those that signed it, "+
			"and its private key", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.get}, nil
}

// certificate is a certificate in two files. It is read again when one of them has changed, so that a renewed one needs
// no restart.
type certificate struct {
	cert, key string
	log       *slog.Logger
	now       func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	seen    [2]stamp // of the files, when they were read last
	next    time.Time
}

// stamp changes when the content of a file does.
type stamp struct {
	changed time.Time
	size    int64
}

// certificateGap is the least time between two looks at the files.
const certificateGap = time.Second

// get is the GetCertificate of tls.Config. A changed certificate with an error is logged once, and the previous one
// stays in use. The two files are not replaced at the same moment, so the next handshakes try again when the second has
// changed.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); !now.Before(c.next) {
		c.next = now.Add(certificateGap)
		if c.stamps() != c.seen {
			if err := c.load(); err != nil {
				c.log.Warn("the changed certificate can't be used; the previous one stays in use", "err", err)
			} else {
				c.log.Info("the certificate has changed and is in use")
			}
		}
	}
	return c.current, nil
}

// load reads both files.
func (c *certificate) load() error {
	c.seen = c.stamps() // before reading, so that a change meanwhile is noticed
	loaded, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err == nil {
		c.current = &loaded
	}
	return err
}

func (c *certificate) stamps() (s [2]stamp) {
	for i, file := range []string{c.cert, c.key} {
		if info, err := os.Stat(file); err == nil { // follows links, which is how some tools renew a certificate
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}
