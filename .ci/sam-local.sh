#!/usr/bin/env bash
# Runs template.yaml with sam local: the built programs in containers, and PostgreSQL on
# this machine.
#   sam-local.sh                  checks the template, every event of events/, and requests to start-api
#   sam-local.sh serve            serves on http://127.0.0.1:$SAM_PORT until it is interrupted
#   sam-local.sh invoke F EVENT   invokes one function, such as: invoke agents events/agents.json
# It ends everything that it has started, including dockerd. If a program is missing, it
# installs the program if CI is set, and otherwise names it and fails. Needs bin/keyway.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-check}

work=$(mktemp -d)
chmod 755 "$work" # PostgreSQL runs as another user
dockerd= daemon= api= postgres= bucket= tail=
finish() {
  trap '' INT TERM
  [ -z "$tail" ] || kill "$tail" 2>/dev/null || true
  [ -z "$api" ] || { kill "$api" 2>/dev/null && wait "$api" || true; }
  remove_containers
  [ -z "$bucket" ] || { kill "$bucket" 2>/dev/null && wait "$bucket" || true; }
  [ -z "$postgres" ] || as_postgres "$pgbin/pg_ctl" -D "$work/pg" -m immediate -w stop >/dev/null || true
  [ -z "$dockerd" ] || { kill "$dockerd" 2>/dev/null && wait "$dockerd" || true; }
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
fail() { echo "$*" >&2; exit 1; }

. .ci/sam-tools.sh

if [ "$mode" = invoke ]; then
  name=${2^}Function
  [ -n "$2" ] && [ -f "${3:-}" ] || fail "name a function and an event, such as: make invoke F=agents E=events/agents.json; events:" events/[!e]*.json
  grep -q "^  $name:" template.yaml || fail "template.yaml has no function $name; set F to one of" $(sed -n 's/^  \([A-Z][a-z]*\)Function:.*/\1/p' template.yaml | tr A-Z a-z)
fi

# ---- Tools
find_tools
if [ "$mode" = check ]; then
  command sam validate --lint
  cfn-lint template.yaml
  checkov --config-file .checkov.yaml -f template.yaml --skip-download
fi
port=${SAM_PORT:-3000}
[ "$mode" != serve ] || free "$port" || fail "port $port is in use: stop the program that listens on it, or use another port with SAM_PORT=3001 make sam-local"
start_docker
case "$(uname -m)" in x86_64) export ARCH=x86_64 ;; *) export ARCH=arm64 ;; esac
image=public.ecr.aws/lambda/provided:al2023-$ARCH
if [ -z "${CI:-}" ]; then
  docker image inspect "$image" >/dev/null 2>&1 || docker pull "$image" || .ci/standin-image.sh
else
  .ci/standin-image.sh
fi

# ---- The database, the key and the tokens
start_postgres
key=$(python3 -c 'import json; print(json.load(open("events/env.json"))["Parameters"]["JWT_VERIFICATION_KEY"])')
if [ "$mode" = serve ] && [ -f keyway.yaml ]; then config=keyway.yaml; else config=events/keyway.yaml; fi
export SAM_CLI_CONTAINER_CONNECTION_TIMEOUT=${SAM_CLI_CONTAINER_CONNECTION_TIMEOUT:-120} # on a busy machine a container starts slowly
export KEYWAY_CONFIG=${KEYWAY_CONFIG:-$config}
token() { env -u JWT_SIGNING_KEY JWT_VERIFICATION_KEY="$key" JWT_KEY_SECRET= bin/keyway token --config "$KEYWAY_CONFIG" --ttl 24h "$@"; }
admin=$(token --sub admin --scopes agent_os:admin)
mine=sessions:read,sessions:write,sessions:delete,memories:read,memories:write,memories:delete
ann=$(token --sub ann --scopes agents:assistant:read,agents:assistant:run,$mine)
bob=$(token --sub bob --scopes agents:read,agents:run,$mine)
nobody=$(token --sub nobody)

# ---- The programs
overrides=(--parameter-overrides "Architecture=$ARCH")
containers=(--skip-pull-image --add-host host.docker.internal:host-gateway --env-vars "$work/env.json")
sam() { command sam "$@" "${overrides[@]}"; }

# invoke FUNCTION EVENT prints the function's answer. It replaces the names of tokens in the event by the tokens above.
invoke() {
  sed -e "s/TOKEN_OF_ANN/$ann/" -e "s/TOKEN_WITHOUT_SCOPES/$nobody/" -e "s#http://host.docker.internal:3001/#$bucket_url#" "$2" |
    sam local invoke "$1" -e - "${containers[@]}" 2>"$work/invoke.log" || { cat "$work/invoke.log" >&2; return 1; }
}

if [ "$mode" = invoke ]; then
  sam build "$name" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
  [ "$name" = MigrateFunction ] || migrate >&2
  invoke "$name" "$3"
  cat "$work/invoke.log" >&2
  exit
fi

echo "building the functions"
sam build >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
if [ "$mode" = check ]; then . .ci/sam-events.sh; else migrate; fi

[ "$mode" = serve ] || port=$(free_port)
command sam local start-api "${overrides[@]}" "${containers[@]}" --host 127.0.0.1 --port "$port" --warm-containers EAGER >"$work/api.log" 2>&1 &
api=$!
url=http://127.0.0.1:$port
for _ in $(seq 600); do
  curl -sf -m 60 -o /dev/null "$url/health" && break
  kill -0 "$api" 2>/dev/null || { cat "$work/api.log"; fail "sam local start-api ended"; }
  sleep 0.5
done

if [ "$mode" = check ]; then
  . .ci/sam-requests.sh
  exit
fi
. .ci/sam-greeting.sh
tail -n +1 -f "$work/api.log" &
tail=$!
wait "$api" # a trap interrupts it, which it would not a command
