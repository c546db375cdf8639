#!/usr/bin/env python3
"""Draws docs/picture/two-requests.svg from a running server.

It starts bin/keyway serve --dev with the quickstart, sends one request that is allowed and one that is refused, asks
keyway can about the second, and draws what came back as a terminal. Only the shortening of long lines is done here;
every word in the picture is the server's. Needs python3 and bin/keyway (make build). Run it with: make picture
"""
import base64
import html
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIG = "examples/quickstart/keyway.yaml"
COLUMNS = 121

# Colours on a dark panel with a border of its own, so that the picture reads the same on a light and on a dark page.
PANEL, BAR, BORDER = "#161b22", "#21262d", "#484f58"
TEXT, FAINT, GREEN, RED, BLUE, YELLOW = "#e6edf3", "#9198a1", "#56d364", "#ff7b72", "#79c0ff", "#e3b341"


def start(data):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR", "LANG")}
    server = subprocess.Popen(
        ["bin/keyway", "serve", "--dev", "--addr", address, "--config", CONFIG, "--data", data],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = []
    for line in server.stdout:
        output.append(line)
        token = re.match(r"export TOKEN=(\S+)", line)
        if token:
            return server, "http://" + address, token.group(1)
    sys.exit("the server ended before it printed a token:\n" + "".join(output))


def run(base, token, agent):
    """Returns the status and the body of one run of the agent."""
    request = urllib.request.Request(
        "%s/agents/%s/runs" % (base, agent), b"message=Hello",
        {"Authorization": "Bearer " + token, "Content-Type": "application/x-www-form-urlencoded"})
    for attempt in range(100):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except urllib.error.URLError:
            time.sleep(0.1)  # the address is printed a moment before it is served
    sys.exit("no answer from " + base)


def shortened(text, members):
    """Returns the object with only the given members, and … where others were."""
    parts, left_out = [], False
    for name, value in json.loads(text).items():
        if name not in members:
            left_out = True
            continue
        if left_out and parts:
            parts.append("…")
        left_out = False
        shown = json.dumps(value, ensure_ascii=False)
        limit = members[name]
        if limit and len(shown) > limit:
            shown = shown[: limit - 1] + '…"'
        parts.append('"%s":%s' % (name, shown))
    if left_out:
        parts.append("…")
    return "{" + ",".join(parts) + "}"


def stream(body):
    """Returns the lines of the first and the last events, shortened."""
    events = re.findall(r"event: (\w+)\ndata: (.*)\n", body)
    contents = [e for e in events if e[0] == "RunContent" and json.loads(e[1]).get("content")]
    lines = []
    for name, data in [events[0], ("…", ""), contents[0], contents[1], ("…", ""), events[-1]]:
        if name == "…":
            lines.append([("…", FAINT)])
            continue
        keep = {"event": 0, "agent_id": 0, "content": 33 if name == "RunCompleted" else 30, "event_index": 0}
        lines.append([("event: ", FAINT), (name, GREEN)])
        lines.append([("data: ", FAINT), (shortened(data, keep), TEXT)])
    return lines


def prompt(text):
    return [("$ ", BLUE), (text, TEXT)]


def status(code, words):
    return [("# ", FAINT), ("%d" % code, GREEN if code < 300 else RED), (": " + words, FAINT)]


def scopes(token):
    """Returns the scopes of a token, as its payload lists them."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["scopes"]


def scene():
    with tempfile.TemporaryDirectory() as data:
        server, base, token = start(data)
        try:
            allowed, body = run(base, token, "assistant")
            refused, refusal = run(base, token, "finance-agent")
        finally:
            server.terminate()
            server.wait()
    can = subprocess.run(
        ["bin/keyway", "can", "--config", CONFIG, "--scopes", "agents:assistant:run", "POST", "/agents/finance-agent/runs"],
        cwd=ROOT, capture_output=True, text=True)
    missing = json.loads(refusal)["missing"][0]
    before, after = shortened(refusal, {"detail": 0, "missing": 0}).split(missing)
    verdict, reason = can.stdout.strip().split(": ", 1)
    reason, exact = reason.rsplit(" ", 1)
    return [
        [("# the scopes in ann's token: " + ", ".join(scopes(token)), FAINT)],
        prompt('curl -N -H "Authorization: Bearer $TOKEN" -F message=Hello http://127.0.0.1:7777/agents/assistant/runs'),
        *stream(body),
        status(allowed, "streamed as server-sent events"),
        [],
        prompt('curl -H "Authorization: Bearer $TOKEN" -F message=Hello http://127.0.0.1:7777/agents/finance-agent/runs'),
        [(before, TEXT), (missing, YELLOW), (after, TEXT)],
        status(refused, "the answer names the missing scope"),
        [],
        prompt("bin/keyway can --config %s --scopes agents:assistant:run POST /agents/finance-agent/runs" % CONFIG),
        [(verdict, RED), (": " + reason, TEXT)],
        [("        ", TEXT), (exact, YELLOW)],
    ]


def draw(lines):
    size, advance, leading, left, top = 13, 7.83, 19, 22, 62
    width, height = round(left * 2 + COLUMNS * advance), top + leading * len(lines)
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">' % (width, height, width, height),
        "<title>Two requests with one token: one is allowed, one is refused</title>",
        '<rect x="1" y="1" width="%d" height="%d" rx="9" fill="%s" stroke="%s"/>' % (width - 2, height - 2, PANEL, BORDER),
        '<path d="M1 34V10a9 9 0 0 1 9-9h%da9 9 0 0 1 9 9v24z" fill="%s"/>' % (width - 20, BAR),
        '<text x="%d" y="22" fill="%s" font-size="12" font-family="sans-serif">make dev — Keyway on this machine</text>' % (left, FAINT),
        '<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,\'DejaVu Sans Mono\',monospace" font-size="%d" xml:space="preserve">' % size,
    ]
    for number, line in enumerate(lines):
        column, spans = 0, []
        for text, colour in line:
            text = text[: max(0, COLUMNS - column)]
            if not text:
                continue
            spans.append('<tspan x="%.1f" fill="%s" textLength="%.1f">%s</tspan>' % (
                left + column * advance, colour, len(text) * advance, html.escape(text, quote=False)))
            column += len(text)
        if spans:
            out.append('<text y="%d">%s</text>' % (top + number * leading, "".join(spans)))
    return "\n".join(out + ["</g>", "</svg>", ""])


if __name__ == "__main__":
    target = os.path.join(ROOT, "docs", "picture", "two-requests.svg")
    picture = draw(scene())
    with open(target, "w", encoding="utf-8") as file:
        file.write(picture)
    print("%s: %d bytes" % (target, len(picture.encode())))
