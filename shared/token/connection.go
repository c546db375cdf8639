package token

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// connection sends the requests for the keys of one address.
type connection struct {
	address *url.URL // as configured
	http    bool     // http is accepted, at addresses that are not public
	ca      bool     // only the configured CA is trusted
	client  *http.Client
	private *http.Client // for http, if it is accepted; it connects to no public address
}

// connect prepares the requests for the keys of s.
//
// Plain http is accepted on loopback only, unless the operator accepts it: an attacker who can
// change the answer on its way could add a key. For the same reason a redirect must stay on the
// same host.
func (o Options) connect(s KeySource) (c connection, err error) {
	kind, address := "JWKS", s.JWKSURL
	if s.Discovery != "" {
		kind, address = "discovery", s.Discovery
	}
	c = connection{http: s.HTTP, ca: s.CA != "", client: o.client()}
	c.address, err = url.Parse(address)
	if err != nil || !c.allows(c.address) {
		return c, fmt.Errorf("the %s address must be https://host/path (http on loopback only)", kind)
	}
	if s.CA != "" {
		roots, err := readCA(s.CA)
		if err != nil {
			return c, fmt.Errorf("ca: %w", err)
		}
		t := newTransport()
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		c.client = &http.Client{Transport: t}
	}
	c.client.CheckRedirect = sameHost
	if s.HTTP {
		// No proxy: it would resolve the name and connect by itself, without the check.
		t := newTransport()
		t.Proxy, t.DialContext = nil, (&net.Dialer{Control: refusePublic}).DialContext
		c.private = &http.Client{Transport: t, CheckRedirect: sameHost}
	}
	return c, nil
}

// allows reports whether a request can be sent to an address: to https, and to http by the rule
// for the configured address. An address that was configured as https leads to no http.
func (c connection) allows(u *url.URL) bool {
	switch {
	case u.Hostname() == "" || u.User != nil:
		return false
	case u.Scheme == "https":
		return true
	}
	return u.Scheme == "http" && (c.http || c.address.Scheme == "http" && loopback(u.Hostname()))
}

// httpAnswer is the answer of a server.
type httpAnswer struct {
	status int
	body   []byte
	date   time.Time // by the server's clock; zero if the answer has none
}

// get requests an address once.
func (c connection) get(ctx context.Context, u *url.URL, accept string, limit int) (httpAnswer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return httpAnswer{}, errors.New("is not a valid address")
	}
	r.Header.Set("Accept", accept)
	client := c.client
	if u.Scheme == "http" && c.private != nil {
		client = c.private
	}
	got, err := send(client, r, limit)
	switch {
	case errors.Is(err, errUntrusted) && c.ca:
		err = fmt.Errorf("%w, because the CA in ca did not sign it; correct ca", err)
	case errors.Is(err, errUntrusted):
		err = fmt.Errorf("%w; set ca on this key to the certificate of its CA", err)
	}
	return got, err
}

// sameHost is a redirect policy. via contains the requests so far, so that there are at most
// maxRedirects redirects.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) > maxRedirects || r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
		return errRedirect
	}
	return nil
}

// maxRedirects is enough for a path that was renamed.
const maxRedirects = 3

// The reasons for which no answer was read.
var (
	errRedirect  = errors.New("redirects to another host or too often; configure the address that it redirects to")
	errPublic    = errors.New("is at a public address, where http: true does not apply; use https")
	errUntrusted = errors.New("has a certificate that is not trusted here")
)

// refusePublic is net.Dialer's Control. The dialer calls it with the resolved address, before it
// connects. A check of the name would not be enough, since DNS can change.
func refusePublic(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	a := to.Addr().Unmap()
	if err != nil || !a.IsLoopback() && !a.IsPrivate() && !sharedAddresses.Contains(a) {
		return errPublic
	}
	return nil
}

// sharedAddresses are RFC 6598's, which some clusters use for their services.
var sharedAddresses = netip.MustParsePrefix("100.64.0.0/10")

// readCA returns the certificates of a PEM text, or of the file with this path.
func readCA(ca string) (*x509.CertPool, error) {
	text := []byte(strings.ReplaceAll(ca, `\n`, "\n"))
	if !strings.Contains(ca, "-----BEGIN ") {
		var err error
		if text, err = os.ReadFile(ca); err != nil {
			return nil, fmt.Errorf("%w; give the certificate of the CA, as a file or as PEM", err)
		}
	}
	roots := x509.NewCertPool()
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) || !roots.AppendCertsFromPEM(text) {
		return nil, errors.New("holds a private key or no certificate; " +
			"give the certificate of the CA, which begins with -----BEGIN CERTIFICATE-----")
	}
	return roots, nil
}

// send returns the answer to a request if it has at most limit bytes. Its errors contain
// nothing of the answer, and not the address, which a *url.Error would contain.
func send(client *http.Client, r *http.Request, limit int) (got httpAnswer, err error) {
	resp, err := client.Do(r)
	if err == nil {
		defer resp.Body.Close()
		got.status = resp.StatusCode
		got.date, _ = http.ParseTime(resp.Header.Get("Date"))
		got.body, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	}
	op, isNet := errors.AsType[*net.OpError](err)
	bad, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case err == nil && len(got.body) > limit:
		err = fmt.Errorf("the answer has more than %d bytes", limit)
	case err == nil:
	case errors.Is(err, errRedirect):
		err = errRedirect
	case errors.Is(err, errPublic):
		err = errPublic
	case errors.Is(r.Context().Err(), context.DeadlineExceeded):
		err = fmt.Errorf("did not answer within %v", fetchTime)
	case isCertificate:
		err = certificateFault(bad)
	case isNet:
		err = op // such as "dial tcp host:port: connection refused"
	default:
		err = errors.New("closed the connection too early, or does not speak HTTP")
	}
	return got, err
}

// certificateFault says what is wrong with the certificate of a server.
func certificateFault(err error) error {
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isOther := errors.AsType[x509.HostnameError](err)
	switch {
	case isInvalid && invalid.Reason == x509.Expired:
		return errors.New("has a certificate that has expired or is not valid yet; renew it, and check the clock here")
	case isOther:
		return errors.New("has a certificate for another host name; use the name in the certificate, or renew it")
	}
	return errUntrusted
}

// client returns a copy of Options.HTTP, or the default client.
func (o Options) client() *http.Client {
	if o.HTTP != nil {
		c := *o.HTTP
		return &c
	}
	return &http.Client{Transport: newTransport()}
}

// newTransport keeps no connection open: there are minutes between two fetches, and on Lambda
// the process is frozen meanwhile, so that the connection would be lost.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
	}
}

// loopback reports whether requests to a host stay on this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
