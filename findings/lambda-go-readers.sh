#!/usr/bin/env bash
# aws-lambda-go 1.55.1: a handler that returns an io.Reader streams it, unless the reader
# has an exported field. io.NopCloser and io.LimitReader have one, so the client gets
# {"Reader":{}} instead of the text. Nothing fails and nothing is logged.
#
# The program is a Lambda function with the runtime API in the same process. Needs Go.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"

cat >main.go <<'GO'
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/aws/aws-lambda-go/lambda"
)

func main() {
	text := func() io.Reader { return strings.NewReader("hello") }
	readers := []struct {
		name string
		r    io.Reader
	}{
		{"strings.NewReader", text()},
		{"bufio.NewReader", bufio.NewReader(text())},
		{"io.MultiReader", io.MultiReader(text())},
		{"io.NopCloser", io.NopCloser(text())},
		{"io.LimitReader", io.LimitReader(text(), 5)},
		{"struct{ io.Reader }", struct{ io.Reader }{text()}},
	}
	current := -1
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/next") {
			if current++; current == len(readers) {
				os.Exit(0)
			}
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "1")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", "9999999999999")
			fmt.Fprint(w, "{}")
			return
		}
		answer, _ := io.ReadAll(r.Body)
		_, last, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/2018-06-01/runtime/invocation/"), "/")
		fmt.Printf("%s: %s, %s, %s\n", readers[current].name, last, r.Header.Get("Content-Type"), answer)
		w.WriteHeader(http.StatusAccepted)
	}))
	os.Setenv("AWS_LAMBDA_RUNTIME_API", listener.Addr().String())
	lambda.Start(func() (io.Reader, error) { return readers[current].r, nil })
}
GO
cat >expected <<'TEXT'
strings.NewReader: response, application/octet-stream, hello
bufio.NewReader: response, application/octet-stream, hello
io.MultiReader: response, application/octet-stream, hello
io.NopCloser: response, application/json, {"Reader":{}}
io.LimitReader: response, application/json, {"R":{},"N":5}
struct{ io.Reader }: response, application/json, {"Reader":{}}
TEXT
go mod init finding >/dev/null 2>&1
go get github.com/aws/aws-lambda-go@v1.55.1 >/dev/null 2>&1
GOFLAGS=-mod=mod go run . | tee seen
diff expected seen || { echo "the behaviour has changed"; exit 1; }
echo "as described: aws-lambda-go 1.55.1 sends some readers as JSON"
