package gateway_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyway-agents/keyway/shared/gateway"
)

// hosts are values of the Host header, and whether each is a loopback host.
var hosts = map[string]bool{
	"localhost": true, "localhost:7777": true, "LocalHost:7777": true,
	"127.0.0.1": true, "127.0.0.1:80": true, "127.8.9.10:7777": true,
	"[::1]": true, "[::1]:7777": true, "::1": true, "[::ffff:127.0.0.1]:7777": true,

	"": false, "evil.example": false, "evil.example:7777": false,
	"localhost.evil.example": false, "localhost.": false, "notlocalhost": false, "localhost@evil.example": false,
	"evil.localhost":         false,
	"127.0.0.1.evil.example": false, "127.0.0.1.nip.io:7777": false, "127.1": false, "2130706433": false,
	"0x7f000001": false, "0177.0.0.1": false,
	"0.0.0.0": false, "0.0.0.0:7777": false, "[::]:7777": false, "10.0.0.1": false, "169.254.169.254": false,
	"192.168.1.1:7777":  false,
	"[::ffff:10.0.0.1]": false, "[fe80::1]": false, "[::1": true, "[[::1]]": false, "127.0.0.1:7777:80": false,
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range hosts {
		if got := gateway.IsLoopback(host); got != want {
			t.Errorf("%q: %t, want %t", host, got, want)
		}
	}
}

// With DNS rebinding, a web page sends its own host name to this machine.
func TestOnlyLoopbackHostsAreServed(t *testing.T) {
	t.Parallel()
	reached := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	server := httptest.NewServer(gateway.Loopback(reached))
	t.Cleanup(server.Close)
	for host, loopback := range hosts {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /health HTTP/1.1\r\nHost: %s\r\nX-Forwarded-Host: localhost\r\nConnection: close\r\n\r\n",
			host)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 200)
		n, _ := resp.Body.Read(body)
		resp.Body.Close()
		conn.Close()
		switch {
		case loopback && resp.StatusCode != http.StatusTeapot && resp.StatusCode != http.StatusBadRequest:
			t.Errorf("%q: %d %s", host, resp.StatusCode, body[:n])
		case !loopback && resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusBadRequest:
			t.Errorf("%q: %d %s", host, resp.StatusCode, body[:n])
		case resp.StatusCode == http.StatusForbidden && !strings.Contains(string(body[:n]), "localhost only"):
			t.Errorf("%q: no remedy in %s", host, body[:n])
		}
	}
	// A request in the form for a proxy has the host in its first line.
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("%v %v", resp, err)
	}
	resp.Body.Close()
}
