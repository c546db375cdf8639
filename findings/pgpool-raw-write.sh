#!/usr/bin/env bash
# Pgpool-II 4.3.5 with backend_clustering_mode = 'raw', and pgx 5.12.0: a write that was
# acknowledged is lost. Pgpool begins a transaction of its own for the first write of a
# connection that comes by the extended protocol. The client gets INSERT 0 1, and beside
# it the transaction status T, though it has begun no transaction. When the client
# disconnects, Pgpool rolls back. By the simple protocol the row stays, and so it does
# with 'streaming_replication'.
#
# Needs Go, python3 and apt-get on Debian 12, and PostgreSQL's programs (postgresql-15).
set -euo pipefail
pgpool_version=4.3.5-1+deb12u1
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
work=$(mktemp -d)
chmod 755 "$work"
mkdir "$work/data" "$work/run" "$work/packages" "$work/root"
# PostgreSQL refuses to run as root.
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
[ "$(id -u)" != 0 ] || chown 65534:65534 "$work/data" "$work/run"
stop_pgpool() { (cd "$work" && as root/usr/sbin/pgpool -f run/pgpool.conf -F run/pcp.conf -m fast stop) >/dev/null 2>&1 || true; }
finish() {
  stop_pgpool
  as "$bin/pg_ctl" -D "$work/data" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

(
  cd "$work/packages"
  apt-get -q download "pgpool2=$pgpool_version" libpgpool2="$pgpool_version" libmemcached11 libhashkit2 >/dev/null 2>&1
  for package in *.deb; do dpkg -x "$package" ../root; done
)
export LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
direct=$(free) raw=$(free) pcp=$(free)
cd "$work"
as "$bin/initdb" -D data -A trust -U postgres >/dev/null
as "$bin/pg_ctl" -D data -o "-p $direct -k $work/run -c listen_addresses=127.0.0.1" -l run/pg.log -w start >/dev/null

cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
)

// connect connects to a port, and waits for nothing.
func connect(port string) *pgx.Conn {
	c, err := pgx.Connect(context.Background(), "postgres://postgres@127.0.0.1:"+port+"/postgres?sslmode=disable")
	if err != nil {
		panic(err)
	}
	return c
}

func main() {
	ctx := context.Background()
	port, direct := os.Args[1], connect(os.Args[2])
	if _, err := direct.Exec(ctx, "DROP TABLE IF EXISTS finding; CREATE TABLE finding (n int)", pgx.QueryExecModeSimpleProtocol); err != nil {
		panic(err)
	}
	for n, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		c := connect(port)
		tag, err := c.Exec(ctx, "INSERT INTO finding VALUES ($1)", mode, n)
		status := c.PgConn().TxStatus()
		c.Close(ctx)
		var rows int
		for range 20 { // the end of the connection reaches PostgreSQL a little later
			if err := direct.QueryRow(ctx, "SELECT count(*) FROM finding WHERE n = $1", n).Scan(&rows); err != nil {
				panic(err)
			}
			if rows > 0 {
				break
			}
			direct.Exec(ctx, "SELECT pg_sleep(0.1)")
		}
		fmt.Printf("%s, %s: %s, error %v, transaction status %c; %d rows in PostgreSQL\n", os.Args[3], mode, tag, err, status, rows)
	}
}
GO
cat >expected <<'TEXT'
raw, exec: INSERT 0 1, error <nil>, transaction status T; 0 rows in PostgreSQL
raw, simple protocol: INSERT 0 1, error <nil>, transaction status I; 1 rows in PostgreSQL
streaming_replication, exec: INSERT 0 1, error <nil>, transaction status I; 1 rows in PostgreSQL
streaming_replication, simple protocol: INSERT 0 1, error <nil>, transaction status I; 1 rows in PostgreSQL
TEXT
go mod init finding >/dev/null 2>&1
go get github.com/jackc/pgx/v5@v5.12.0 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
CGO_ENABLED=0 go build -o client .

: >seen
touch run/pcp.conf
for mode in raw streaming_replication; do
  cat >run/pgpool.conf <<CONF
backend_clustering_mode = '$mode'
listen_addresses = '127.0.0.1'
port = $raw
pcp_port = $pcp
socket_dir = '$work/run'
pcp_socket_dir = '$work/run'
pid_file_name = '$work/run/pgpool.pid'
logdir = '$work/run'
backend_hostname0 = '127.0.0.1'
backend_port0 = $direct
enable_pool_hba = off
num_init_children = 4
sr_check_user = 'postgres'
CONF
  as root/usr/sbin/pgpool -n -D -f run/pgpool.conf -F run/pcp.conf >run/pgpool.log 2>&1 &
  for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$raw") 2>/dev/null && break
    sleep 0.1
  done
  ./client "$raw" "$direct" "$mode" >>seen
  stop_pgpool
done
cat seen
diff expected seen || { echo "the behaviour has changed"; exit 1; }
echo "as described: Pgpool 4.3.5 in raw mode loses an acknowledged write"
