package tool

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Egress decides what tools may reach. An address that the operator wrote is
// reached as written. One that a model or a redirect chose has to be public.
// The zero Egress makes no exception.
type Egress struct {
	// Allow are the networks that are reached as if they were public.
	Allow []netip.Prefix
	// RuntimeAPI is $AWS_LAMBDA_RUNTIME_API, host:port; whoever reaches it speaks
	// for the function. It is refused even when Allow covers its address.
	RuntimeAPI string
}

// Chosen is the client for addresses that a model chose, and for wherever they
// redirect to. What is not public is refused with fault.Forbidden once the name is
// resolved, at every connection, so a name that changes its mind gains nothing.
// No proxy is used: it would resolve and dial for us, unchecked.
func (e Egress) Chosen() *http.Client {
	return &http.Client{Transport: e.checked(), Timeout: 30 * time.Second}
}

// Origin is the client for the scheme, host and port of address, which the
// operator wrote, through the environment's proxy if there is one. header goes
// with every request to that origin. A redirect elsewhere is followed by the rules
// of Chosen, and from there on neither header nor any credential is sent, not even
// when it leads back. How long a request may take is up to its context.
// An address that isn't http or https is fault.Invalid.
func (e Egress) Origin(address string, header http.Header) (*http.Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fault.Public(fault.Invalid, fmt.Sprintf("%q is not an http or https address; write https://host/path", address), nil)
	}
	asWritten := newTransport(&net.Dialer{Timeout: dialTimeout})
	asWritten.Proxy = http.ProxyFromEnvironment
	return &http.Client{Transport: &originTransport{origin: originOf(u), header: header, asWritten: asWritten, checked: e.checked()}}, nil
}

const dialTimeout = 10 * time.Second

func (e Egress) checked() *http.Transport {
	return newTransport(&net.Dialer{Timeout: dialTimeout, ControlContext: e.control})
}

func newTransport(d *net.Dialer) *http.Transport {
	return &http.Transport{
		DialContext:           d.DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   16,
	}
}

// control sees the address that is about to be connected to, after DNS.
func (e Egress) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fault.Public(fault.Forbidden, "tools may not connect to "+address, err)
	}
	return e.Check(to)
}

// Check says whether a model may choose to; the error is fault.Forbidden and
// names the address and the remedy.
func (e Egress) Check(to netip.AddrPort) error {
	if e.isRuntimeAPI(to) {
		return fault.Public(fault.Forbidden, to.String()+" is the function's own runtime; tools never reach it", nil)
	}
	written := to.Addr().WithZone("").Unmap()
	reached := embedded(written)
	for _, p := range e.Allow {
		if p = unmapped(p); p.Contains(written) || p.Contains(reached) {
			return nil
		}
	}
	if public(reached) {
		return nil
	}
	return fault.Public(fault.Forbidden, written.String()+" is not a public address; to let tools reach it, add it to egress.allow in keyway.yaml", nil)
}

// isRuntimeAPI compares the port too: beside the runtime, loopback may hold what
// the operator allows on purpose.
func (e Egress) isRuntimeAPI(to netip.AddrPort) bool {
	if e.RuntimeAPI == "" {
		return false
	}
	host, port, err := net.SplitHostPort(e.RuntimeAPI)
	if err != nil {
		host, port = e.RuntimeAPI, ""
	}
	plain := func(a netip.Addr) netip.Addr { return embedded(a.WithZone("").Unmap()) }
	here := func(a netip.Addr) bool { return a.IsLoopback() || a.IsUnspecified() } // Linux dials 0.0.0.0 and :: as loopback
	a, err := netip.ParseAddr(host)
	local := host == "localhost" || err == nil && here(plain(a))
	at := local && here(plain(to.Addr())) || err == nil && plain(a) == plain(to.Addr())
	return at && (port == "" || port == fmt.Sprint(to.Port()))
}

// unmapped is p over IPv4 when it was written over IPv4-mapped addresses.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056
	global    = netip.MustParsePrefix("2000::/3")     // all that IANA hands out as global unicast

	// reserved are IANA's special-purpose registries, as far as they are in IPv4 or global.
	reserved = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", // Teredo and other tunnels
		"2001:db8::/32", "3fff::/20",
	)
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// embedded is the IPv4 address that a translator or relay reaches for a, else a.
func embedded(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case a.Is4():
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

func public(a netip.Addr) bool {
	return a.IsValid() && (a.Is4() || global.Contains(a)) &&
		!slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

// originTransport sends each hop of a request by the rule of its address.
type originTransport struct {
	origin             string
	header             http.Header
	asWritten, checked *http.Transport
}

// harmless are the headers that a stranger may read.
var harmless = []string{"Accept", "Accept-Encoding", "Content-Type", "User-Agent"}

func (t *originTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	next := r.Clone(r.Context())
	if t.strayed(r) {
		for name := range next.Header {
			if !slices.Contains(harmless, name) {
				next.Header.Del(name)
			}
		}
		return t.checked.RoundTrip(next)
	}
	for name, values := range t.header {
		next.Header[http.CanonicalHeaderKey(name)] = values
	}
	return t.asWritten.RoundTrip(next)
}

// strayed reports whether r, or a redirect that led to it, is for another origin.
func (t *originTransport) strayed(r *http.Request) bool {
	for ; r != nil; r = r.Response.Request {
		if originOf(r.URL) != t.origin {
			return true
		}
		if r.Response == nil {
			return false
		}
	}
	return false
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (t *originTransport) CloseIdleConnections() {
	t.asWritten.CloseIdleConnections()
	t.checked.CloseIdleConnections()
}

func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// ReadAll reads a body of at most limit bytes; a longer one is fault.Upstream.
func ReadAll(body io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, fault.Public(fault.Upstream, fmt.Sprintf("the answer is larger than %d bytes", limit), nil)
	}
	return data, err
}
