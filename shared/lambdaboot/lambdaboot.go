// Package lambdaboot is what each Lambda function behind API Gateway does once: it reads
// its configuration, opens the store and starts to answer, or says in one line what is
// in the way.
// It knows no vendor; the agents of a function that runs them are handed in.
package lambdaboot

import (
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/assemble"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/config/deployed"
	"github.com/keyway-agents/keyway/shared/edge"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/lambdahttp"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
)

// Function is one function of the route table.
type Function struct {
	Name    route.Function
	Without []config.Part // of keyway.yaml, what it does not act on
	// Agents opens the agents that it runs; nil: it runs none, and sends no streams.
	Agents func(*config.Config, func(string) (string, bool)) ([]run.Agent, error)
	// Queue opens the queue of the runs that wait, which KEYWAY_QUEUE_URL names. Without
	// that variable, as on sam local, they are carried where they are started.
	Queue func(url string, lookup func(string) (string, bool)) (queue.Queue, error)
}

// Serve answers the function's routes, and does not return.
func Serve(f Function) {
	log := logging.NewLogger(os.Stderr, false)
	o, err := f.open(log)
	if err != nil {
		logging.Exit(log, "the function "+string(f.Name), err)
	}
	lambdahttp.Start(o)
}

// Worker prepares what carries runs without answering requests. Its schema is to be
// checked before the first.
func (f Function) Worker(log *slog.Logger) (*run.Runner, *store.DB, error) {
	p, err := f.parts(log)
	if err != nil {
		return nil, nil, err
	}
	return assemble.For(route.Runs, p).Runner, p.DB, nil
}

func (f Function) open(log *slog.Logger) (o lambdahttp.Options, err error) {
	p, err := f.parts(log)
	if err != nil {
		return o, err
	}
	o = lambdahttp.Options{Log: log, Streamed: f.Agents != nil && os.Getenv("AWS_SAM_LOCAL") != "true"} // which can't pass a stream on
	service := assemble.For(f.Name, p)
	if service.Runner != nil {
		o.Settle = service.Runner.Wait
	}
	o.Handler = api.CORS(p.Config.CORS.Origins, current(p.DB, service.Handler))
	return o, nil
}

// parts are what the function is made of.
func (f Function) parts(log *slog.Logger) (p assemble.Parts, err error) {
	cfg, err := deployed.Config(f.Without...)
	if err != nil {
		return p, err
	}
	policy, err := edge.Policy(cfg)
	if err != nil {
		return p, err
	}
	p = assemble.Parts{
		Config: cfg, Policy: policy, Log: log, Version: assemble.ThisBuild().Version, Started: time.Now(), Decisions: authz.NewLog(log, cfg.Digest),
	}
	if f.Agents != nil {
		if p.Agents, err = f.Agents(cfg, os.LookupEnv); err != nil {
			return p, err
		}
	}
	if url := os.Getenv("KEYWAY_QUEUE_URL"); url != "" && f.Queue != nil {
		if p.Queue, err = f.Queue(url, os.LookupEnv); err != nil {
			return p, err
		}
		p.Watch = true // a function looks for nothing while nobody calls it
	}
	if f.Agents != nil || assemble.Stores(f.Name) {
		p.DB, err = Database(cfg)
	}
	return p, err
}

// current asks once whether the schema is the one that this program was written for.
// Who names no caller gets no such answer: it is for those whom a route is open to.
func current(db *store.DB, next http.Handler) http.Handler {
	if db == nil {
		return next
	}
	var checked atomic.Bool
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, _ := authz.From(r.Context()); p != nil && !checked.Load() {
			if err := db.Check(r.Context()); err != nil {
				logging.Note(r.Context(), "err", err.Error())
				fault.Write(w, err)
				return
			}
			checked.Store(true)
		}
		next.ServeHTTP(w, r)
	})
}

// maxConns is enough for one request at a time, which is all that a function gets, and
// for the pulse of its run.
const maxConns = 2

// Database prepares the store; nothing is asked of it yet.
func Database(cfg *config.Config) (*store.DB, error) {
	at, err := Address(cfg)
	if err != nil {
		return nil, err
	}
	return store.Open(store.Options{
		URL: at.URL, Address: at.Secret, Password: at.Password, Secure: at.Secure, Schema: cfg.Database.Schema, MaxConns: maxConns,
		Unnamed: true, // a named statement may pin RDS Proxy, and costs a cold start a round trip
	})
}
