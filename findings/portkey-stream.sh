#!/usr/bin/env bash
# Portkey's gateway for Node, npm @portkey-ai/gateway 1.15.2: with the provider openai a
# request with "stream": true is always answered with 500, and the same request without it
# with 200. The log has "TypeError: immutable". The server behind the gateway has been
# asked and has answered, so the tokens are spent. Seen with Node 20.20.2 and 24.22.3.
#
# Needs Node 20 or later with npm, python3, curl.
set -euo pipefail
work=$(mktemp -d)
gateway= server=
trap 'kill $gateway $server 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"

cat >server.py <<'PY'
"""Answers OpenAI's chat API on a free port, which it writes to the file port."""
import http.server, json

CHUNKS = [{"role": "assistant", "content": "hello"}, {}]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        base = {"id": "c", "created": 1, "model": "m"}
        if asked.get("stream"):
            kind, body = "text/event-stream", "".join(
                "data: " + json.dumps(base | {"object": "chat.completion.chunk", "choices": [
                    {"index": 0, "delta": d, "finish_reason": None if d else "stop"}]}) + "\n\n" for d in CHUNKS)
            body += "data: [DONE]\n\n"
        else:
            kind, body = "application/json", json.dumps(base | {
                "object": "chat.completion", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]})
        with open("asked", "a") as f:
            print("stream" if asked.get("stream") else "whole", file=f)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
open("port", "w").write(str(listening.server_address[1]))
listening.serve_forever()
PY
cat >expected <<'TEXT'
"stream": false: 200
"stream": true: 500
the server behind the gateway: 1 whole answers, streams: yes
TypeError: immutable
TEXT
npm install --silent --no-fund --no-audit @portkey-ai/gateway@1.15.2 >/dev/null 2>&1
python3 server.py &
server=$!
for _ in $(seq 100); do [ -s port ] && break || sleep 0.1; done
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
TRUSTED_CUSTOM_HOSTS=127.0.0.1 node node_modules/@portkey-ai/gateway/build/start-server.js --port="$port" --headless >log 2>&1 &
gateway=$!
for _ in $(seq 200); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done
for stream in false true; do
  status=$(curl -s -m 30 -o body -w '%{http_code}' "http://127.0.0.1:$port/v1/chat/completions" \
    -H 'Content-Type: application/json' -H 'Authorization: Bearer key' -H 'x-portkey-provider: openai' \
    -H "x-portkey-custom-host: http://127.0.0.1:$(cat port)/v1" \
    -d "{\"model\": \"m\", \"stream\": $stream, \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}")
  echo "\"stream\": $stream: $status"
done >seen
echo "the server behind the gateway: $(grep -c whole asked) whole answers, streams: $(grep -q stream asked && echo yes || echo no)" >>seen
grep -o 'TypeError: immutable' log | head -1 >>seen || true
cat seen
diff expected seen || { echo "the behaviour has changed"; exit 1; }
echo "as described: @portkey-ai/gateway 1.15.2 cannot stream"
