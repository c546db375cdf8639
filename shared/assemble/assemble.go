// Package assemble builds the HTTP service of one OS, or of one Lambda function, from its
// checked configuration. Opened agents are passed in, so that a program without agents
// links no model provider.
package assemble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/door/mcp"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/follow"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/loghash"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/notes"
	"github.com/keyway-agents/keyway/shared/owner"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/revoke"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/trace"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Parts are the dependencies of a service.
type Parts struct {
	// Config is the checked configuration. Required.
	Config *config.Config
	// Policy decides every request. Required.
	Policy *authz.Policy
	// Agents are the opened agents, in the order in which they are listed. They need a
	// Model and Tools in a service that executes runs. Defaults to the agents of Config,
	// which can be listed and not executed.
	Agents []run.Agent
	// DB is the store. Required for the functions for which Stores is true.
	DB *store.DB
	// Revocations are the revoked tokens, as this process knows them. One list serves all configurations of a process.
	// Defaults to a list of DB. Without a DB, no token is checked, and it is valid until it expires.
	Revocations *revoke.List
	// Queue delivers background runs to workers. Defaults to none: background runs
	// execute in this process.
	Queue queue.Queue
	// Watch has the meaning of run.Options.Watch. Defaults to false.
	Watch bool
	// MaxRuns has the meaning of run.Options.MaxRuns. Defaults to no bound.
	MaxRuns int
	// MaxAnswer has the meaning of api.Sessions.MaxAnswer. Defaults to no limit.
	MaxAnswer int
	// Log receives the log lines. Required.
	Log *slog.Logger
	// Version is shown by the routes about the OS.
	Version string
	// Started is shown by GET /health.
	Started time.Time
	// Decisions records each authorization decision. Defaults to no log.
	Decisions *authz.Log
	// Hash makes the hashes that stand in logs for callers, owners and objects. Defaults to none.
	Hash loghash.Keys
	// Local answers the routes that only keyway serve has, and Dev those that it has with --dev. Default to none.
	Local *api.Local
	Dev   *api.Dev
	// Audit records who changed which data, and what administrators read. Defaults to no log.
	Audit *audit.Log
	// Tracer makes the spans of runs. Defaults to none.
	Tracer trace.Tracer
}

// Service answers all routes of the table, or those of one function.
type Service struct {
	// Handler answers the requests. It takes the principal from the request's context
	// (authz.WithPrincipal), and decides again whether the principal is allowed to make
	// the request: the edge's policy can be wider than the decision, and cached.
	Handler http.Handler
	// Runner executes the runs. It is nil for a function without runs.
	Runner *run.Runner
	// Followers returns how many clients follow runs. It is nil for a function without runs.
	Followers func() int
}

// functions are the parts of the route table. Each is served by its own Lambda function, unless OnAWS says otherwise.
var functions = []route.Function{route.Settings, route.Agents, route.Runs, route.Sessions, route.Memories,
	route.LocalServer, route.DevServer}

// All builds the service with every resource, for the local server.
func All(p Parts) Service { return build(p, functions) }

// For builds the service of one Lambda function. It answers the routes of f, and no others.
func For(f route.Function, p Parts) Service { return build(p, []route.Function{f}) }

// Stores reports whether the routes of f need the database.
func Stores(f route.Function) bool { return f != route.Settings && f != route.Agents && f.OnAWS() }

// build builds the resources of the served functions and one server for all of them.
func build(p Parts, served []route.Function) (s Service) {
	if p.Revocations == nil && p.DB != nil {
		p.Revocations = revoke.New(p.DB.Revocations, Now, p.Log)
	}
	isolation := api.Isolation{On: p.Config.Auth.UserIsolation, Owners: p.owners()}
	listed := p.listed()
	list := api.Agents{List: listed}
	var resources []api.Resource
	for _, f := range served {
		switch f {
		case route.Settings:
			resources = append(resources, api.OS{
				ID: p.Config.ID, Name: p.Config.Name, Description: p.Config.Description,
				Version: p.Version, Digest: p.Config.Digest,
				Isolation: isolation, Agents: listed, Policy: p.Policy, Local: slices.Contains(served, route.LocalServer),
				Started: p.Started,
				MCP:     p.mcp(),
				OwnerOf: p.ownerOf, AsWritten: p.Config.AsWritten,
			})
		case route.Agents:
			resources = append(resources, list)
		case route.Runs:
			s.Runner = run.New(run.Options{
				DB: p.DB, Agents: p.Agents, Log: p.Log, Now: Now, NewID: uuid.New,
				Queue: p.Queue, Watch: p.Watch, MaxRuns: p.MaxRuns, Admit: p.admit, Revoked: p.callerRevoked(),
				Limits: limit.Limits(p.Config.Limits), CallersLimited: callersLimited(p.Config.Auth), Prices: p.Config.Prices,
				Tracer: p.Tracer, Notify: p.Config.Notify,
			})
			reader := follow.New(p.DB)
			s.Followers = reader.Followers
			resources = append(resources, api.Runs{
				DB: p.DB, Runner: s.Runner, Follow: reader, Notes: p.models(), Agents: list,
				Isolation: isolation, Revoked: p.revoked(), Now: Now, NewID: uuid.New,
				Limits: limit.Limits(p.Config.Limits),
				MCP:    mcp.Server{ID: p.Config.ID, Name: p.Config.Name, Version: p.Version},
			}, api.UserData{DB: p.DB})
		case route.Sessions:
			resources = append(resources, &api.Readiness{Check: p.DB.Check, Now: Now}, api.Sessions{
				DB: p.DB, Isolation: isolation, Agents: listed, Now: Now, NewID: uuid.New, MaxAnswer: p.MaxAnswer,
			}, api.Revocations{DB: p.DB, List: p.Revocations, Issuers: revoke.IssuersOf(p.Config.Auth)},
				api.Metrics{DB: p.DB, Isolation: isolation, Now: Now})
		case route.LocalServer:
			if p.Local != nil {
				resources = append(resources, *p.Local)
			}
		case route.DevServer:
			if p.Dev != nil {
				resources = append(resources, *p.Dev)
			}
		case route.Memories:
			resources = append(resources, api.Memories{DB: p.DB, Isolation: isolation, Now: Now, NewID: uuid.New})
		}
	}
	s.Handler = api.New(api.Options{
		Bounds: p.Config.Bounds.Limits(),
		Policy: p.Policy, Leeway: p.Config.Auth.Leeway,
		Revoked: p.revoked(), RevokedNow: p.revokedNow(), Log: p.Log, Decisions: p.Decisions, Now: Now,
		Audit: p.Audit,
	}, resources...)
	return s
}

// owners returns the function that names the owners of data: by the record in the database, which knows
// every issuer that was in force when the database was last migrated. A file that was never in force
// may have a new issuer. If it could also mean that somebody owns other data, no name is guessed.
func (p Parts) owners() func() (*owner.Record, error) {
	file := p.Config.Auth.Owners()
	return func() (*owner.Record, error) {
		recorded := p.DB.Owners()
		if recorded == nil {
			return nil, fault.Public(fault.Unavailable, noOwners, errors.New("the database was not checked yet"))
		}
		r, err := recorded.Adopt(file, func() (map[string]bool, error) { return nil, owner.ErrStored })
		if err != nil {
			err = fmt.Errorf("%w; run keyway migrate with this keyway.yaml", err)
			return nil, fault.Public(fault.Unavailable, noOwners, err)
		}
		return r, nil
	}
}

// mcp describes the door for MCP, or is nil if it is closed.
func (p Parts) mcp() *wire.MCPOAuth {
	if !p.Config.Doors.MCP.Open() {
		return nil
	}
	return &wire.MCPOAuth{
		Resource: p.Config.PublicURL + config.MCPPath, AuthorizationServers: p.Config.AuthorizationServers(),
	}
}

// ownerOf returns the owner of a caller's data, and the one that it can be instead. With the database it is certain.
func (p Parts) ownerOf(c *authz.Principal) (name, otherwise string, err error) {
	if p.DB == nil {
		name, otherwise = p.Config.Auth.Owners().Likely(c.Realm, c.Issuer, c.Subject)
		return name, otherwise, nil
	}
	recorded, err := p.owners()()
	if err != nil {
		return "", "", err
	}
	return recorded.Name(c.Realm, c.Issuer, c.Subject), "", nil
}

// noOwners is what callers see of a file that doesn't fit the database. The log has the reason, which
// names issuers.
const noOwners = "The owner of the data is not known; the operator has to migrate the database"

// listed returns the agents as callers see them. An opened model describes itself; for one
// that is not opened the description follows from its provider and id.
func (p Parts) listed() (listed []wire.Agent) {
	agents := p.Agents
	if agents == nil {
		for _, a := range p.Config.Agents {
			agents = append(agents, run.Agent{Agent: a})
		}
	}
	for _, a := range agents {
		about := model.Describe(a.Agent.Model.Provider, a.Agent.Model.ID)
		if a.Model != nil {
			about = a.Model.Describe()
		}
		shown := wire.AgentModel{Name: about.Name, Model: about.ID, Provider: about.Provider}
		listed = append(listed, api.Describe(a.Agent, shown))
	}
	return listed
}

// models returns the opened models of the agents, in the order of the agents.
func (p Parts) models() (models notes.Models) {
	for _, a := range p.Agents {
		name := a.Agent.Model.Provider + ":" + a.Agent.Model.ID
		price, _ := p.Config.Prices.Of(a.Agent.Model)
		models = append(models, notes.Model{
			Model: a.Model, Name: name, Timeout: a.Timeout,
			Cost: func(u model.Usage) int64 { return run.Cost(price, u) },
		})
	}
	return models
}

// admit decides again whether a run is allowed, when a process claims or resumes it. The
// caller and the path are those of the original request; the policy is the current one. So
// a run that the operator has forbidden in the meantime doesn't continue.
func (p Parts) admit(c run.Caller) error {
	began := time.Now()
	caller := &authz.Principal{
		Subject: c.Subject, Issuer: c.Issuer, Realm: c.Realm, SessionID: c.SessionID, Scopes: c.Scopes,
		Hash: p.Hash.Subject(c.Issuer, c.Subject),
	}
	d := p.Policy.Decide(caller, http.MethodPost, c.Path)
	err := d.Err("")
	p.Decisions.Write(context.Background(), authz.Entry{
		Method: http.MethodPost, Principal: caller, Decision: d, Err: err, Began: began,
	})
	return err
}

// callersLimited reports whether the token of some caller can have limits.
func callersLimited(a config.Auth) bool {
	return len(a.Limits) > 0 || a.Claims.Limits.Names() != nil || slices.ContainsFunc(a.Keys, func(k config.Key) bool {
		return len(k.Limits) > 0 || k.Claims.Limits.Names() != nil
	})
}

// revoked returns the check of a request's token, or nil in a function without a database.
func (p Parts) revoked() func(context.Context, *authz.Principal) error {
	if p.Revocations == nil {
		return nil
	}
	token := p.token()
	return func(ctx context.Context, c *authz.Principal) error { return p.Revocations.Check(ctx, token(c)) }
}

// revokedNow is revoked for what only administrators do: the list is read for each request.
func (p Parts) revokedNow() func(context.Context, *authz.Principal) error {
	if p.Revocations == nil {
		return nil
	}
	token := p.token()
	return func(ctx context.Context, c *authz.Principal) error { return p.Revocations.CheckNow(ctx, token(c)) }
}

// token returns the function that describes a caller's token to the list of revocations. Its issuer
// has the names that the file gives it, and those that any earlier file gave it: an edit of the file
// must not end a revocation.
func (p Parts) token() func(*authz.Principal) revoke.Token {
	issuers, adopted := revoke.IssuersOf(p.Config.Auth), p.owners()
	return func(c *authz.Principal) revoke.Token {
		of := func(r store.Revocation) bool {
			if slices.Contains(issuers.Of(c.Realm, c.Issuer), r.Issuer) {
				return true
			}
			recorded, err := adopted()
			if err != nil { // The data can't be read then, but the other routes are answered.
				recorded = p.DB.Owners()
			}
			return recorded != nil && recorded.Means(r.Issuer, r.MadeAt, c.Realm, c.Issuer)
		}
		return revoke.Token{Of: of, ID: c.TokenID, Subject: c.Subject, IssuedAt: c.IssuedAt}
	}
}

// callerRevoked returns the check of the caller who is stored with a run.
func (p Parts) callerRevoked() func(context.Context, run.Caller) error {
	check := p.revoked()
	if check == nil {
		return nil
	}
	return func(ctx context.Context, c run.Caller) error {
		caller := &authz.Principal{Subject: c.Subject, Issuer: c.Issuer, Realm: c.Realm, TokenID: c.TokenID}
		if c.IssuedAt != 0 {
			caller.IssuedAt = time.Unix(c.IssuedAt, 0)
		}
		return check(ctx, caller)
	}
}
