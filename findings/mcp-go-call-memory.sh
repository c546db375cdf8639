#!/usr/bin/env bash
# The MCP SDK for Go, github.com/modelcontextprotocol/go-sdk v1.8.0: a server without sessions allocates some 300 KB to
# answer the call of a tool whose message has 103 bytes. It decodes each message four to five times, and each time
# segmentio/encoding v0.5.4 makes a buffer of 64 KB, whatever the size of the message. The time of a call is then that of
# the garbage collector.
#
# Needs Go 1.26 or later.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >go.mod <<'MOD'
module finding

go 1.26
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	server := mcp.NewServer(&mcp.Implementation{Name: "finding", Version: "1"}, nil)
	server.AddTool(&mcp.Tool{Name: "echo", InputSchema: map[string]any{"type": "object"}},
		func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "fine"}}}, nil
		})
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server },
		&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hello"}}}`
	call := func() {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), "fine") {
			panic(w.Body.String())
		}
	}
	call()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const calls = 200
	for range calls {
		call()
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / calls
	fmt.Printf("a message of %d bytes: %d KB allocated for its answer\n", len(body), each>>10)
	if each < 250<<10 {
		fmt.Println("the behaviour has changed")
		os.Exit(1)
	}
}
GO
export GOFLAGS=-mod=mod CGO_ENABLED=0
go get github.com/modelcontextprotocol/go-sdk@v1.8.0 2>/dev/null
go mod tidy 2>/dev/null
go list -m github.com/segmentio/encoding
go run .
echo "as described"
