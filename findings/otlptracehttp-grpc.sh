#!/usr/bin/env bash
# go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp v1.47.0, the exporter that speaks OTLP over HTTP, links
# google.golang.org/grpc: its generated messages come in one package with the stubs of the gRPC service. A program that
# exports spans over HTTP becomes twice as large as one that has only the SDK.
#
# Needs Go 1.26 or later.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir sdk exporter
cat >go.mod <<'MOD'
module finding

go 1.26
MOD
cat >sdk/main.go <<'GO'
package main

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	_, span := trace.NewTracerProvider().Tracer("x").Start(context.Background(), "y")
	span.End()
	_ = http.ListenAndServe("127.0.0.1:0", nil)
}
GO
cat >exporter/main.go <<'GO'
package main

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	exporter, err := otlptracehttp.New(context.Background())
	if err != nil {
		panic(err)
	}
	_, span := trace.NewTracerProvider(trace.WithBatcher(exporter)).Tracer("x").Start(context.Background(), "y")
	span.End()
	_ = http.ListenAndServe("127.0.0.1:0", nil)
}
GO
export GOFLAGS=-mod=mod CGO_ENABLED=0
go get go.opentelemetry.io/otel/sdk@v1.47.0 go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp@v1.47.0 2>/dev/null
go mod tidy 2>/dev/null
for program in sdk exporter; do
  go build -trimpath -ldflags='-s -w' -o "bin/$program" "./$program"
done
stubs=$(go list -deps ./exporter | grep -c '^google.golang.org/grpc' || true)
none=$(go list -deps ./sdk | grep -c '^google.golang.org/grpc' || true)
sdk=$(stat -c %s bin/sdk) exporter=$(stat -c %s bin/exporter)
echo "packages of grpc: $none with the SDK, $stubs with the HTTP exporter"
echo "bytes: $sdk with the SDK, $exporter with the HTTP exporter"
go list -deps -f '{{.ImportPath}}: {{join .Imports " "}}' ./exporter | grep '^go.opentelemetry.io/proto/otlp/collector/trace/v1:' |
  tr ' ' '\n' | grep '^google.golang.org/grpc$' || { echo "the behaviour has changed: the messages do not import grpc"; exit 1; }
if [ "$none" -ne 0 ] || [ "$stubs" -eq 0 ] || [ "$exporter" -lt $((sdk * 3 / 2)) ]; then
  echo "the behaviour has changed"
  exit 1
fi
echo "as described: the exporter for HTTP links gRPC"
