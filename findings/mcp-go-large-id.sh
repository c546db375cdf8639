#!/usr/bin/env bash
# The MCP SDK for Go, github.com/modelcontextprotocol/go-sdk v1.8.0: a request whose id is an integer above 2^53 is
# answered with another id. JSON-RPC 2.0 says that the id of the answer must be the same, and allows any number. A client
# that counts in 64 bits never finds the answer to its request.
#
# Needs Go 1.26 or later, curl.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
cat >go.mod <<'MOD'
module finding

go 1.26
MOD
cat >main.go <<'GO'
package main

import (
	"net"
	"net/http"
	"os"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	server := mcp.NewServer(&mcp.Implementation{Name: "finding", Version: "1"}, nil)
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server },
		&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	listening, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile("address", []byte(listening.Addr().String()), 0o600); err != nil {
		panic(err)
	}
	_ = http.Serve(listening, handler)
}
GO
export GOFLAGS=-mod=mod CGO_ENABLED=0
go get github.com/modelcontextprotocol/go-sdk@v1.8.0 2>/dev/null
go mod tidy 2>/dev/null
go build -o server .
./server &
server=$!
for _ in $(seq 100); do [ -s address ] && break; sleep 0.1; done
ask() {
  curl -s "http://$(cat address)/" -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
    -d '{"jsonrpc":"2.0","id":'"$1"',"method":"ping"}' | grep -o '"id":[^,}]*'
}
small=$(ask 9007199254740991) large=$(ask 9007199254740993)
echo "9007199254740991: $small"
echo "9007199254740993: $large"
[ "$small" = '"id":9007199254740991' ] || { echo "the behaviour has changed: 2^53-1 is not answered with its own id"; exit 1; }
[ "$large" = '"id":9007199254740992' ] || { echo "the behaviour has changed"; exit 1; }
echo "as described: the id of the answer is another one"
