// Package assemble builds the object graph of one OS from its checked
// configuration. Models are handed in, so that no vendor is linked by it.
package assemble

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/model"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Parts are what a service is made of. DB is needed where Stores says so, and each
// agent's Model and Tools where runs are answered; the rest is required.
type Parts struct {
	Config  *config.Config
	Policy  *authz.Policy
	Agents  []run.Agent // in the order they are listed; nil: keyway.yaml's, which nobody runs
	DB      *store.DB
	Queue   queue.Queue
	Watch   bool // as in run.Options
	Log     *slog.Logger
	Version string
	Started time.Time

	Decisions *authz.Log
}

// Service answers a part of the table.
type Service struct {
	Handler http.Handler // asks for a principal in the request's context
	Runner  *run.Runner  // nil: it runs nothing
}

// functions are the parts of the table, each with a function of its own.
var functions = []route.Function{route.Settings, route.Agents, route.Runs, route.Sessions, route.Memories}

// All builds the service with every resource, for the local server.
func All(p Parts) Service { return build(p, functions) }

// For builds what one function answers with: its own routes and no others.
func For(f route.Function, p Parts) Service { return build(p, []route.Function{f}) }

// Stores reports whether what the function answers lies in the database.
func Stores(f route.Function) bool { return f != route.Settings && f != route.Agents }

func build(p Parts, served []route.Function) (s Service) {
	isolation := api.Isolation{On: p.Config.Auth.UserIsolation, ByIssuer: p.Config.Auth.SeveralIssuers()}
	listed := p.listed()
	list := api.Agents{List: listed}
	var resources []api.Resource
	for _, f := range served {
		switch f {
		case route.Settings:
			resources = append(resources, api.OS{
				ID: p.Config.ID, Name: p.Config.Name, Description: p.Config.Description, Version: p.Version, Digest: p.Config.Digest,
				Isolation: isolation, Agents: listed, Policy: p.Policy, Started: p.Started,
			})
		case route.Agents:
			resources = append(resources, list)
		case route.Runs:
			s.Runner = run.New(run.Options{DB: p.DB, Agents: p.Agents, Log: p.Log, Now: time.Now, NewID: uuid.New, Queue: p.Queue, Watch: p.Watch, Admit: p.admit})
			resources = append(resources, api.Runs{DB: p.DB, Runner: s.Runner, Agents: list, Isolation: isolation, Now: time.Now, NewID: uuid.New})
		case route.Sessions:
			resources = append(resources, api.Sessions{DB: p.DB, Isolation: isolation, Agents: listed, Now: time.Now, NewID: uuid.New})
		case route.Memories:
			resources = append(resources, api.Memories{DB: p.DB, Isolation: isolation, Now: time.Now, NewID: uuid.New})
		}
	}
	s.Handler = api.New(api.Options{
		Table: route.Table, Policy: p.Policy, Leeway: p.Config.Auth.Leeway, Log: p.Log, Decisions: p.Decisions, Now: time.Now,
	}, resources...)
	return s
}

// listed are the agents as callers see them.
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
		listed = append(listed, api.Describe(a.Agent, wire.AgentModel{Name: about.Name, Model: about.ID, Provider: about.Provider}))
	}
	return listed
}

// admit decides again, by the policy in force, about a run that is taken up: what was
// asked for then, asked now.
func (p Parts) admit(c run.Caller) error {
	began := time.Now()
	caller := &authz.Principal{Subject: c.Subject, Issuer: c.Issuer, SessionID: c.SessionID, Scopes: c.Scopes}
	d := p.Policy.Decide(caller, http.MethodPost, c.Path)
	err := d.Err("")
	p.Decisions.Write(context.Background(), authz.Entry{Method: http.MethodPost, Principal: caller, Decision: d, Err: err, Began: began})
	return err
}
