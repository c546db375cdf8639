package api

import (
	"context"
	"net/http"

	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/wire"
)

// whoami answers what this server reads in the caller's token.
func (o OS) whoami(_ context.Context, r *request, _ nothing) (who wire.WhoAmI, err error) {
	p := r.principal
	who = wire.WhoAmI{
		OSID: o.ID, Subject: p.Subject, Issuer: p.Issuer, Admin: r.decision.Admin, SessionID: p.SessionID,
		Scopes: make([]wire.ScopeFrom, len(p.Scopes)), UserIsolation: o.Isolation.On, Local: o.Local,
	}
	if who.UserID, who.UserIDOtherwise, err = o.OwnerOf(p); err != nil {
		return who, err
	}
	for i, text := range p.Scopes {
		who.Scopes[i] = wire.ScopeFrom{Scope: text, From: p.Origin(i)}
	}
	if !p.IssuedAt.IsZero() {
		who.IssuedAt = p.IssuedAt.Unix()
	}
	if !p.ExpiresAt.IsZero() {
		who.ExpiresAt = p.ExpiresAt.Unix()
	}
	if !p.Limits.None() {
		who.Limits = new(wire.CallerLimit(p.Limits))
	}
	return who, nil
}

// can is the input of POST /can.
type can struct {
	Body struct {
		Requests []struct {
			Method string `json:"method" required:"true" minlen:"1" bound:"short_text" doc:"Such as POST."`
			Path   string `json:"path" required:"true" minlen:"1" bound:"short_text" doc:"As it is sent, or a whole URL."`
		} `json:"requests" required:"true" bound:"decisions" doc:"The requests to decide about. None of them is executed."`
	} `body:"json"`
}

// can answers what would be decided about requests of the caller, by the decision itself. It looks at no data, so that
// it reveals nothing that the refusals of these requests would not.
func (o OS) can(_ context.Context, r *request, in can) (out wire.Decisions, err error) {
	caller := *r.principal
	caller.Absent = "" // it names claims of the configuration, which are for the operator
	out.Decisions = make([]wire.Decision, len(in.Body.Requests))
	for i, asked := range in.Body.Requests {
		d, err := o.Policy.DecideAt(&caller, asked.Method, asked.Path)
		if err != nil {
			return out, fault.Fields(fault.Field{
				Type: "value_error", Loc: []any{"body", "requests", i, "path"}, Input: asked.Path,
				Msg: "Value error, it is no path of a request; write it as in /agents/assistant/runs",
			})
		}
		out.Decisions[i] = decisionOf(d, o.AsWritten)
		out.Decisions[i].Method, out.Decisions[i].Path = asked.Method, asked.Path
	}
	return out, nil
}

// decisionOf converts a decision to what callers see.
func decisionOf(d authz.Decision, written func(string) string) wire.Decision {
	out := wire.Decision{
		Status: http.StatusOK, Allowed: d.Allow, Needs: d.Needs(), Granted: []wire.ScopeCovered{}, Missing: d.Lacks(),
		Reasons: d.Reasons(written),
	}
	if err := d.Err(""); err != nil {
		out.Status = fault.KindOf(err).Status()
	}
	if d.Route != nil {
		out.Route = string(d.Route.Name)
	}
	for _, g := range d.Granted() {
		out.Granted = append(out.Granted, wire.ScopeCovered(g))
	}
	return out
}
