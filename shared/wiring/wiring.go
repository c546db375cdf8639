// Package wiring builds the object graph of one OS from its checked
// configuration. Models are handed in, so that no vendor is linked by it.
package wiring

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/keyway-agents/keyway/shared/api"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/config"
	"github.com/keyway-agents/keyway/shared/queue"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/run"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Parts are what a service is made of; all are required.
type Parts struct {
	Config  *config.Config
	Policy  *authz.Policy
	Agents  []run.Agent // with their models and tools, in the order they are listed
	DB      *store.DB
	Queue   queue.Queue
	Log     *slog.Logger
	Version string
	Started time.Time

	Decisions *authz.Log
}

// Service answers the whole table.
type Service struct {
	Handler http.Handler // asks for a principal in the request's context
	Runner  *run.Runner
}

// All builds the service with every resource, for the local server.
func All(p Parts) Service {
	isolation := api.Isolation{On: p.Config.Auth.UserIsolation, ByIssuer: p.Config.Auth.SeveralIssuers()}
	var listed []wire.Agent
	for _, a := range p.Agents {
		about := a.Model.Describe()
		listed = append(listed, api.Describe(a.Agent, wire.AgentModel{Name: about.Name, Model: about.ID, Provider: about.Provider}))
	}
	runner := run.New(run.Options{DB: p.DB, Agents: p.Agents, Log: p.Log, Now: time.Now, NewID: uuid.New, Queue: p.Queue, Admit: p.admit})
	list := api.Agents{List: listed}
	server := api.New(api.Options{Table: route.Table, Policy: p.Policy, Leeway: p.Config.Auth.Leeway, Log: p.Log, Decisions: p.Decisions, Now: time.Now},
		api.OS{
			ID: p.Config.ID, Name: p.Config.Name, Description: p.Config.Description, Version: p.Version, Digest: p.Config.Digest,
			Isolation: isolation, Agents: listed, Policy: p.Policy, Started: p.Started,
		},
		list,
		api.Runs{DB: p.DB, Runner: runner, Agents: list, Isolation: isolation, Now: time.Now, NewID: uuid.New},
		api.Sessions{DB: p.DB, Isolation: isolation, Agents: listed, Now: time.Now, NewID: uuid.New},
		api.Memories{DB: p.DB, Isolation: isolation, Now: time.Now, NewID: uuid.New},
	)
	return Service{Handler: server, Runner: runner}
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
