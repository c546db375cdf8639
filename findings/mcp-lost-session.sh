#!/usr/bin/env bash
# The MCP SDK for Go 1.8.0 with a server of the Python SDK 1.30.0 (FastMCP): after a
# restart of the server the client never notices that its session is gone. The server
# answers 404, as the specification says, with a JSON-RPC error as its body. The client
# takes that for the answer to the call: errors.Is(err, mcp.ErrSessionMissing) is false,
# and each later call fails in the same way. With a 404 without such a body, the client
# does report ErrSessionMissing.
#
# Needs Go, python3 with venv.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"

cat >server.py <<'PY'
import sys

from mcp.server.fastmcp import FastMCP

app = FastMCP("finding", host="127.0.0.1", port=int(sys.argv[1]), log_level="ERROR")


@app.tool()
def greet() -> str:
    return "hello"


app.run(transport="streamable-http")
PY
cat >main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// start starts the server and waits until it listens.
func start(port string) *exec.Cmd {
	server := exec.Command("venv/bin/python", "server.py", port)
	if err := server.Start(); err != nil {
		panic(err)
	}
	for range 300 {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			conn.Close()
			return server
		}
		time.Sleep(100 * time.Millisecond)
	}
	panic("the server does not listen")
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// plain passes requests on, and removes the body of each 404.
func plain(port string) string {
	to, _ := url.Parse("http://127.0.0.1:" + port)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode == http.StatusNotFound {
			r.Body, r.ContentLength = http.NoBody, 0
			r.Header.Set("Content-Length", "0")
			r.Header.Del("Content-Type")
		}
		return nil
	}
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	go http.Serve(l, proxy)
	return "http://" + l.Addr().String()
}

func try(name, port, address string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	server := start(port)
	client := mcp.NewClient(&mcp.Implementation{Name: "finding", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: address + "/mcp"}, nil)
	if err != nil {
		panic(err)
	}
	call := func(when string) {
		_, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "greet"})
		var answer *jsonrpc.Error
		fmt.Printf("%s, %s: error %t, ErrSessionMissing %t, JSON-RPC error %t\n",
			name, when, err != nil, errors.Is(err, mcp.ErrSessionMissing), errors.As(err, &answer))
	}
	call("first call")
	server.Process.Kill()
	server.Wait()
	server = start(port)
	call("after a restart")
	server.Process.Kill()
	server.Wait()
}

func main() {
	port := freePort()
	try("404 as FastMCP sends it", port, "http://127.0.0.1:"+port)
	port = freePort()
	try("404 without a body", port, plain(port))
}
GO
cat >expected <<'TEXT'
404 as FastMCP sends it, first call: error false, ErrSessionMissing false, JSON-RPC error false
404 as FastMCP sends it, after a restart: error true, ErrSessionMissing false, JSON-RPC error true
404 without a body, first call: error false, ErrSessionMissing false, JSON-RPC error false
404 without a body, after a restart: error true, ErrSessionMissing true, JSON-RPC error false
TEXT
python3 -m venv venv
venv/bin/pip -q install mcp==1.30.0 2>/dev/null
go mod init finding >/dev/null 2>&1
go get github.com/modelcontextprotocol/go-sdk@v1.8.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run . | tee seen
diff expected seen || { echo "the behaviour has changed"; exit 1; }
echo "as described: go-sdk 1.8.0 does not notice a session that mcp 1.30.0 has lost"
