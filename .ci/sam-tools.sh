# Functions of sam-local.sh. They find or install programs on this machine, and start servers on it.

# find_tools looks for docker, sam and PostgreSQL. It installs what is missing if CI is set, and otherwise fails and names
# it. It sets pgbin, the directory of PostgreSQL's programs.
find_tools() {
  local missing=()
  command -v docker >/dev/null && { command -v dockerd >/dev/null || docker_answers; } || missing+=(docker.io)
  [ -z "${CI:-}" ] || dpkg -s busybox-static >/dev/null 2>&1 || missing+=(busybox-static)
  command -v curl >/dev/null || missing+=(curl)
  find_postgres || missing+=(postgresql)
  if [ "${#missing[@]}" -gt 0 ]; then
    [ -n "${CI:-}" ] || fail "install ${missing[*]} first (the names of the Debian packages)"
    local sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >"$work/apt.log" 2>&1 || { cat "$work/apt.log"; exit 1; }
    find_postgres || fail "PostgreSQL's programs are not in /usr/lib/postgresql, where Debian installs them"
  fi
  if [ -n "${CI:-}" ]; then eval "$(make -s sam)"; fi
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/keyway/sam
  command -v sam >/dev/null || PATH=$cache/bin:$cache/checkov/bin:$PATH
  command -v sam >/dev/null || fail "sam is missing: run make sam, once; it needs python3 with venv, and 600 MB in the cache directory"
  command -v python3 >/dev/null || fail "install python3 first"
}

# find_postgres sets pgbin to the newest version that Debian has installed, or to the directory of initdb in PATH.
find_postgres() {
  pgbin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
  [ -n "$pgbin" ] || { pgbin=$(command -v initdb) && pgbin=$(dirname "$(readlink -f "$pgbin")"); }
}

# docker_answers reports whether the docker daemon answers within 20 s, and sets daemon if it does.
docker_answers() {
  docker info >/dev/null 2>&1 &
  local asking=$!
  for _ in $(seq 200); do
    kill -0 "$asking" 2>/dev/null || { wait "$asking" && daemon=yes; return; }
    sleep 0.1
  done
  kill "$asking"
  return 1
}

# start_docker uses the running docker daemon, or starts one and sets dockerd to its process id.
start_docker() {
  docker_answers && return
  [ -z "${DOCKER_HOST:-}" ] || fail "docker does not answer at $DOCKER_HOST: start it there, or unset DOCKER_HOST"
  [ "$(id -u)" = 0 ] || fail "docker does not answer: start it, or put yourself in its group (sudo usermod -aG docker $(id -un), and log in again)"
  dockerd >"$work/dockerd.log" 2>&1 &
  dockerd=$!
  for _ in $(seq 120); do
    docker_answers && return
    kill -0 "$dockerd" 2>/dev/null || break
    sleep 0.5
  done
  tail -20 "$work/dockerd.log" >&2
  fail "dockerd does not start"
}

# remove_containers removes the containers that run a function of this work tree. sam does not always remove all of them.
remove_containers() {
  [ -n "$daemon" ] || return 0
  local dir
  for dir in "$PWD"/.aws-sam/build/*Function; do
    docker ps -aq --filter "volume=$dir" | xargs -r docker rm -f >/dev/null
  done
}

# free PORT reports whether PORT is free; free_port prints a free one.
free() { python3 -c 'import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", int(sys.argv[1])))' "$1" 2>/dev/null; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# as_postgres runs a command as another user if this one is root, since PostgreSQL refuses to run as root.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then su -s /bin/sh "$pguser" -c '"$@"' -- sh "$@"; else "$@"; fi
}

# start_postgres starts a database that listens on this machine's loopback address and on docker's bridge, which only this
# machine and its containers can reach. It sets database, the URL from this machine, and bridge, the address of this
# machine for containers. It writes env.json with the containers' URL.
start_postgres() {
  pguser=$(id -un)
  [ "$(id -u)" != 0 ] || { pguser=postgres; id postgres >/dev/null 2>&1 || pguser=nobody; }
  local listen=127.0.0.1 port password
  bridge=$(docker run --rm --add-host host.docker.internal:host-gateway --entrypoint /bin/cat "$image" /etc/hosts | awk '/host.docker.internal/ {print $1}')
  # Docker in a virtual machine (macOS) forwards that address to the loopback address, and it can't be bound here.
  if python3 -c 'import socket,sys; socket.socket().bind((sys.argv[1], 0))' "$bridge" 2>/dev/null; then listen+=,$bridge; else bridge=127.0.0.1; fi
  password=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
  mkdir "$work/pg"
  echo "$password" >"$work/password"
  [ "$(id -u)" != 0 ] || chown "$pguser" "$work/pg" "$work/password"
  as_postgres "$pgbin/initdb" -D "$work/pg" -U keyway -A scram-sha-256 --pwfile "$work/password" -E UTF8 --locale C -N >/dev/null
  port=$(free_port) # chosen as late as possible, since another program could bind it in the meantime
  echo "host all all samenet scram-sha-256" >>"$work/pg/pg_hba.conf"
  as_postgres "$pgbin/pg_ctl" -D "$work/pg" -l "$work/pg/log" -w start \
    -o "-p $port -c listen_addresses=$listen -c unix_socket_directories='' -c fsync=off" >/dev/null || { cat "$work/pg/log" >&2; fail "PostgreSQL does not start"; }
  postgres=yes
  database=postgres://keyway:$password@127.0.0.1:$port/postgres?sslmode=disable
  DATABASE=${database/127.0.0.1/host.docker.internal} python3 - "$work/env.json" <<'PY'
import json, os, sys
env = json.load(open("events/env.json"))
env["Parameters"]["DATABASE_URL"] = os.environ["DATABASE"]
json.dump(env, open(sys.argv[1], "w"))
PY
}

migrate() { DATABASE_URL=$database JWT_VERIFICATION_KEY=$key JWT_KEY_SECRET= bin/keyway migrate --config "$KEYWAY_CONFIG"; }

# start_bucket starts a server in place of the S3 bucket to which a custom resource sends its answer for CloudFormation. It
# writes the body of a PUT to migration.json. It sets bucket, its process id, and bucket_url.
start_bucket() {
  local port; port=$(free_port)
  python3 - "$bridge" "$port" "$work/migration.json" <<'PY' &
import http.server, sys
address, port, path = sys.argv[1:]
class Bucket(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        open(path, "wb").write(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer((address, int(port)), Bucket).serve_forever()
PY
  bucket=$!
  bucket_url=http://host.docker.internal:$port/
}
bucket_url=http://host.docker.internal:3001/
