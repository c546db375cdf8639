#!/usr/bin/env bash
# LiteLLM's proxy, PyPI litellm 1.106.12: a client streams the Responses API (/v1/responses),
# and the model is Ollama's, by the provider ollama_chat; here a small imitation of Ollama's
# /api/chat. Where two tool calls come in a line each, with an ID and an index of their own,
# the last event, response.completed, has one function_call. Its arguments are those of both
# calls glued together, which is not JSON. response.output_item.done comes for one of the two
# items that were added. Nothing reports an error. Right are the same answer as a whole, and
# a stream that has both calls in one line.
#
# Needs python3 with venv.
set -euo pipefail
work=$(mktemp -d)
proxy= server=
trap 'kill $proxy $server 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$work"

cat >server.py <<'PY'
"""Answers Ollama's /api/chat with two calls, on a free port, which it writes to the file port."""
import http.server, json

CALLS = [{"id": f"call_{i}", "function": {"index": i, "name": "look_up", "arguments": {"what": what}}}
         for i, what in enumerate(("tea", "cake"))]


def line(done, *calls):
    answer = {"model": "m", "created_at": "2026-11-29T00:00:00Z", "done": done,
              "message": {"role": "assistant", "content": ""}}
    if calls:
        answer["message"]["tool_calls"] = calls
    if done:
        answer |= {"done_reason": "stop", "prompt_eval_count": 1, "eval_count": 1}
    return json.dumps(answer) + "\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/api/chat":  # LiteLLM also asks what the model can do
            self.answer(404, "application/json", '{"error": "not found"}')
        elif asked["stream"]:
            lines = [CALLS] if "one line" in json.dumps(asked["messages"]) else [[call] for call in CALLS]
            body = "".join(line(False, *calls) for calls in lines) + line(True)
            self.answer(200, "application/x-ndjson", body)
        else:
            self.answer(200, "application/json", line(True, *CALLS))

    def answer(self, status, kind, body):
        self.send_response(status)
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
cat >client.py <<'PY'
"""Asks the proxy for a whole and for a streamed answer, and prints the arguments of each call."""
import json, sys, urllib.request

TOOL = {"type": "function", "name": "look_up", "parameters": {
    "type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}}


def post(lines, stream):
    body = {"model": "m", "input": lines, "stream": stream, "tools": [TOOL]}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {sys.argv[2]}"}
    request = urllib.request.Request(sys.argv[1] + "/v1/responses", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=60)


def arguments(response):
    return [item["arguments"] for item in response["output"] if item["type"] == "function_call"]


print("whole:", arguments(json.load(post("one line", False))))
for lines in "one line", "two lines":
    events = [json.loads(line[6:]) for line in post(lines, True) if line.startswith(b"data: {")]
    added, done = (sum(e["type"] == "response.output_item." + kind for e in events) for kind in ("added", "done"))
    print(f"streamed, {lines}: {added} items added, {done} done")
    print(f"{events[-1]['type']}:", arguments(events[-1]["response"]))
PY
cat >expected <<'TEXT'
whole: ['{"what": "tea"}', '{"what": "cake"}']
streamed, one line: 2 items added, 2 done
response.completed: ['{"what": "tea"}', '{"what": "cake"}']
streamed, two lines: 2 items added, 1 done
response.completed: ['{"what": "tea"}{"what": "cake"}']
TEXT
python3 -m venv venv
venv/bin/pip -q install 'litellm[proxy]==1.106.12' 2>/dev/null
python3 server.py &
server=$!
for _ in $(seq 100); do [ -s port ] && break || sleep 0.1; done
cat >config.yaml <<CONF
model_list:
  - model_name: m
    litellm_params: {model: ollama_chat/m, api_base: "http://127.0.0.1:$(cat port)"}
litellm_settings: {telemetry: false}
CONF
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
key=sk-$(python3 -c 'import secrets; print(secrets.token_hex(16))')
LITELLM_MASTER_KEY=$key LITELLM_LOCAL_MODEL_COST_MAP=True venv/bin/litellm --config config.yaml --host 127.0.0.1 --port "$port" >log 2>&1 &
proxy=$!
for _ in $(seq 600); do
  kill -0 "$proxy" || { tail log; exit 1; }
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.2
done
venv/bin/python client.py "http://127.0.0.1:$port" "$key" | tee seen
diff expected seen || { echo "the behaviour has changed"; exit 1; }
echo "as described: litellm 1.106.12 glues the arguments of Ollama's calls"
