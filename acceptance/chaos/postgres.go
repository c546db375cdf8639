//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/acceptance/harness"
)

// postgres is a PostgreSQL server that can be restarted.
type postgres struct {
	harness.Postgres
	// restarted is when the last restart was.
	restarted time.Time
}

// openPostgres starts PostgreSQL below dir.
func openPostgres(ctx context.Context, dir string) (*postgres, error) {
	server, err := harness.OpenPostgres(ctx, dir)
	return &postgres{Postgres: server}, err
}

// stopSignals end the server as pg_ctl stop does: fast ends the sessions and writes a checkpoint, immediate is a crash.
var stopSignals = map[string]syscall.Signal{fast: syscall.SIGINT, immediate: syscall.SIGQUIT}

// restart ends the server and returns when it answers again: devpg starts a server that has ended unasked.
func (p *postgres) restart(ctx context.Context, kind string) error {
	p.restarted = time.Now()
	before, err := p.pid()
	if err == nil {
		err = syscall.Kill(before, stopSignals[kind])
	}
	if err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; {
		if after, err := p.pid(); err == nil && after != before {
			if conn, err := pgx.Connect(ctx, p.URL); err == nil {
				return conn.Close(ctx)
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: it does not answer within a minute; its log is %s/pg.log", kind, p.Dir)
		}
		if err := harness.Wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// pid is the id of the server's first process, the first line of its file.
func (p *postgres) pid() (int, error) {
	text, err := os.ReadFile(filepath.Join(p.Dir, "data", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(line)
}

// asUser makes a command run as this user.
func asUser(name string) (*syscall.SysProcAttr, error) {
	who, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(who.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(who.Gid, 10, 32)
	credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return &syscall.SysProcAttr{Credential: credential}, errors.Join(err1, err2)
}
