package token

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The dialer asks with the address behind the name, so that DNS can't lead to a public one.
func TestHTTPConnectsToPrivateAddressesOnly(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "10.0.0.1:8080": true, "172.31.255.255:1": true, "192.168.1.1:80": true,
		"100.64.0.1:80": true, "[fd00::1]:80": true, "[::ffff:10.0.0.1]:80": true,
		"8.8.8.8:80": false, "172.32.0.1:80": false, "169.254.169.254:80": false, "0.0.0.0:80": false, "[::]:80": false,
		"[2606:4700::1]:80": false, "[::ffff:8.8.8.8]:80": false, "[64:ff9b::a00:1]:80": false, "[fe80::1%25eth0]:80": false,
		"224.0.0.1:80": false, "keycloak:80": false, "": false,
	} {
		if err := refusePublic("tcp", address, nil); ok != (err == nil) {
			t.Errorf("%s: %v", address, err)
		}
	}
	c, err := Options{}.connect(KeySource{JWKSURL: "http://keycloak:8080/k", HTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	if private := c.private.Transport.(*http.Transport); private.Proxy != nil || private.DialContext == nil {
		t.Error("a proxy would connect to any address")
	}
	v, err := NewVerifier(Options{
		Algorithms: []string{"ES256"}, Keys: []KeySource{{JWKSURL: "http://8.8.8.8/k", HTTP: true}}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	faults := v.Fetch(t.Context())
	const want = "keys[0]: http://8.8.8.8: is at a public address, where http: true does not apply; use https"
	if len(faults) != 1 || faults[0].Error() != want {
		t.Errorf("%v, want %s", faults, want)
	}
}

// Go reads the variables of the proxy once, so the keys are fetched in a process of their own.
func TestKeysAreFetchedThroughTheProxyUnlessHTTPIsAllowed(t *testing.T) {
	t.Parallel()
	const child = "KEYWAY_TEST_OF_PROXY"
	if os.Getenv(child) != "" {
		for _, s := range []KeySource{
			{JWKSURL: "https://issuer.example/k"}, {JWKSURL: "http://10.255.255.1/k", HTTP: true},
		} {
			v, err := NewVerifier(Options{Algorithms: []string{"ES256"}, Keys: []KeySource{s}, Now: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			if faults := v.Fetch(t.Context()); len(faults) != 1 {
				t.Errorf("%s: %v", s.JWKSURL, faults)
			}
		}
		return
	}
	asked := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(proxy.Close)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$") // #nosec G204 G702 -- this test
	cmd.Env = append(os.Environ(), child+"=1", "NO_PROXY=", "no_proxy=")
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		cmd.Env = append(cmd.Env, name+"="+proxy.URL)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	close(asked)
	var got []string
	for a := range asked {
		got = append(got, a)
	}
	if want := "CONNECT issuer.example:443"; strings.Join(got, ", ") != want {
		t.Errorf("the proxy is asked for %q, want %s", got, want)
	}
}
