package tool

import (
	"context"
	"errors"
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

// Egress decides which addresses tools may connect to. It protects against server-side
// request forgery: the text that a model reads (a web page, a user's message) can make
// it choose an address, and this process can reach addresses that the author of that
// text cannot, such as a database, an internal service or the cloud's metadata service,
// which gives out credentials (169.254.169.254).
//
// So there are two kinds of addresses. A tool can always connect to one that the operator
// wrote, in keyway.yaml or in an environment variable. One that a model chose, or that a
// redirect leads to, must be public or in Allow. docs/tools.md has the rules as a
// table, docs/security.md names the tests that check them. OWASP describes the attack
// in its cheat sheet "Server-Side Request Forgery Prevention".
type Egress struct {
	// Allow holds the networks that a model may choose although they aren't public.
	// Defaults to none.
	Allow []netip.Prefix
	// RuntimeAPI is $AWS_LAMBDA_RUNTIME_API, host:port. A model can never choose this
	// address, even if Allow covers it: with the Runtime API a request can read the
	// function's next event and answer it
	// (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html). Defaults to
	// none.
	RuntimeAPI string
}

// Chosen returns the client for addresses that a model chose, and for the redirects
// that follow. It refuses an address that isn't allowed with fault.Forbidden.
//
// The address is checked when a connection is made, after DNS. A check of the URL
// before it would not be enough: a name can resolve to a public address for the check
// and to a private one for the connection (DNS rebinding). No proxy is used, because a
// proxy would resolve and connect by itself, without the check.
func (e Egress) Chosen() *http.Client {
	return &http.Client{Transport: e.checked(), Timeout: 30 * time.Second}
}

// Origin returns the client for the origin (scheme, host and port) of an address that
// the operator wrote. It connects to that origin without a check, through the proxy that
// the environment names, if there is one, and sends header with each request to it.
//
// A redirect to another origin is followed by the rules of Chosen. From there on
// neither header nor any credential is sent, not even after a redirect back to the
// first origin, because the other origin chose that address. The client sets no time
// limit; the request's context does. An address that isn't http or https is a
// fault.Invalid error.
func (e Egress) Origin(address string, header http.Header) (*http.Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		text := fmt.Sprintf("%q is not an http or https address; write https://host/path", address)
		return nil, fault.Public(fault.Invalid, text, nil)
	}
	asWritten := newTransport(&net.Dialer{Timeout: dialTimeout})
	asWritten.Proxy = http.ProxyFromEnvironment
	return &http.Client{Transport: &originTransport{
		origin: originOf(u), header: header, asWritten: asWritten, checked: e.checked(),
	}}, nil
}

// dialTimeout limits the time for one connection, DNS included.
const dialTimeout = 10 * time.Second

// checked returns a transport that checks each address before it connects.
func (e Egress) checked() *http.Transport {
	return newTransport(&net.Dialer{Timeout: dialTimeout, ControlContext: e.control})
}

// newTransport limits the time until a connection is made. The time for the response is
// limited by the request's context, or by Chosen: a server that answers in one piece
// sends the header only when its work is done.
func newTransport(d *net.Dialer) *http.Transport {
	return &http.Transport{
		DialContext:         d.DialContext,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 16,
	}
}

// control is net.Dialer's ControlContext. The dialer calls it with the resolved
// address, before it connects, for each address that it tries.
func (e Egress) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fault.Public(fault.Forbidden, "tools are not allowed to connect to this address", err)
	}
	return e.Check(to)
}

// Check returns nil if a model may choose the address to. Otherwise the error is
// fault.Forbidden. Its detail, which the model reads, has the remedy and not the address:
// a model must not find out which private addresses a name has. Its cause has the address.
//
// An IPv4 address is recognised in every form in which the network accepts it: IPv4-mapped
// (::ffff:10.0.0.1, RFC 4291), NAT64 (RFC 6052) and 6to4 (RFC 3056). Otherwise a model
// could reach a private address by writing it in another form.
func (e Egress) Check(to netip.AddrPort) error {
	if e.isRuntimeAPI(to) {
		const text = "The address is the function's own runtime; tools are never allowed to connect to it"
		return fault.Public(fault.Forbidden, text, errors.New(to.String()))
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
	const text = "The address is not a public address; to let tools reach it, the operator of this server can add it to " +
		"egress.allow in keyway.yaml"
	return fault.Public(fault.Forbidden, text, errors.New(written.String()))
}

// isRuntimeAPI reports whether to is the Lambda Runtime API. The port counts too,
// because other ports on loopback may belong to services that the operator allows on
// purpose. If the Runtime API is on loopback, every loopback address and every
// unspecified address with its port is the Runtime API too, because on Linux a connection
// to 0.0.0.0 or :: goes to loopback.
func (e Egress) isRuntimeAPI(to netip.AddrPort) bool {
	if e.RuntimeAPI == "" {
		return false
	}
	host, port, err := net.SplitHostPort(e.RuntimeAPI)
	if err != nil {
		host, port = e.RuntimeAPI, ""
	}
	plain := func(a netip.Addr) netip.Addr { return embedded(a.WithZone("").Unmap()) }
	here := func(a netip.Addr) bool { return a.IsLoopback() || a.IsUnspecified() }
	a, err := netip.ParseAddr(host)
	local := host == "localhost" || err == nil && here(plain(a))
	at := local && here(plain(to.Addr())) || err == nil && plain(a) == plain(to.Addr())
	return at && (port == "" || port == fmt.Sprint(to.Port()))
}

// unmapped returns p as an IPv4 prefix if it is one of IPv4-mapped addresses, else p.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056
	global    = netip.MustParsePrefix("2000::/3")     // IANA's global unicast addresses, all of them

	// reserved holds the networks of IANA's special-purpose address registries (RFC
	// 6890, https://www.iana.org/assignments/iana-ipv4-special-registry and
	// .../iana-ipv6-special-registry) that aren't public, and IPv4 multicast. For IPv6
	// only those within global are listed, since public accepts no others.
	reserved = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"168.63.129.16/32", // Azure's services for a virtual machine, at a public address
		"2001::/23",        // Teredo and other tunnels
		"2001:db8::/32", "3fff::/20",
		"3ffe::/16", // 6bone, returned (RFC 3701)
	)
)

// prefixes parses networks.
func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// embedded returns the IPv4 address to which a NAT64 translator or a 6to4 relay would
// forward a connection to a. Without one it returns a.
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

// public reports whether a is a public unicast address.
func public(a netip.Addr) bool {
	return a.IsValid() && (a.Is4() || global.Contains(a) && !isatap(a)) &&
		!slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isatap reports whether the interface identifier of a holds an IPv4 address to which an
// ISATAP router forwards (RFC 5214 section 6.1). The bits u and g may have any value.
func isatap(a netip.Addr) bool {
	b := a.As16()
	return b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// originTransport sends a request and its redirects. For each of them it chooses the
// transport and the headers by the rule for its address; see Egress.Origin.
type originTransport struct {
	origin             string
	header             http.Header
	asWritten, checked *http.Transport
}

// harmless holds the headers that another origin may receive. All others are removed,
// because a tool may send credentials in any header.
var harmless = []string{"Accept", "Accept-Encoding", "Content-Type", "User-Agent"}

// RoundTrip implements http.RoundTripper. net/http calls it for each redirect too.
func (t *originTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	next := r.Clone(r.Context())
	if t.leftOrigin(r) {
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

// leftOrigin reports whether r, or one of the requests that were redirected to it, is
// for another origin. net/http links a redirected request to the response that caused
// it.
func (t *originTransport) leftOrigin(r *http.Request) bool {
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

// CloseIdleConnections is called by http.Client.CloseIdleConnections.
func (t *originTransport) CloseIdleConnections() {
	t.asWritten.CloseIdleConnections()
	t.checked.CloseIdleConnections()
}

// originOf returns scheme, host and port of u, in one spelling for the same origin.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// ReadAll reads a body of at most limit bytes. A longer one is a fault.Upstream error.
func ReadAll(body io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(data)) > limit {
		text := fmt.Sprintf("the answer is larger than %d bytes", limit)
		return nil, fault.Public(fault.Upstream, text, nil)
	}
	return data, err
}
