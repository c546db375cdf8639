//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/store/devpg"
)

// postgres is a PostgreSQL server that can be restarted.
type postgres struct {
	*devpg.Server
	dir string
}

// openPostgres starts PostgreSQL below dir.
func openPostgres(ctx context.Context, dir string) (*postgres, error) {
	// PostgreSQL may run as another user, which must be able to enter.
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302
		return nil, err
	}
	server, err := devpg.Start(ctx, devpg.Options{Dir: dir})
	return &postgres{server, dir}, err
}

func (p *postgres) close() error {
	return errors.Join(p.Close(), os.RemoveAll(p.Dir))
}

// database creates an empty database and returns its URL.
func (p *postgres) database(ctx context.Context, name string) (*url.URL, error) {
	conn, err := pgx.Connect(ctx, p.URL)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return nil, err
	}
	u, err := url.Parse(p.URL)
	if err == nil {
		u.Path = "/" + name
	}
	return u, err
}

// restart restarts the server as pg_ctl does: fast ends the sessions and writes a checkpoint, immediate is a crash. It
// returns when the server answers again.
func (p *postgres) restart(ctx context.Context, mode string) error {
	data := filepath.Join(p.Dir, "data")
	// The first word is the path of the postgres program.
	options, err := os.ReadFile(filepath.Join(data, "postmaster.opts"))
	if err != nil {
		return err
	}
	program, _, _ := strings.Cut(string(options), " ")
	pgctl := filepath.Join(filepath.Dir(program), "pg_ctl")
	cmd := exec.CommandContext(ctx, pgctl, "restart", "-s", "-w", "-m", mode, "-D", data) // #nosec G204
	// postmaster.opts names the data by a path relative to the directory of devpg's holder.
	cmd.Dir = p.Dir
	if cmd.SysProcAttr, err = asOwner(data); err != nil {
		return err
	}
	// A file and not a pipe: the server keeps it open, and Wait would wait for the end of the server.
	output, err := os.Create(filepath.Join(p.dir, "pg_ctl.log"))
	if err != nil {
		return err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	err = cmd.Run()
	for end := time.Now().Add(time.Minute); ; {
		conn, connectErr := pgx.Connect(ctx, p.URL)
		if connectErr == nil {
			return conn.Close(ctx)
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return fmt.Errorf("PostgreSQL does not answer after a restart (%s): %w; see %s", mode, errors.Join(connectErr, err),
				output.Name())
		}
		_ = wait(ctx, 100*time.Millisecond)
	}
}

// asOwner makes a command run as the user who owns the file. It is nil if this user does.
func asOwner(file string) (*syscall.SysProcAttr, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if int(owner.Uid) == os.Geteuid() {
		return nil, nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}, nil
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
