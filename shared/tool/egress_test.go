package tool_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/tool"
)

func TestOnlyPublicAddressesMayBeChosen(t *testing.T) {
	t.Parallel()
	for _, a := range strings.Fields("1.1.1.1 8.8.8.8 172.32.0.1 100.128.0.1 2606:4700::1111 2a00:1450::1 " +
		"64:ff9b::808:808 2002:808:808::1 ::ffff:8.8.8.8") {
		if err := (tool.Egress{}).Check(netip.AddrPortFrom(netip.MustParseAddr(a), 443)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, a := range strings.Fields("127.0.0.1 127.9.9.9 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 " +
		"192.168.1.1 169.254.169.254 100.64.0.1 100.127.255.255 198.18.0.1 224.0.0.1 255.255.255.255 240.0.0.1 " +
		"192.0.0.192 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe " +
		"64:ff9b:1::a00:1 2002:7f00:1::1 2002:a9fe:a9fe:: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 " +
		"ff02::1 2001::1 100::1 2001:db8::1 ::1%lo 168.63.129.16 ::ffff:168.63.129.16 64:ff9b::a83f:8110 3ffe::1 " +
		"2600::5efe:a00:1 2600::200:5efe:808:808 2600::300:5efe:a00:1") {
		err := (tool.Egress{}).Check(netip.AddrPortFrom(netip.MustParseAddr(a), 80))
		if fault.KindOf(err) != fault.Forbidden || err == nil || !strings.Contains(fault.Detail(err), "egress.allow") {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// The model reads the detail, and the operator's log has the cause.
func TestARefusalNamesTheAddressInItsCauseOnly(t *testing.T) {
	t.Parallel()
	runtime := tool.Egress{RuntimeAPI: "10.0.0.7:9001"}
	for _, a := range []string{"10.0.0.7:80", "10.0.0.7:9001"} {
		err := runtime.Check(netip.MustParseAddrPort(a))
		if strings.Contains(fault.Detail(err), "10.0") || !strings.Contains(fmt.Sprint(fault.Cause(err)), "10.0.0.7") {
			t.Errorf("%s: the detail is %q, and the cause %v", a, fault.Detail(err), fault.Cause(err))
		}
	}
}

func TestAllowAppliesToEveryFormOfAnAddress(t *testing.T) {
	t.Parallel()
	for _, written := range []string{"10.0.0.0/8", "::ffff:10.0.0.0/104"} {
		e := tool.Egress{Allow: []netip.Prefix{netip.MustParsePrefix(written)}}
		for _, a := range []string{"10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203"} {
			if err := e.Check(netip.AddrPortFrom(netip.MustParseAddr(a), 80)); err != nil {
				t.Errorf("%s with %s allowed: %v", a, written, err)
			}
		}
		if e.Check(netip.MustParseAddrPort("192.168.0.1:80")) == nil {
			t.Errorf("%s allows 192.168.0.1", written)
		}
	}
}

func TestTheRuntimeIsNeverReached(t *testing.T) {
	t.Parallel()
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, runtime := range []string{"127.0.0.1:9001", "localhost:9001", "[::ffff:127.0.0.1]:9001"} {
		e := tool.Egress{Allow: all, RuntimeAPI: runtime}
		for _, a := range []string{
			"127.0.0.1:9001", "127.0.0.2:9001", "0.0.0.0:9001", "[::]:9001", "[::1]:9001", "[::ffff:127.0.0.1]:9001",
			"[64:ff9b::7f00:1]:9001",
		} {
			if e.Check(netip.MustParseAddrPort(a)) == nil {
				t.Errorf("%s is allowed although the runtime is at %s", a, runtime)
			}
		}
		if err := e.Check(netip.MustParseAddrPort("127.0.0.1:8080")); err != nil {
			t.Errorf("another port than the runtime's: %v", err)
		}
	}
	link := tool.Egress{Allow: all, RuntimeAPI: "169.254.100.1:9001"}
	if link.Check(netip.MustParseAddrPort("169.254.100.1:9001")) == nil {
		t.Error("a runtime at a link-local address is allowed")
	}
	if err := link.Check(netip.MustParseAddrPort("127.0.0.1:9001")); err != nil {
		t.Errorf("loopback, while the runtime is at a link-local address: %v", err)
	}
}

// FuzzCheck checks that all forms of an IPv4 address are allowed or refused like the
// address itself, and that private addresses are refused.
func FuzzCheck(f *testing.F) {
	f.Add(byte(127), byte(0), byte(0), byte(1), uint16(80))
	f.Add(byte(169), byte(254), byte(169), byte(254), uint16(80))
	f.Add(byte(8), byte(8), byte(8), byte(8), uint16(443))
	f.Fuzz(func(t *testing.T, a, b, c, d byte, port uint16) {
		v4 := netip.AddrFrom4([4]byte{a, b, c, d})
		plain := (tool.Egress{}).Check(netip.AddrPortFrom(v4, port))
		private := v4.IsPrivate() || v4.IsLoopback() || v4.IsLinkLocalUnicast() || v4.IsMulticast() || v4.IsUnspecified()
		if plain == nil && private {
			t.Fatalf("%s is allowed", v4)
		}
		for _, form := range []string{
			"::ffff:%02x%02x:%02x%02x", "64:ff9b::%02x%02x:%02x%02x", "2002:%02x%02x:%02x%02x::1",
		} {
			other := netip.MustParseAddr(fmt.Sprintf(form, a, b, c, d))
			if err := (tool.Egress{}).Check(netip.AddrPortFrom(other, port)); (err == nil) != (plain == nil) {
				t.Errorf("%s: %v, but %s: %v", other, err, v4, plain)
			}
		}
	})
}

func TestAChosenNameIsRefusedAfterDNS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(srv.URL, "http://"), ":")
	status, err := get(t, tool.Egress{}.Chosen(), "http://localhost:"+port)
	if err == nil || !strings.Contains(fault.Detail(err), "egress.allow") {
		t.Errorf("localhost: %d, %v", status, err)
	}
	e := tool.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if status, err := get(t, e.Chosen(), srv.URL); status != 200 {
		t.Errorf("allowed: %d, %v", status, err)
	}
}

// get sends a request with a session ID and a credential.
func get(t *testing.T, c *http.Client, url string) (int, error) {
	t.Helper()
	t.Cleanup(c.CloseIdleConnections)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Mcp-Session-Id", "s")
	r.Header.Set("Authorization", "Bearer of-the-request")
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}

func TestHeadersOfAnOriginAreNotSentToAnother(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 8)
	var origin, other *httptest.Server
	record := func(server string, r *http.Request) {
		seen <- fmt.Sprintf("%s%s key=%q session=%q auth=%q", server, r.URL.Path,
			r.Header.Get("X-Key"), r.Header.Get("Mcp-Session-Id"), r.Header.Get("Authorization"))
	}
	other = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		record("other", r)
		http.Redirect(w, r, origin.URL+"/back", http.StatusTemporaryRedirect)
	}))
	origin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		record("origin", r)
		switch r.URL.Path {
		case "/":
			http.Redirect(w, r, "/again", http.StatusTemporaryRedirect)
		case "/again":
			http.Redirect(w, r, other.URL+"/x", http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(origin.Close)
	t.Cleanup(other.Close)

	e := tool.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	c, err := e.Origin(origin.URL, http.Header{"x-key": {"k"}})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := get(t, c, origin.URL+"/"); status != 200 {
		t.Fatalf("%d, %v", status, err)
	}
	for _, want := range []string{
		`origin/ key="k" session="s" auth="Bearer of-the-request"`,
		`origin/again key="k" session="s" auth="Bearer of-the-request"`,
		`other/x key="" session="" auth=""`, `origin/back key="" session="" auth=""`,
	} {
		if got := <-seen; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	strict, err := tool.Egress{}.Origin(origin.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, strict, origin.URL+"/"); fault.KindOf(err) != fault.Forbidden {
		t.Errorf("a redirect to a private address: %v", err)
	}
}

func TestAnOriginMustBeHTTPOrHTTPS(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "file:///etc/passwd", "ftp://x", "http://", "localhost:80", "http://[::1"} {
		if _, err := (tool.Egress{}).Origin(address, nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// A proxy resolves names itself, without the check of addresses. Go reads the variables of the proxy once, so the
// clients are used in a process of their own.
func TestOnlyWrittenAddressesAreReachedThroughTheProxy(t *testing.T) {
	t.Parallel()
	const child = "KEYWAY_TEST_OF_PROXY"
	if os.Getenv(child) != "" {
		e := tool.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
		written, err := e.Origin("http://written.example", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			client *http.Client
			url    string
		}{{written, "http://written.example/"}, {e.Chosen(), "http://192.0.2.1/chosen"}} {
			if status, err := get(t, c.client, c.url); fault.KindOf(err) != fault.Forbidden {
				t.Errorf("%s: %d, %v", c.url, status, err)
			}
		}
		return
	}
	var mu sync.Mutex
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.String())
		to := map[string]string{"/": "/again", "/again": "http://192.0.2.1/redirected"}[r.URL.Path]
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(proxy.Close)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$") // #nosec G204 G702 -- this test
	cmd.Env = append(os.Environ(), child+"=1", "NO_PROXY=", "no_proxy=", "HTTP_PROXY="+proxy.URL,
		"http_proxy="+proxy.URL)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	mu.Lock()
	defer mu.Unlock()
	const want = "http://written.example/ http://written.example/again"
	if got := strings.Join(asked, " "); got != want {
		t.Errorf("the proxy is asked for %s, want %s", got, want)
	}
}
