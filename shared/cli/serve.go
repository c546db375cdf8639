package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/gateway"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/meter/prometheus"
	"github.com/keyway-agents/keyway/shared/notify"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/queue/local"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/devpg"
	"github.com/keyway-agents/keyway/shared/store/migrations"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/trace/otlp"
	"github.com/keyway-agents/keyway/shared/version"
)

// serveCmd is the local server: the gateway, the authorizer and every function of the
// AWS deployment in one process.
type serveCmd struct {
	// Addr is where the server listens. Port 0 picks a free port.
	Addr string `default:"127.0.0.1:7777" placeholder:"HOST:PORT" help:"The address to listen on (127.0.0.1:7777)."`
	// Dev makes what a first try needs. It is refused on an address that other machines
	// reach, see configure.
	Dev bool `help:"${help_dev}"`
	// TLSCert and TLSKey are PEM files. They are read again when they change.
	TLSCert string `name:"tls-cert" placeholder:"FILE" help:"Serve HTTPS with this certificate (PEM, with its chain)."`
	TLSKey  string `name:"tls-key" placeholder:"FILE" help:"The private key of the certificate (PEM)."`
	// MetricsAddr is where Prometheus scrapes. Empty: nothing is counted.
	MetricsAddr string `name:"metrics-addr" placeholder:"HOST:PORT" help:"Serve Prometheus' GET /metrics at this address."`
	// RequireTLS refuses plain HTTP on an address that other machines reach.
	RequireTLS bool `name:"require-tls" help:"Refuse to serve other machines without TLS."`
}

// Help adds examples to the command's --help.
func (serveCmd) Help() string {
	return `Examples:

  keyway serve --dev                      makes a key, tokens and a database; localhost only
  JWT_VERIFICATION_KEY=… keyway serve     with the keys that keyway.yaml names
  keyway serve --addr 0.0.0.0:7777        for other machines; put TLS in front of it, or use
    --tls-cert tls.crt --tls-key tls.key  a certificate; renewed files are read again

Without database.url and DATABASE_URL, keyway runs a PostgreSQL below --data: the one
installed on this machine, or one that it fetches once.

SIGTERM or ctrl-C stops the server and gives runs in progress 20 seconds to end. A run
that needs longer continues in another keyway serve on the same database, or at the next
start.`
}

// server is a running keyway serve.
type server struct {
	env
	serveCmd
	log *slog.Logger
	// decided, refused and audited write to log and to a file each: what was allowed, what was refused, and who changed
	// what.
	decided, refused, audited *slog.Logger
	// logFiles are these files.
	logFiles []*logFile
	// decisions is the log of the decisions by the configuration in force.
	decisions *authz.Log
	// base is the address of this server, for a keyway.yaml without public_url.
	base string
	// recent are the newest decisions, and code is what opens the console with --dev.
	recent recent
	code   signInCode
	// diffing is held while a file is compared with the logs.
	diffing sync.Mutex
	// hash makes the hashes in logs.
	hash    loghash.Keys
	started time.Time
	// capacity is what this process accepts, and conns are the connections of its clients.
	capacity capacity
	conns    *connections
	// first is the configuration that the server started with.
	first *config.Config
	db    *store.DB
	// target is what was migrated at the start.
	target migrations.Target
	// revocations are the revoked tokens, for all configurations.
	revocations *revoke.List
	// lostDB receives the reason if the embedded PostgreSQL has ended for good. It is nil if
	// the database is not embedded.
	lostDB <-chan error
	// retireDB announces to other programs that this one will stop the embedded PostgreSQL.
	retireDB func()

	// handler and runner belong to the configuration in force. A reload replaces both while
	// requests are served.
	handler atomic.Pointer[http.Handler]
	runner  atomic.Pointer[run.Runner]
	// queue holds pending runs.
	queue *local.Queue
	// retention says what is too old, by the configuration that is in force.
	retention atomic.Pointer[config.Retention]
	// runners holds the runner of every configuration so far. A run continues after a
	// reload with the agents that it started with.
	runners []*run.Runner
	// spans makes and exports the spans of requests and runs.
	spans trace.Exporter
	// metrics counts for Prometheus, and scrapes is where it asks. Both are nil without --metrics-addr.
	metrics *prometheus.Metrics
	scrapes net.Listener
	// followers returns how many clients follow runs with the configuration in force.
	followers atomic.Pointer[func() int]
	// lostLines counts the lines of logs that could not be written.
	lostLines atomic.Int64
	// notices reports runs to the webhook of the configuration in force. It holds nil without one.
	notices atomic.Pointer[notify.Sender]
	// background waits for the goroutines that end with the context.
	background sync.WaitGroup
}

// Run serves until SIGINT, SIGTERM or the end of ctx.
func (c serveCmd) Run(ctx context.Context, e env) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.serve(ctx, e)
}

// serve runs the server until ctx ends. It reports a wrong setting as early as possible:
// it checks the configuration first, then takes the port, and only then starts or
// downloads a database, which may take minutes.
func (c serveCmd) serve(ctx context.Context, e env) (err error) {
	if _, chosen := e.lookup("GOGC"); !chosen {
		defer giveRoom()()
	}
	// People read text in a terminal; programs read JSON from a pipe or a file.
	s := &server{
		env: e, serveCmd: c, log: logging.NewLogger(e.err, isTerminal(e.err)), started: time.Now(), retireDB: func() {},
	}
	p, err := s.prepare()
	if err != nil {
		return err
	}
	encrypted, err := s.transport()
	if err != nil {
		return err
	}
	if s.capacity, err = capacityOf(fileLimit(), memoryLimit()); err != nil {
		return err
	}
	s.first, s.recent.run = p.cfg, strconv.FormatInt(s.started.UnixNano(), 36)
	// The port is taken now and served at the end. A client that connects in between waits
	// and gets its answer, instead of an error.
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return usage("%w; choose another address with --addr", err)
	}
	defer listener.Close()
	s.conns = limitConnections(listener, s.capacity.conns, minWaits)
	if err := s.openMetrics(ctx); err != nil {
		return err
	}
	defer s.closeMetrics()
	base := "http://" + listener.Addr().String()
	if encrypted != nil {
		base = "https://" + listener.Addr().String()
	}
	s.base = reachable(base)
	s.code = signInCode{now: s.now, print: func(code string) { s.printConsole(base, code) }}
	// A production server does not reload: a deployment restarts it.
	var changes *fsnotify.Watcher
	if c.Dev { // before the database, so that an edit made while it starts is seen
		if changes = s.watchConfig(); changes != nil {
			defer changes.Close()
		}
	}
	closeDB, err := s.openDatabase(ctx, p.cfg)
	if err != nil {
		return err
	}
	// The deferred calls run from the last to the first: the goroutines end before the log
	// and the database that they use are closed.
	defer func() { err = errors.Join(err, closeDB()) }()
	closeLogs := s.openLogs()
	defer func() { s.decisions.Flush(); err = errors.Join(err, closeLogs()) }()
	if s.hash, err = s.logKeys(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.background.Wait()
	defer cancel()
	if s.spans, err = otlp.Open(e.lookup, version.ThisBuild().Version, s.log); err != nil {
		return usage("%w", err)
	}
	defer s.closeSpans()
	s.queue = local.New(s.db)
	s.revocations = revoke.New(s.db.Revocations, assemble.Now, s.log)
	s.count()
	s.apply(p)
	s.requeue(ctx) // before the first request can ask for an orphaned run
	s.background.Go(func() { s.requeueOften(ctx) })
	s.background.Go(func() { s.work(ctx) })
	s.background.Go(func() { sweepOften(ctx, s.sweep) })
	s.background.Go(func() { s.notifyOften(ctx) })
	if changes != nil {
		s.background.Go(func() { s.reload(ctx, changes) })
	}
	if c.Dev {
		s.greet(p, base)
	} else {
		fmt.Fprintf(e.err, "keyway serves %s at %s\n", p.cfg.ID, base)
		s.log.Info("capacity", "runs", s.capacity.runs, "background_runs", s.capacity.background,
			"connections", s.capacity.conns)
	}
	if s.metrics != nil {
		go s.serveMetrics() // until closeMetrics
		fmt.Fprintf(e.err, "metrics at http://%s/metrics\n", s.scrapes.Addr())
	}
	return s.listen(ctx, encrypted)
}

// prepared is a configuration that was checked as a whole: apply cannot fail.
type prepared struct {
	cfg *config.Config
	// authorizer verifies tokens and decides about requests.
	authorizer *edge.Authorizer
	// agents are all agents with their models and tools, in the order they are listed.
	agents []run.Agent
}

// prepare reads keyway.yaml, and opens its keys, models and tools.
func (s *server) prepare() (p prepared, err error) {
	if p.cfg, err = s.configure(); err != nil {
		return p, err
	}
	// New reads key files and variables. Keys at a URL come with fetchKeys.
	if p.authorizer, err = s.env.authorizer(p.cfg); err != nil {
		return p, err
	}
	warnings, err := fetchKeys(p.authorizer)
	if err != nil {
		return p, err
	}
	for _, w := range warnings {
		fmt.Fprintln(s.err, w)
	}
	p.agents, err = s.agents(p.cfg)
	return p, err
}

// getAKey follows an error in auth.keys. It shows the two ways to a key, and the way
// to try keyway without one.
const getAKey = `The key comes from the service that issues your tokens. To issue them yourself:
  export JWT_VERIFICATION_KEY=$(openssl rand -hex 32)   auth: {algorithms: [HS256], keys: ["${JWT_VERIFICATION_KEY}"]}
  keyway keys generate --out keys.json                  auth: {algorithms: [RS256], keys: [{jwks_file: keys.json}]}
To try it without one: keyway serve --dev`

// configure reads keyway.yaml and rejects what would make this server unsafe:
//
//   - --dev on an address that other machines reach, since --dev prints the tokens of
//     an administrator and may use a key that it made itself;
//   - the secret that the Agno documents print, on such an address, since anybody can
//     sign tokens with it.
func (s *server) configure() (*config.Config, error) {
	cfg, err := s.load(s.Dev)
	faults, _ := errors.AsType[config.Faults](err)
	// A missing key is the first error of most new users. They get the remedy in full. An error in a
	// field of an entry, such as an address without TLS, is another problem.
	ofKeys := func(f config.Fault) bool {
		rest, ok := strings.CutPrefix(f.Path, "auth.keys")
		return ok && !strings.Contains(rest, ".")
	}
	if !s.Dev && slices.ContainsFunc(faults, ofKeys) {
		return nil, usage("%w\n%s", err, getAKey)
	}
	if err != nil {
		return nil, err
	}
	// An empty host means every address of the machine, which is not a loopback address.
	host, _, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, usage("--addr %s: %w; write HOST:PORT", s.Addr, err)
	}
	if s.Dev {
		if !gateway.IsLoopback(host) {
			return nil, usage("--dev serves this machine only: --addr must be a loopback address such as 127.0.0.1:7777")
		}
		if err := s.addDevKey(cfg, true); err != nil {
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

// leaseConns is the number of connections for the leases of the runs. One is enough for
// the statement that renews them; the second is for the case that the first does not answer.
const leaseConns = 2

// openDatabase connects to the database of the configuration, or starts the embedded
// PostgreSQL if there is none, and brings the schema up to date. closeDB closes the
// connections before it stops PostgreSQL.
func (s *server) openDatabase(ctx context.Context, cfg *config.Config) (closeDB func() error, err error) {
	stop := func() error { return nil }
	progress := func(line string) { fmt.Fprintln(s.err, line) }
	// The embedded server is durable: it holds the user's sessions, even with --dev.
	url := string(cfg.Database.URL)
	if url == "" {
		pg, err := devpg.Start(ctx, devpg.Options{Dir: s.cli.Data, Durable: true, Progress: progress})
		if err != nil {
			return nil, err
		}
		url, stop, s.lostDB, s.retireDB = pg.URL, pg.Close, pg.Failed(), pg.Retire
	}
	// A schema that a newer Keyway migrated may still work with this one: its migrations
	// record which earlier versions do. That allows a deployment to go back.
	s.target = migrations.Target{
		URL: url, Schema: cfg.Database.Schema, OSID: cfg.ID, Owners: cfg.Auth.Owners(), Progress: progress,
	}
	did, err := migrations.Run(ctx, s.target)
	if did.Newer {
		fmt.Fprintf(s.err, "warning: a newer Keyway migrated the schema %s to version %d; this one works with it\n",
			cfg.Database.Schema, did.To)
	}
	if err == nil {
		s.db, err = store.Open(store.Options{URL: url, Schema: cfg.Database.Schema, LeaseConns: leaseConns, Log: s.log})
	}
	if err == nil {
		err = s.probe(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return func() error { s.db.Close(); return stop() }, nil
}

// oldestSupported is the first version of PostgreSQL that Keyway is meant for, as its
// server_version_num.
const oldestSupported = 140_000

// probe finds out what stands at the address of the database, logs it, and warns of what an operator may not know. The
// store adapts to it, or the error has the remedy.
func (s *server) probe(ctx context.Context) error {
	found, err := s.db.Probe(ctx)
	if err == nil {
		err = s.db.Check(ctx) // It reads who owns what.
	}
	if err != nil {
		s.db.Close()
		return err
	}
	if found.Exposed {
		fmt.Fprintln(s.err, "warning: the database is on another machine and has no TLS, so others may read along; switch "+
			"TLS on there, or accept it with sslmode=disable in database.url")
	}
	if found.Version < oldestSupported {
		fmt.Fprintf(s.err, "warning: the database is PostgreSQL %d; Keyway is meant for %d and later\n",
			found.Version/10_000, oldestSupported/10_000)
	}
	if !s.Dev {
		s.log.Info("database", "postgresql", fmt.Sprintf("%d.%d", found.Version/10_000, found.Version%10_000),
			"tls", cmp.Or(found.TLS, "none"), "pooler", found.Pooler, "prepared_statements", found.Named)
	}
	return nil
}

// publish completes a configuration without public_url by the address that the server listens on.
func (s *server) publish(p prepared) {
	if p.cfg.PublicURL == "" {
		p.cfg.PublicURL = s.base
		p.authorizer.Verifier.SetMCP(p.cfg.MCPAudience())
	}
}

// reachable returns the address of a server on this machine. One that listens on all addresses is localhost too.
func reachable(base string) string {
	scheme, addr, _ := strings.Cut(base, "://")
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		addr = net.JoinHostPort("localhost", port)
	}
	return scheme + "://" + addr
}

// apply puts a configuration in force. A request sees one configuration from beginning
// to end: requests that have begun keep the previous one.
func (s *server) apply(p prepared) {
	s.publish(p)
	s.decisions.Flush() // of the configuration that was in force
	s.decisions = authz.NewLog(s.decided, p.cfg.Digest, p.authorizer.Agents).RefusalsTo(s.refused)
	p.authorizer.Log, p.authorizer.Hash = s.decisions, s.hash
	local, dev := &api.Local{Decisions: s.recent.after, Diff: s.diff}, (*api.Dev)(nil)
	if s.Dev {
		dev = &api.Dev{
			Mint: func(sub string, scopes []string, lifetime time.Duration) (string, error) {
				return s.mintDev(p, tokenCmd{Sub: sub, Scopes: scopes, TTL: lifetime})
			},
			SignIn: func(code string) (string, error) { return s.signIn(p, code) },
		}
	}
	service := assemble.All(assemble.Parts{
		Config: p.cfg, Policy: p.authorizer.Policy, Agents: p.agents, DB: s.db,
		Revocations: s.revocations, Queue: s.queue, Log: s.log,
		Version: version.ThisBuild().Version, Started: s.started, Decisions: s.decisions,
		Hash: s.hash, Audit: audit.New(s.audited, s.hash, p.authorizer.Agents),
		MaxRuns: s.capacity.runs, Tracer: s.spans.Tracer, Local: local, Dev: dev,
	})
	s.applyNotify(p.cfg.Notify)
	s.retention.Store(&p.cfg.Retention)
	// apply is called by one goroutine at a time: by serve, and then by reload alone.
	s.runners = append(s.runners, service.Runner)
	s.runner.Store(service.Runner)
	s.followers.Store(&service.Followers)
	// AgentOS's web interface is allowed by default with --dev, as in AgentOS itself. Without --dev, and
	// on AWS, keyway.yaml names every origin. An empty list there allows none.
	origins := p.cfg.CORS.Origins
	if origins == nil && s.Dev {
		origins = api.DefaultOrigins
	}
	// The handlers are wrapped from the inside out. CORS is outside the gateway, because a
	// preflight request has no token. The routes that sign tokens (--dev) are outside CORS, and so is the check of the
	// Host header.
	// The log is outermost, so that it has every answer.
	inside := api.Challenges(p.cfg.MCPMetadata(), gateway.New(p.authorizer, service.Handler, assemble.Now))
	h := api.CORS(origins, api.Origins(append(slices.Clone(origins), p.cfg.Origin()), route.Table, inside))
	if s.Dev {
		h = gateway.Loopback(gateway.SameOrigin(route.Table, inside, h))
	}
	h = logging.Requests(s.log, trace.Requests(s.spans.Tracer, h))
	s.handler.Store(&h)
}

// ServeHTTP serves one request with the configuration in force.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.conns.crowded() {
		w.Header().Set("Connection", "close") // the client opens a new one for its next request
	}
	serveInTime(w, r, pace{grace: TransferGrace, drain: DrainTime}, *s.handler.Load())
}

// closeSpans sends the last spans.
func (s *server) closeSpans() {
	ctx, cancel := context.WithTimeout(context.Background(), spansPatience)
	defer cancel()
	if err := s.spans.Close(ctx); err != nil {
		s.log.Warn("the last spans were not exported", "err", err)
	}
}

// spansPatience is how long the last spans may take, at the end of the process.
const spansPatience = 5 * time.Second

// requeueEvery is how often this server looks for orphaned runs: runs whose lease has
// expired because their process crashed.
const requeueEvery = 15 * time.Second

// work executes runs from the queue until ctx ends, each with the configuration that
// is in force when it is claimed.
func (s *server) work(ctx context.Context) {
	queue.Work(ctx, s.queue, s.log, s.capacity.background, func(ctx context.Context, id uuid.UUID) (func(), bool, error) {
		return s.runner.Load().Claim(ctx, id)
	})
}

// requeueOften requeues orphaned runs until ctx ends.
func (s *server) requeueOften(ctx context.Context) {
	ticker := time.NewTicker(requeueEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.requeue(ctx)
			_ = s.db.Check(ctx) // `keyway owners move` may have changed who owns what. Errors show in each request too.
		case <-ctx.Done():
			return
		}
	}
}

// requeue puts orphaned runs back into the queue.
func (s *server) requeue(ctx context.Context) {
	if n, err := s.runner.Load().Requeue(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("could not recover orphaned runs", "err", err)
	} else if n > 0 {
		s.log.Warn("recovered orphaned runs", "runs", n)
	}
}
