//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// pooler is a running PgBouncer in transaction mode.
type pooler struct {
	cmd   *exec.Cmd
	ended sync.WaitGroup
}

// pgbouncer is the path of the program. Debian keeps it out of the PATH of ordinary users.
func pgbouncer() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("pgbouncer is not installed: apt-get install pgbouncer, or choose another --phase")
}

// openPooler starts PgBouncer in front of a database and returns the URL of the database behind it. The servers find
// out by themselves that it gives each transaction another connection.
func openPooler(ctx context.Context, database *url.URL, dir string) (*pooler, *url.URL, error) {
	program, err := pgbouncer()
	if err != nil {
		return nil, nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, nil, err
	}
	password, _ := database.User.Password()
	log, err := os.Create(filepath.Join(dir, "pgbouncer.log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	ini, users := filepath.Join(dir, "pgbouncer.ini"), filepath.Join(dir, "users.txt")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
max_client_conn = 1000
default_pool_size = 30
server_login_retry = 1
`, database.Hostname(), database.Port(), port, users)
	// PgBouncer refuses to run as root. The password is that of a database which exists for minutes.
	login := fmt.Appendf(nil, "%q %q\n", database.User.Username(), password)
	err = errors.Join(os.WriteFile(ini, []byte(text), 0o644), // #nosec G306 -- another user reads it
		os.WriteFile(users, login, 0o644)) // #nosec G306 G703 -- another user reads it; the harness made the path
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, ini) // #nosec G204 -- the installed PgBouncer
	cmd.Stdout, cmd.Stderr = log, log
	if os.Geteuid() == 0 {
		if cmd.SysProcAttr, err = asUser("nobody"); err != nil {
			return nil, nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	p := &pooler{cmd: cmd}
	p.ended.Go(func() { _ = cmd.Wait() })
	behind := *database
	behind.Host = fmt.Sprintf("127.0.0.1:%d", port)
	for end := time.Now().Add(20 * time.Second); ; {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", behind.Host)
		if err == nil {
			return p, &behind, conn.Close()
		}
		if time.Now().After(end) || ctx.Err() != nil {
			p.close()
			return nil, nil, fmt.Errorf("PgBouncer does not answer: %w; see %s", err, log.Name())
		}
		_ = harness.Wait(ctx, 50*time.Millisecond)
	}
}

func (p *pooler) close() {
	_ = p.cmd.Process.Kill()
	p.ended.Wait()
}
