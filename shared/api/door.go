package api

import (
	"net/url"
	"time"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/wire"
)

// A door is a protocol beside AgentOS's. Its package in shared/door only translates. Its handlers are in this
// package and start, continue and read runs in the same way as the handlers of AgentOS's routes. A door decides
// nothing itself: each request that names an agent, a run or a tool is decided as the request to AgentOS's route
// would be; see as.

// encoder writes the events of one run in the protocol of a door. It is for one stream and one goroutine.
type encoder interface {
	// Event returns the frames of an event of the run: none for one that the protocol doesn't show.
	Event(wire.Event) []byte
	// HandedOver returns the last frames of a stream whose run another process continues.
	HandedOver(wire.Accepted) []byte
}

// as returns the request as one to the named route of AgentOS's API with these parameters in its path, if the policy
// allows that one too. The handlers of a door call it as soon as they know the agent, and before anything is stored.
// The decision is made by the same function, and has its own line in the decision log.
//
// A parameter that no path can name, such as one with a slash, is fault.NotFound.
func (r *request) as(name route.Name, params map[string]string) (*request, error) {
	ctx, began := r.Context(), time.Now()
	caller := r.principal.Admitted()
	d, address := r.server.decideAs(caller, name, params)
	err := d.Err(logging.RequestID(ctx))
	if d.Route != nil {
		r.server.Decisions.Write(ctx, authz.Entry{
			RequestID: logging.RequestID(ctx), Method: d.Route.Method, Source: logging.Source(ctx), Principal: caller,
			Decision: d, Err: err, Began: began,
		})
	}
	if err != nil {
		return nil, err
	}
	if isAudited(d) {
		r.audit.Agent(params["agent_id"])
	}
	inner := r.WithContext(authz.WithDecision(ctx, caller, d))
	inner.Method, inner.URL = d.Route.Method, address
	out := *r
	out.Request, out.principal, out.decision = inner, caller, d
	return &out, nil
}

// may reports whether as would return no error. It writes no line in the decision log.
func (r *request) may(name route.Name, params map[string]string) bool {
	d, _ := r.server.decideAs(r.principal.Admitted(), name, params)
	return d.Allow
}

// decideAs decides about a request to the named route with these parameters in its path.
func (s *Server) decideAs(p *authz.Principal, name route.Name, params map[string]string) (authz.Decision, *url.URL) {
	for to := range s.Policy.Table().All() {
		if to.Name != name {
			continue
		}
		address := &url.URL{Path: to.Path(func(param string) string { return params[param] })}
		d := s.Policy.DecideURL(p, to.Method, address)
		// Parameters are texts of the client. With a slash in it, one could lead to another route than the named one.
		same := d.Route == to
		for param, value := range d.Params {
			same = same && params[param] == value
		}
		if same {
			return d, address
		}
	}
	return authz.Decision{}, nil
}

// runnable returns the agents of the OS that the caller may run, in the order of keyway.yaml.
func (a Runs) runnable(r *request) (list []wire.Agent) {
	for _, agent := range a.Agents.List {
		if r.may(route.CreateRun, map[string]string{"agent_id": agent.ID}) {
			list = append(list, agent)
		}
	}
	return list
}
