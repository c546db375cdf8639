#!/usr/bin/env bash
# Generates a few thousand valid and invalid requests from /openapi.json and sends them to
# keyway serve. It fails if an answer is a 5xx or does not match the document. It needs
# bin/keyway and Python, and works in a temporary directory.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
chmod 755 "$work" # PostgreSQL may run as another user
server=
finish() {
  [ -z "$server" ] || { kill "$server" && wait "$server" || true; }
  rm -rf "$work"
}
trap finish EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'schemathesis==4.*'

# Without an API key the quickstart uses the demo model.
unset OPENAI_API_KEY DATABASE_URL JWT_VERIFICATION_KEY JWT_SIGNING_KEY
keyway() { bin/keyway "$@" --config examples/quickstart/keyway.yaml --data "$work/data"; }
bin/keyway serve --dev --addr 127.0.0.1:0 --config examples/quickstart/keyway.yaml --data "$work/data" >"$work/serve.log" 2>&1 &
server=$!
url=
for _ in $(seq 600); do
  url=$(grep -oE -m1 'http://127\.0\.0\.1:[0-9]+' "$work/serve.log" || true)
  [ -z "$url" ] || break
  kill -0 "$server" || { cat "$work/serve.log"; exit 1; }
  sleep 0.2
done
[ -n "$url" ] || { cat "$work/serve.log"; exit 1; }

admin=$(keyway token --sub root --scopes agent_os:admin)
ann=$(keyway token --sub ann --scopes agents:read,agents:run,sessions:read,sessions:write,sessions:delete,memories:read,memories:write,memories:delete)

# The second round uses these: a session of ann's with a run, and a memory.
ask() { curl -sSf -H "Authorization: Bearer $ann" "$@"; }
member() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
run=$(ask "$url/agents/assistant/runs" -F message=hello -F stream=false -F session_id=known | member run_id)
memory=$(ask "$url/memories" -H 'Content-Type: application/json' -d '{"memory": "likes tea"}' | member memory_id)

cases=0
# round NAME TOKEN OPTION… runs schemathesis once with the configuration in NAME.toml.
round() {
  local name=$1 token=$2
  shift 2
  echo "-- $name"
  (cd "$work" && venv/bin/schemathesis --config-file "$name.toml" run "$url/openapi.json" --no-color --seed 20261124 \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --header "Authorization: Bearer $token" --request-timeout 60 --warnings off \
    --generation-database none --report json --report-json-path "$name.json" "$@")
  cases=$((cases + $(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["test_cases"]["generated"])' "$work/$name.json")))
}

: >"$work/administrator.toml"
cat >"$work/user.toml" <<TOML
[parameters]
"path.agent_id" = "assistant"
"path.session_id" = "known"
"query.session_id" = "known"
"path.run_id" = "$run"
"path.memory_id" = "$memory"
TOML
round administrator "$admin" --max-examples 60
round user "$ann" --exclude-method DELETE --phases examples,coverage,fuzzing --max-examples 60

echo "schemathesis: $cases cases"
[ "$cases" -ge 2000 ] || { echo "fewer than 2000 cases"; exit 1; }
if grep '"level":"ERROR"' "$work/serve.log"; then
  echo "the server logged errors"
  exit 1
fi
