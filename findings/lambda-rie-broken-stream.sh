#!/usr/bin/env bash
# The Runtime Interface Emulator in aws-sam-cli 1.170.0 with aws-lambda-go 1.55.1: a
# streamed answer whose source fails is reported as a success. The client gets status 200
# with the part that came before, or with nothing, and the emulator logs
# "status: success". The function has sent the error, in the trailers
# Lambda-Runtime-Function-Error-Type and -Body.
#
# Needs Go, python3 with pip, curl, on Linux.
set -euo pipefail
work=$(mktemp -d)
emulator=
trap '[ -z "$emulator" ] || kill "$emulator" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"

cat >main.go <<'GO'
package main

import (
	"errors"
	"io"
	"strings"

	"github.com/aws/aws-lambda-go/lambda"
)

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the source broke off") }

func main() {
	lambda.Start(func(event string) (io.Reader, error) {
		switch event {
		case "whole":
			return strings.NewReader("first part, second part"), nil
		case "broken":
			return io.MultiReader(strings.NewReader("first part, "), failing{}), nil
		}
		return failing{}, nil
	})
}
GO
cat >expected <<'TEXT'
whole: status 200, body "first part, second part"
broken: status 200, body "first part, "
at once: status 200, body ""
3 invocations with status: success
0 lines of the log with the error
TEXT
go mod init finding >/dev/null 2>&1
go get github.com/aws/aws-lambda-go@v1.55.1 >/dev/null 2>&1
CGO_ENABLED=0 GOFLAGS=-mod=mod go build -o bootstrap .
python3 -m pip -q download --no-deps -d . aws-sam-cli==1.170.0 2>/dev/null
python3 -m zipfile -e aws_sam_cli-1.170.0-*.whl wheel
case "$(uname -m)" in x86_64) arch=x86_64 ;; *) arch=arm64 ;; esac
rie=wheel/samcli/local/rapid/aws-lambda-rie-$arch
chmod +x "$rie"

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free) runtime=$(free)
AWS_LAMBDA_FUNCTION_NAME=finding "$rie" --log-level info --runtime-interface-emulator-address "127.0.0.1:$port" \
  --runtime-api-address "127.0.0.1:$runtime" ./bootstrap >log 2>&1 &
emulator=$!
for _ in $(seq 100); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done
for event in whole broken "at once"; do
  status=$(curl -s -m 20 -o body -w '%{http_code}' -d "\"$event\"" "http://127.0.0.1:$port/2015-03-31/functions/function/invocations")
  echo "$event: status $status, body \"$(cat body)\""
done >seen
echo "$(grep -c 'INVOKE RTDONE(status: success' log) invocations with status: success" >>seen
echo "$(grep -c 'broke off' log || true) lines of the log with the error" >>seen
cat seen
diff expected seen || { echo "the behaviour has changed"; exit 1; }
echo "as described: the emulator of aws-sam-cli 1.170.0 reports a broken stream as a success"
