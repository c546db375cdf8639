// Package lambdaboot starts the Lambda functions behind API Gateway. It reads the
// configuration, opens the store and serves the function's routes, or ends the process
// with one log line that names every error.
// It links no model provider: a function that executes runs passes in its agents.
package lambdaboot

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/deployed"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/lambdahttp"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/meter"
	"github.com/keyway-agents/keyway/shared/meter/emf"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/version"
)

// Function describes one Lambda function of the route table.
type Function struct {
	// Name is the function's name in the route table. Required.
	Name route.Function
	// Without lists the parts of keyway.yaml that the function doesn't use. Variables
	// that only they name need not be set. Defaults to the whole file.
	Without []config.Part
	// Agents opens the agents that the function executes. A function with agents streams
	// its answers. Defaults to none.
	Agents func(*config.Config, func(string) (string, bool)) ([]run.Agent, error)
	// Queue opens the queue of background runs, whose URL is in KEYWAY_QUEUE_URL.
	// Without that variable, as on sam local, background runs execute in the process
	// that started them. Defaults to no queue.
	Queue func(url string, lookup func(string) (string, bool)) (queue.Queue, error)
	// Trace opens the exporter of spans. Defaults to none, so that a function without runs doesn't link it.
	Trace func(lookup func(string) (string, bool), version string, log *slog.Logger) (trace.Exporter, error)
}

// Serve answers the function's routes. It doesn't return.
func Serve(f Function) {
	log := logging.NewLogger(os.Stderr, false)
	o, err := f.open(log)
	if err != nil {
		logging.Exit(log, "the function "+string(f.Name), err)
	}
	lambdahttp.Start(o)
}

// Worker is what a Lambda function needs that executes runs and serves no HTTP requests.
type Worker struct {
	Runner *run.Runner
	// DB is the store. The Lambda functions that serve the API check the database's schema before they answer their first
	// request. A worker has no such check: call DB.Check before the first run.
	DB *store.DB
	// Queue is the queue of background runs, or nil.
	Queue queue.Queue
	// Keep is what keyway.yaml says about old data.
	Keep store.Retention
	// Notify is the webhook of keyway.yaml.
	Notify config.Notify
	// Settle waits for the runs in progress and sends their spans. Call it before the process is frozen.
	Settle func(context.Context) error
}

// Worker opens what a worker needs.
func (f Function) Worker(log *slog.Logger) (Worker, error) {
	p, spans, err := f.parts(log)
	if err != nil {
		return Worker{}, err
	}
	runner := assemble.For(route.Runs, p).Runner
	r := p.Config.Retention // Of the logs, the log groups decide.
	return Worker{
		Runner: runner, DB: p.DB, Queue: p.Queue, Notify: p.Config.Notify,
		Keep:   store.Retention{Events: r.Events, Runs: r.Runs, Sessions: r.Sessions},
		Settle: settled(runner, spans, log),
	}, nil
}

// flushTime is how long a function may take to send its spans, before it is frozen. A collector that
// doesn't answer must not make each request slow.
const flushTime = 2 * time.Second

// settled returns the function that waits for the runs in progress, and sends the spans.
func settled(runner *run.Runner, spans trace.Exporter, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		err := runner.Wait(ctx)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		if err := spans.Flush(ctx); err != nil {
			log.WarnContext(ctx, "spans were not exported", "err", err)
		}
		return err
	}
}

// open builds the function's handler. A function with agents streams, except on sam
// local, which can't pass on a streamed answer and sets AWS_SAM_LOCAL.
func (f Function) open(log *slog.Logger) (o lambdahttp.Options, err error) {
	p, spans, err := f.parts(log)
	if err != nil {
		return o, err
	}
	o = lambdahttp.Options{Log: log, Streamed: f.Agents != nil && os.Getenv("AWS_SAM_LOCAL") != "true"}
	if !o.Streamed {
		p.MaxAnswer = lambdahttp.MaxJSON
	}
	service := assemble.For(f.Name, p)
	if service.Runner != nil {
		o.Settle = settled(service.Runner, spans, log)
	}
	o.Handler = trace.Requests(spans.Tracer, api.CORS(p.Config.CORS.Origins,
		api.Challenges(p.Config.MCPMetadata(), service.Handler)))
	return o, nil
}

// parts reads the configuration and opens what the function needs. It makes no network
// request, so that a cold start waits for nothing.
func (f Function) parts(log *slog.Logger) (p assemble.Parts, spans trace.Exporter, err error) {
	spans = trace.None()
	cfg, err := deployed.Config(f.Without...)
	if err != nil {
		return p, spans, err
	}
	policy, err := edge.Policy(cfg)
	if err != nil {
		return p, spans, err
	}
	var agents []string
	for _, a := range cfg.Agents {
		agents = append(agents, a.ID)
	}
	p = assemble.Parts{
		Config: cfg, Policy: policy, Log: log, Version: version.ThisBuild().Version, Started: time.Now(),
		Decisions: authz.NewLog(log, cfg.Digest, agents),
	}
	if p.Hash, err = loghash.FromEnv(os.LookupEnv); err != nil {
		return p, spans, err
	}
	if len(p.Hash) == 0 {
		log.Warn(loghash.Warning)
	}
	p.Audit = audit.New(log, p.Hash, agents)
	if f.Trace != nil {
		if spans, err = f.Trace(os.LookupEnv, p.Version, log); err != nil {
			return p, spans, err
		}
	}
	if namespace := os.Getenv(emf.Variable); namespace != "" {
		spans.Tracer = meter.Tracer(spans.Tracer, &emf.Metrics{Namespace: namespace, To: os.Stdout, Now: assemble.Now})
	}
	p.Tracer = spans.Tracer
	if f.Agents != nil {
		if p.Agents, err = f.Agents(cfg, os.LookupEnv); err != nil {
			return p, spans, err
		}
	}
	if url := os.Getenv("KEYWAY_QUEUE_URL"); url != "" && f.Queue != nil {
		if p.Queue, err = f.Queue(url, os.LookupEnv); err != nil {
			return p, spans, err
		}
		// A frozen function polls nothing. Each run therefore leaves a delayed message
		// in the queue, which wakes a worker if the run's process crashes.
		p.Watch = true
	}
	if f.Agents != nil || assemble.Stores(f.Name) {
		if p.DB, err = Database(cfg); err == nil {
			// A request with a token is refused until the first read has shown that the schema fits, and each
			// read also reads who owns what, which `keyway owners move` can change. Anonymous requests read
			// nothing, so that they learn nothing about the database.
			p.Revocations = revoke.New(p.DB.CheckedRevocations, assemble.Now, log)
		}
	}
	return p, spans, err
}

// maxConns is the size of a function's connection pool. Lambda gives an instance one
// request at a time, which needs one connection; the second is for the renewal of the
// run's lease while the first is in use or does not answer.
const maxConns = 2

// connectTimeout is how long a function waits for a connection. Aurora that has paused
// needs about 15 seconds for the first one, and API Gateway waits 29 seconds.
const connectTimeout = 20 * time.Second

// Database opens the store of the configuration's database. It makes no connection yet.
//
// Statements are unnamed: a named prepared statement can pin the connection of RDS Proxy
// to one client, and costs a new instance one more round trip.
func Database(cfg *config.Config) (*store.DB, error) {
	at, err := Address(cfg)
	if err != nil {
		return nil, err
	}
	return store.Open(store.Options{
		URL: at.URL, Address: at.Secret, Password: at.Password, Secure: at.Secure,
		Schema: cfg.Database.Schema, MaxConns: maxConns, ConnectTimeout: connectTimeout, Unnamed: true,
	})
}
