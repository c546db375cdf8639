//go:build unix

package devpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

func TestStartRequiresHoldIfAsked(t *testing.T) { //nolint:paralleltest // changes what the other tests read
	asked = false
	defer func() { asked = true }()
	_, err := Start(t.Context(), Options{Dir: freshDir(t, nil)})
	if err == nil {
		t.Fatal("it started")
	}
	wantText(t, err.Error(), "HoldIfAsked")
}

func TestRowsSurviveARestart(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	for i, want := range []string{"word", "word word", "word word word"} {
		s, err := Start(t.Context(), Options{Dir: dir, Durable: i > 0})
		must(t, err)
		remember(t, s.URL, "word")
		wantWords(t, s.URL, want)
		if got, want := query(t, s.URL, "SHOW fsync"), []string{"off", "on", "on"}[i]; got != want {
			t.Errorf("start %d: fsync is %s, want %s", i, got, want)
		}
		must(t, s.Close())
		must(t, s.Close())
		wantGone(t, s.Dir)
	}
}

func TestOtherUsersCannotReachTheServerOrItsFiles(t *testing.T) {
	t.Parallel()
	s := start(t, freshDir(t, nil))
	got := query(t, s.URL, `SELECT concat_ws(' ', current_setting('listen_addresses'),
		current_setting('unix_socket_directories'), current_setting('server_encoding'),
		(SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules))`)
	if want := "127.0.0.1  UTF8 scram-sha-256"; got != want {
		t.Errorf("address, sockets, encoding, authentication: %q, want %q", got, want)
	}
	owner, err := ownerOf(s.Dir)
	must(t, err)
	modes := map[string]string{}
	for _, name := range []string{".", "data", "password", "pg.json", "pg.log"} {
		path := filepath.Join(s.Dir, name)
		info, err := os.Stat(path)
		must(t, err)
		modes[name] = info.Mode().String()
		if who, err := ownerOf(path); err != nil || who != owner || who.uid == 0 {
			t.Errorf("%s belongs to %v (%v), the directory to %v", name, who, err, owner)
		}
	}
	want := map[string]string{
		".": "drwx------", "data": "drwx------", "password": "-rw-------", "pg.json": "-rw-------", "pg.log": "-rw-------",
	}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Error(diff)
	}
}

func TestRowsSurviveARestartOfAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	who := ordinary(t)
	dir := freshDir(t, who)
	first := run(t, who, dir)
	remember(t, first.URL, "word")
	first.close(t)
	second := run(t, who, dir)
	wantWords(t, second.URL, "word")
	second.close(t)
}

func TestASecondProgramSharesTheServerAndLeavesItRunning(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	owner := start(t, dir)
	guest, err := Start(t.Context(), Options{Dir: dir})
	must(t, err)
	if !guest.Shared || owner.Shared || guest.URL != owner.URL {
		t.Errorf("shared: guest %v, owner %v; same server: %v", guest.Shared, owner.Shared, guest.URL == owner.URL)
	}
	must(t, guest.Close())
	remember(t, owner.URL, "still here")
}

// awaitAnother waits until a server with another process than before answers at the program's address.
func awaitAnother(t *testing.T, p *program, before int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		var pid int
		text, _ := os.ReadFile(filepath.Join(p.Dir, "data", "postmaster.pid"))
		_, _ = fmt.Sscan(string(text), &pid) // The file is missing between two servers.
		if pid != 0 && pid != before {
			if conn, err := pgx.Connect(ctx, p.URL); err == nil {
				must(t, conn.Close(ctx))
				return
			}
		}
		if !sleep(ctx, 10*time.Millisecond) {
			t.Fatal("no other server answers")
		}
	}
}

func TestTheServerOfAProgramThatStopsIsNotShared(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	owner, err := Start(t.Context(), Options{Dir: dir})
	must(t, err)
	remember(t, owner.URL, "word")
	owner.Retire()
	waits := make(chan struct{})
	next := make(chan *Server, 1)
	go func() {
		s, err := Start(t.Context(), Options{Dir: dir, Progress: func(line string) {
			if strings.Contains(line, "waiting for the program that owns") {
				close(waits)
			}
		}})
		if err != nil {
			t.Error(err)
		}
		next <- s
	}()
	select {
	case <-waits:
	case s := <-next:
		t.Fatalf("it did not wait: %+v", s)
	}
	wantWords(t, owner.URL, "word") // The server works until it is closed.
	must(t, owner.Close())
	if s := <-next; s != nil {
		if s.Shared || s.URL != owner.URL {
			t.Errorf("shared: %t, the same address: %t", s.Shared, s.URL == owner.URL)
		}
		wantWords(t, s.URL, "word")
		must(t, s.Close())
	}
}

// Without that, the programs that share a server would have no database from the end of its owner on.
func TestProgramsThatShareAServerStartItAgainWhenItsOwnerEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*program, *testing.T){
		"the owner stops": (*program).close, "the owner is killed": (*program).kill,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := freshDir(t, nil)
			owner := run(t, nil, dir)
			remember(t, owner.URL, "word")
			first, second := run(t, nil, dir), run(t, nil, dir)
			before := postmasterOf(t, owner.Dir)
			end(owner, t)
			awaitAnother(t, owner, before)
			wantWords(t, owner.URL, "word")
			// As long as one guest is left, so is the server. close returns when a server of its own has ended.
			first.close(t)
			awaitAnother(t, owner, before)
			wantWords(t, owner.URL, "word")
			second.close(t)
			wantGone(t, owner.Dir)
		})
	}
}

// The lock is a file that only a variable of the holder keeps open. GOGC=1 makes the
// holder collect garbage all the time.
func TestTheGarbageCollectorDoesNotReleaseTheLock(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	owner := run(t, nil, dir, "GOGC=1")
	lock := flock.New(filepath.Join(owner.Dir, "lock"))
	if free, err := lock.TryLock(); err != nil || free {
		t.Errorf("the lock is free: %v (%v)", free, err)
	}
	guest, err := Start(t.Context(), Options{Dir: dir})
	must(t, err)
	if !guest.Shared || guest.URL != owner.URL {
		t.Error("a second program does not share the server")
	}
	must(t, guest.Close())
	remember(t, owner.URL, "still here")
	owner.close(t)
}

func TestOfSeveralConcurrentStartsOneOwnsTheServer(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	servers := make([]*Server, 4)
	var wg sync.WaitGroup
	for i := range servers {
		wg.Go(func() {
			s, err := Start(t.Context(), Options{Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			servers[i] = s
		})
	}
	wg.Wait()
	owners := 0
	for _, s := range servers {
		switch {
		case s == nil:
		case s.Shared:
			must(t, s.Close())
		default:
			owners++
			t.Cleanup(func() { must(t, s.Close()) })
		}
	}
	if owners != 1 {
		t.Errorf("%d owners", owners)
	}
}

func TestTheServerStopsWhenItsProgramIsKilled(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	p := run(t, nil, dir)
	remember(t, p.URL, "word")
	p.kill(t)
	wantGone(t, p.Dir)
	wantWords(t, start(t, dir).URL, "word")
}

func TestAnOrphanedServerIsReplaced(t *testing.T) {
	t.Parallel()
	for name, killPostmaster := range map[string]bool{"it still runs": false, "it was killed as well": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := freshDir(t, nil)
			p := run(t, nil, dir)
			remember(t, p.URL, "word")
			holder, postmaster := p.holder(t), postmasterOf(t, p.Dir)
			must(t, syscall.Kill(holder, syscall.SIGKILL))
			p.kill(t)
			if killPostmaster {
				must(t, syscall.Kill(postmaster, syscall.SIGKILL))
			}
			lock := flock.New(filepath.Join(p.Dir, "lock"))
			must(t, errors.Join(lock.Lock(), lock.Unlock())) // the holder lives until it is free
			s := start(t, dir)
			wantWords(t, s.URL, "word")
			if s.Shared || postmasterOf(t, s.Dir) == postmaster {
				t.Error("the old server still answers")
			}
		})
	}
}

// awaitProgress reads the program's reports up to one that contains the text.
func (p *program) awaitProgress(t *testing.T, text string) {
	t.Helper()
	for {
		r := p.next(t)
		if r.Error != "" {
			t.Fatalf("the program reports %s", r.Error)
		}
		if strings.Contains(r.Progress, text) {
			return
		}
	}
}

func TestAServerThatEndsIsStartedAgainAtItsAddress(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *program) error{
		"its postmaster is killed": func(t *testing.T, p *program) error {
			return syscall.Kill(postmasterOf(t, p.Dir), syscall.SIGKILL)
		},
		"it is stopped": func(t *testing.T, p *program) error {
			return syscall.Kill(postmasterOf(t, p.Dir), syscall.SIGINT)
		},
		"all of it is killed": func(_ *testing.T, p *program) (err error) {
			for _, pid := range serversOf(filepath.Join(p.Dir, "data")) {
				err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
			}
			return err
		},
		"its holder is killed": func(t *testing.T, p *program) error { return syscall.Kill(p.holder(t), syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := freshDir(t, nil)
			p := run(t, nil, dir)
			remember(t, p.URL, "word")
			before := postmasterOf(t, p.Dir)
			idle, err := pgx.Connect(t.Context(), p.URL) // as in a pool of connections
			must(t, err)
			began := time.Now()
			must(t, end(t, p))
			p.awaitProgress(t, p.Dir+" has ended")
			// PostgreSQL waits a minute for a connection without a login when it stops.
			if took := time.Since(began); took > 45*time.Second {
				t.Errorf("the end was noticed after %s", took)
			}
			_ = idle.Close(t.Context())
			p.awaitProgress(t, p.Dir+" runs again")
			wantWords(t, p.URL, "word")
			if postmasterOf(t, p.Dir) == before {
				t.Error("the server was not started again")
			}
			guest, err := Start(t.Context(), Options{Dir: dir})
			must(t, err)
			if !guest.Shared || guest.URL != p.URL {
				t.Error("a second program does not share the server")
			}
			must(t, guest.Close())
			p.close(t)
			wantGone(t, p.Dir)
		})
	}
}

// PostgreSQL restarts its processes by itself when one of them crashes. The holder must
// not mistake that for an end.
func TestACrashOfOneBackendEndsNoServer(t *testing.T) {
	t.Parallel()
	s := start(t, freshDir(t, nil))
	remember(t, s.URL, "word")
	before := postmasterOf(t, s.Dir)
	conn, err := pgx.Connect(t.Context(), s.URL)
	must(t, err)
	must(t, syscall.Kill(int(conn.PgConn().PID()), syscall.SIGKILL))
	_, err = conn.Exec(t.Context(), "SELECT 1")
	if err == nil {
		t.Fatal("the backend lives")
	}
	for {
		conn, err := pgx.Connect(t.Context(), s.URL)
		if err == nil {
			must(t, conn.Close(t.Context()))
			break
		}
		if !sleep(t.Context(), 20*time.Millisecond) {
			t.Fatal(err)
		}
	}
	wantWords(t, s.URL, "word")
	if postmasterOf(t, s.Dir) != before {
		t.Error("the server was started again")
	}
}

func TestAServerThatCannotBeStartedAgainIsReported(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	p := run(t, nil, dir)
	file := filepath.Join(p.Dir, "data", "postgresql.conf")
	good, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append(good, "\nno_such_setting = 1\n"...), 0o600))
	must(t, syscall.Kill(postmasterOf(t, p.Dir), syscall.SIGKILL))
	for try := range maxRestarts {
		p.awaitProgress(t, fmt.Sprintf("try %d of %d", try+1, maxRestarts))
	}
	r := p.next(t)
	wantText(t, r.Error, p.Dir, "could not be started again", "no_such_setting")
	if err := p.cmd.Wait(); err == nil {
		t.Error("the program ended without an error")
	}
	must(t, os.WriteFile(file, good, 0o600))
	remember(t, start(t, dir).URL, "the directory is free")
}

func TestAnUnrelatedProcessWithThePostmastersPIDIsIgnored(t *testing.T) {
	t.Parallel()
	who := ordinary(t)
	dir := freshDir(t, who)
	p := run(t, who, dir)
	remember(t, p.URL, "word")
	file := filepath.Join(p.Dir, "data", "postmaster.pid")
	text, err := os.ReadFile(file)
	must(t, err)
	p.close(t)

	stranger := run(t, who, freshDir(t, who))
	_, rest, _ := strings.Cut(string(text), "\n")
	must(t, os.WriteFile(file, []byte(strconv.Itoa(stranger.cmd.Process.Pid)+"\n"+rest), 0o600))
	if who != nil {
		must(t, os.Chown(file, int(who.uid), int(who.gid)))
	}
	p = run(t, who, dir)
	wantWords(t, p.URL, "word")
	p.close(t)
	remember(t, stranger.URL, "unharmed")
}

// halfMade returns a directory whose first start was killed while it created the cluster.
func halfMade(t *testing.T) (dir string) {
	t.Helper()
	for range 5 { // a kill may come too late
		dir = freshDir(t, nil)
		p := launch(t, nil, dir)
		for !strings.Contains(p.next(t).Progress, "creating") {
		}
		must(t, syscall.Kill(p.holder(t), syscall.SIGKILL))
		p.kill(t)
		if _, err := os.Stat(filepath.Join(dir, "pg", "data")); errors.Is(err, fs.ErrNotExist) {
			return dir
		}
	}
	t.Fatal("every kill came too late")
	return ""
}

func TestAnUnfinishedClusterIsCreatedAgain(t *testing.T) {
	t.Parallel()
	dir := halfMade(t)
	s := start(t, dir)
	remember(t, s.URL, "word")
	must(t, s.Close())
	wantWords(t, start(t, dir).URL, "word")
	if halves, err := filepath.Glob(filepath.Join(dir, "pg", "data.making-*")); err != nil || halves != nil {
		t.Errorf("not removed: %v (%v)", halves, err)
	}
}

func TestACancelledStartLeavesNoServerRunning(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Start(ctx, Options{Dir: dir, Progress: func(line string) {
		if strings.Contains(line, "creating") {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	wantText(t, err.Error(), "creating the database")
	if left := serversOf(filepath.Join(dir, "pg", "data")); left != nil {
		t.Errorf("still running: %v", left)
	}
	if _, err := Start(ctx, Options{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("a start after the end: %v", err)
	}
	remember(t, start(t, dir).URL, "word")
}

func TestGarbageInPGJSONIsReplacedOrWaitedFor(t *testing.T) {
	t.Parallel()
	dir := freshDir(t, nil)
	s, err := Start(t.Context(), Options{Dir: dir})
	must(t, err)
	must(t, s.Close())
	file := filepath.Join(s.Dir, "pg.json")
	must(t, os.WriteFile(file, []byte("{garbage"), 0o600))
	s = start(t, dir)
	remember(t, s.URL, "word")

	good, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte("{garbage"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Start(ctx, Options{Dir: dir, Progress: func(string) { cancel() }})
	if err == nil {
		t.Fatal("a guest started with garbage for an address")
	}
	wantText(t, err.Error(), "waiting for the program that owns")
	must(t, os.WriteFile(file, good, 0o600))
	wantWords(t, s.URL, "word")
}
