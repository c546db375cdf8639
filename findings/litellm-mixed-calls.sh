#!/usr/bin/env bash
# LiteLLM's proxy, PyPI litellm 1.106.12: a client streams the Messages API (/v1/messages),
# and the model's server has OpenAI's chat API. Where that server mixes the pieces of two
# tool calls, which "index" separates, the first tool_use block gets no arguments, and the
# second one gets the pieces of both as they come, which is not JSON. Nothing reports an
# error, and stop_reason is tool_use. Right are the same answer as a whole, the same stream
# as chat, and a stream of Messages with the pieces of one call after those of the other.
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
"""Answers OpenAI's chat API with two calls, on a free port, which it writes to the file port."""
import http.server, json

ARGUMENTS = ['{"what": "tea"}', '{"what": "cake"}']


def calls(deltas):
    return {"tool_calls": deltas}


def begin(i):
    return calls([{"index": i, "id": f"call_{i}", "type": "function", "function": {"name": "look_up", "arguments": ""}}])


def piece(i, text):
    return calls([{"index": i, "function": {"arguments": text}}])


def halves(i):
    return [piece(i, ARGUMENTS[i][:9]), piece(i, ARGUMENTS[i][9:])]


FIRST, SECOND = halves(0), halves(1)
DELTAS = {
    "mixed": [begin(0), begin(1), FIRST[0], SECOND[0], FIRST[1], SECOND[1]],
    "in turn": [begin(0), *FIRST, begin(1), *SECOND],
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        base = {"id": "c", "created": 1, "model": "m"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if asked.get("stream"):
            order = "mixed" if "mixed" in json.dumps(asked["messages"]) else "in turn"
            choices = [{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}]
            choices += [{"index": 0, "delta": d, "finish_reason": None} for d in DELTAS[order]]
            choices += [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]
            chunks = [base | {"object": "chat.completion.chunk", "choices": [c]} for c in choices]
            chunks += [base | {"object": "chat.completion.chunk", "choices": [], "usage": usage}]
            kind = "text/event-stream"
            body = "".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + "data: [DONE]\n\n"
        else:
            message = {"role": "assistant", "content": None, "tool_calls": [
                {"id": f"call_{i}", "type": "function", "function": {"name": "look_up", "arguments": a}}
                for i, a in enumerate(ARGUMENTS)]}
            kind, body = "application/json", json.dumps(base | {"object": "chat.completion", "usage": usage, "choices": [
                {"index": 0, "message": message, "finish_reason": "tool_calls"}]})
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
cat >client.py <<'PY'
"""Asks the proxy in each way, and prints the arguments of each call."""
import json, sys, urllib.request

PARAMETERS = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}


def post(path, order, stream, tool):
    body = {"model": "m", "max_tokens": 100, "stream": stream, "tools": [tool],
            "messages": [{"role": "user", "content": f"the pieces of the calls are {order}"}]}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {sys.argv[2]}", "anthropic-version": "2023-06-01"}
    request = urllib.request.Request(sys.argv[1] + path, json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=60)


def events(answer):
    for line in answer:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def messages(order, stream):
    answer = post("/v1/messages", order, stream, {"name": "look_up", "input_schema": PARAMETERS})
    if not stream:
        return [json.dumps(b["input"]) for b in json.load(answer)["content"] if b["type"] == "tool_use"]
    found, reason = {}, ""
    for event in events(answer):
        if event["type"] == "message_delta":
            reason = event["delta"]["stop_reason"]
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            found[event["index"]] = ""
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta":
            found[event["index"]] += event["delta"]["partial_json"]
    return list(found.values()), reason


def chat(order):
    found = {}
    tool = {"type": "function", "function": {"name": "look_up", "parameters": PARAMETERS}}
    for event in events(post("/v1/chat/completions", order, True, tool)):
        for choice in event["choices"]:
            for call in choice["delta"].get("tool_calls") or []:
                found[call["index"]] = found.get(call["index"], "") + (call["function"].get("arguments") or "")
    return list(found.values())


print("Messages, whole:", messages("mixed", False))
print("chat, streamed, mixed:", chat("mixed"))
print("Messages, streamed, in turn:", *messages("in turn", True))
print("Messages, streamed, mixed:", *messages("mixed", True))
PY
cat >expected <<'TEXT'
Messages, whole: ['{"what": "tea"}', '{"what": "cake"}']
chat, streamed, mixed: ['{"what": "tea"}', '{"what": "cake"}']
Messages, streamed, in turn: ['{"what": "tea"}', '{"what": "cake"}'] tool_use
Messages, streamed, mixed: ['', '{"what": {"what": "tea"}"cake"}'] tool_use
TEXT
python3 -m venv venv
venv/bin/pip -q install 'litellm[proxy]==1.106.12' 2>/dev/null
python3 server.py &
server=$!
for _ in $(seq 100); do [ -s port ] && break || sleep 0.1; done
cat >config.yaml <<CONF
model_list:
  - model_name: m
    litellm_params: {model: hosted_vllm/m, api_base: "http://127.0.0.1:$(cat port)/v1", api_key: none}
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
echo "as described: litellm 1.106.12 gives the arguments of mixed calls to the last one"
