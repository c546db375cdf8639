package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/gateway"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/queue/local"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/migrations"
)

// serveCmd is the local server: gateway, authorizer and every function in one
// process.
type serveCmd struct {
	Addr string `default:"127.0.0.1:7777" placeholder:"HOST:PORT" help:"Where to listen (127.0.0.1:7777)."`
	Dev  bool   `help:"For trying and developing, on this machine only: makes a key and tokens, falls back to the demo model, reloads keyway.yaml when it changes."`
}

// Help shows the two ways to serve.
func (serveCmd) Help() string {
	return `Examples:

  keyway serve --dev                      everything made for you, localhost only
  JWT_VERIFICATION_KEY=… keyway serve     with the keys that keyway.yaml names

Without database.url and DATABASE_URL a PostgreSQL is run for you below --data: the
one found on this machine, or one fetched once.`
}

// server is a running keyway serve.
type server struct {
	env
	serveCmd
	log     *slog.Logger
	decided *slog.Logger // every decision, for the log and --data
	started time.Time
	first   *config.Config // what the server was started with
	db      *store.DB

	handler    atomic.Pointer[http.Handler] // of the configuration in force
	queue      *local.Queue                 // of the runs that wait
	runner     atomic.Pointer[run.Runner]   // of the configuration in force
	runners    []*run.Runner                // every configuration's: their runs go on after a reload
	background sync.WaitGroup               // what ends with the context
}

// Run serves until SIGINT or SIGTERM.
func (c serveCmd) Run(e env) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.serve(ctx, e)
}

func (c serveCmd) serve(ctx context.Context, e env) (err error) {
	if _, chosen := e.lookup("GOGC"); !chosen { // the heap is small: a fifth of the CPU went into collecting it
		debug.SetGCPercent(300)
	}
	s := &server{env: e, serveCmd: c, log: logging.NewLogger(e.err, isTerminal(e.err)), started: time.Now()}
	p, err := s.prepare()
	if err != nil {
		return err
	}
	s.first = p.cfg
	// Taken before the database is made, so that a port in use is told at once.
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return usage("%w; choose another address with --addr", err)
	}
	defer listener.Close()
	var changes *fsnotify.Watcher
	if c.Dev { // here, since what is edited while a database is made counts too
		if changes = s.watch(); changes != nil {
			defer changes.Close()
		}
	}
	closeDB, err := s.openDatabase(ctx, p.cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeDB()) }()
	closeLog := s.logDecisions()
	defer func() { err = errors.Join(err, closeLog()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer s.background.Wait()
	defer cancel()
	s.queue = local.New(s.db, time.Now)
	s.apply(p)
	s.requeue(ctx) // before anybody can ask for such a run
	s.background.Go(func() { s.requeueAlways(ctx) })
	s.background.Go(func() { s.work(ctx) })
	if changes != nil {
		s.background.Go(func() { s.reload(ctx, changes) })
	}
	if c.Dev {
		s.greet(p, listener.Addr().String())
	} else {
		fmt.Fprintf(e.err, "keyway serves %s at http://%s\n", p.cfg.ID, listener.Addr())
	}
	return s.listen(ctx, listener)
}

// prepared is a configuration with all that can be refused about it checked.
type prepared struct {
	cfg        *config.Config
	authorizer *edge.Authorizer
	agents     []run.Agent
}

// prepare reads keyway.yaml, its keys, models and tools.
func (s *server) prepare() (p prepared, err error) {
	if p.cfg, err = s.configure(); err != nil {
		return p, err
	}
	if p.authorizer, err = edge.New(p.cfg, s.outside()); err != nil {
		return p, usageError{err}
	}
	if err := s.fetchKeys(p.authorizer); err != nil {
		return p, err
	}
	p.agents, err = s.agents(p.cfg)
	return p, err
}

// anyKey follows what is wrong with auth.keys.
const anyKey = `A key comes from whoever issues your tokens. To be that yourself:
  export JWT_VERIFICATION_KEY=$(openssl rand -hex 32)   auth: {algorithms: [HS256], keys: ["${JWT_VERIFICATION_KEY}"]}
  keyway keys generate --out keys.json                  auth: {algorithms: [RS256], keys: [{jwks_file: keys.json}]}
To try it without one: keyway serve --dev`

// configure reads keyway.yaml and refuses what this server must not run.
func (s *server) configure() (*config.Config, error) {
	cfg, err := s.load(s.Dev)
	faults, _ := errors.AsType[config.Faults](err)
	ofKeys := func(f config.Fault) bool { return strings.HasPrefix(f.Path, "auth.keys") }
	if !s.Dev && slices.ContainsFunc(faults, ofKeys) {
		return nil, usage("%w\n%s", err, anyKey)
	}
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, usage("--addr %s: %w; write HOST:PORT", s.Addr, err)
	}
	if s.Dev {
		if !gateway.IsLoopback(host) {
			return nil, usage("--dev serves this machine only: --addr must be a loopback address such as 127.0.0.1:7777")
		}
		if err := s.devKey(cfg, true); err != nil {
			return nil, err
		}
	}
	if keys := cfg.Forgeable(); len(keys) > 0 && !gateway.IsLoopback(host) {
		return nil, usageError{keys}
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(s.err, "warning:", w)
	}
	return cfg, nil
}

// openDatabase finds or starts PostgreSQL and brings the schema up to date.
func (s *server) openDatabase(ctx context.Context, cfg *config.Config) (closeDB func() error, err error) {
	closeDB = func() error { return nil }
	url := string(cfg.Database.URL)
	if url == "" {
		pg, err := devpg.Start(ctx, devpg.Options{Dir: s.cli.Data, Durable: true, Progress: func(line string) { fmt.Fprintln(s.err, line) }})
		if err != nil {
			return nil, err
		}
		url, closeDB = pg.URL, pg.Close
	}
	did, err := migrations.Run(ctx, migrations.Target{URL: url, Schema: cfg.Database.Schema, OSID: cfg.ID})
	if did.Newer {
		fmt.Fprintf(s.err, "warning: a newer Keyway migrated the schema %s to version %d; this one works with it\n", cfg.Database.Schema, did.To)
	}
	if err == nil {
		s.db, err = store.Open(store.Options{URL: url, Schema: cfg.Database.Schema})
	}
	if err != nil {
		return nil, errors.Join(err, closeDB())
	}
	stopPG := closeDB
	return func() error { s.db.Close(); return stopPG() }, nil
}

// apply puts a configuration in force: requests that come from now on see it.
func (s *server) apply(p prepared) {
	p.authorizer.Log = authz.NewLog(s.decided, p.cfg.Digest)
	service := assemble.All(assemble.Parts{
		Config: p.cfg, Policy: p.authorizer.Policy, Agents: p.agents, DB: s.db, Queue: s.queue, Log: s.log, Version: assemble.Version, Started: s.started,
		Decisions: p.authorizer.Log,
	})
	s.runners = append(s.runners, service.Runner)
	s.runner.Store(service.Runner)
	origins := p.cfg.CORS.Origins
	if origins == nil {
		origins = api.DefaultOrigins
	}
	var h http.Handler = gateway.New(p.authorizer, service.Handler, time.Now)
	h = api.CORS(origins, h)
	if s.Dev {
		h = gateway.Loopback(h)
	}
	h = logging.Requests(s.log, h)
	s.handler.Store(&h)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.handler.Load()).ServeHTTP(w, r)
}

// shutdownPatience is how long runs in progress may take to end after SIGTERM.
const shutdownPatience = 20 * time.Second

// listen serves until ctx ends, then lets runs end.
func (s *server) listen(ctx context.Context, l net.Listener) error {
	// No WriteTimeout: a stream may last; each of its writes has a deadline of its own.
	web := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 128 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	signal.Reset(os.Interrupt, syscall.SIGTERM) // a second ctrl-C ends the process
	fmt.Fprintf(s.err, "keyway stops; runs in progress have %s to end (press ctrl-C again not to wait)\n", shutdownPatience)
	s.background.Wait() // no reload adds a runner from here on
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownPatience)
	defer cancel()
	err := web.Shutdown(ctx)
	for _, r := range s.runners {
		err = errors.Join(err, r.Wait(ctx))
	}
	if err != nil {
		s.handOver()
	}
	for _, r := range s.runners {
		_ = r.Close() // it ends with the process at the latest
	}
	return web.Close()
}

// handOverPatience is how long it may take to hand runs over.
const handOverPatience = 5 * time.Second

// handOver leaves what did not end in time to another server, or to the next one here.
func (s *server) handOver() {
	ctx, cancel := context.WithTimeout(context.Background(), handOverPatience)
	defer cancel()
	left := 0
	for _, r := range s.runners {
		left += r.HandOver()
		if err := r.Wait(ctx); err != nil { // their leases will be over
			s.log.Warn("runs are cut off", "err", err)
		}
	}
	if left > 0 {
		fmt.Fprintf(s.err, "keyway: runs that did not end in time: %d; another keyway serve, or the next one here, takes them up\n", left)
	}
}

const (
	// requeueEvery is how soon after its lease a run is taken up again.
	requeueEvery = 15 * time.Second
	// mostTaken bounds the runs that are carried here out of the queue at a time; the
	// rest waits.
	mostTaken = 32
)

// work carries the runs that wait, each by the configuration in force when it is
// taken.
func (s *server) work(ctx context.Context) {
	queue.Work(ctx, s.queue, s.log, mostTaken, func(ctx context.Context, id uuid.UUID) (func(), error) {
		return s.runner.Load().Take(ctx, id)
	})
}

func (s *server) requeueAlways(ctx context.Context) {
	ticker := time.NewTicker(requeueEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.requeue(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// requeue has the runs of processes that died taken up again.
func (s *server) requeue(ctx context.Context) {
	if n, err := s.runner.Load().Requeue(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("runs that their process left behind can't be taken up", "err", err)
	} else if n > 0 {
		s.log.Warn("runs that their process left behind are taken up again", "runs", n)
	}
}
