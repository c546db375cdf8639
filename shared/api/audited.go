package api

import (
	"net/http"

	"github.com/keyway-agents/keyway/shared/audit"
	"github.com/keyway-agents/keyway/shared/authz"
	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/route"
)

// isAudited reports whether the audit log has a line for an allowed request: for one that changes data, and for one
// with which an administrator reads the data of users. Routes that every valid token opens do neither, and those of the
// local server don't either.
func isAudited(d authz.Decision) bool {
	r := d.Route
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Name == route.ResumeRun
	ofUsers := r.Function == route.Runs || r.Function == route.Sessions || r.Function == route.Memories
	return !r.Public && !r.AnyToken && r.Function != route.LocalServer && (!reads || d.Admin && ofUsers)
}

// record begins the line of an allowed request in the audit log. The handler adds the owner, and what only it knows.
func (s *Server) record(r *http.Request, p *authz.Principal, d authz.Decision) *audit.Record {
	if !isAudited(d) || p == nil {
		return nil
	}
	q := audit.Request{
		ID: logging.RequestID(r.Context()), ClientID: logging.ClientRequestID(r.Context()), Actor: p.Hash,
		Admin: d.Admin, Action: string(d.Route.Name), Route: d.Route.String(), Agent: d.Params["agent_id"],
		Source: logging.Source(r.Context()), Silent: d.Route.Addressed,
	}
	line := s.Audit.Begin(q)
	for _, kind := range []string{"session", "memory", "run"} { // the most exact one is the last
		if id := d.Params[kind+"_id"]; id != "" {
			line.Object(kind, id)
		}
	}
	return line
}

// auditing is a response whose line in the audit log is written before its first byte, so that no caller has an answer
// that the log doesn't know.
type auditing struct {
	http.ResponseWriter
	request *http.Request
	record  *audit.Record
	written bool
}

// write writes the line once.
func (a *auditing) write(status int) {
	if !a.written {
		a.written = true
		a.record.Write(a.request.Context(), status)
	}
}

// WriteHeader implements http.ResponseWriter.
func (a *auditing) WriteHeader(status int) {
	a.write(status)
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *auditing) Write(p []byte) (int, error) {
	a.write(http.StatusOK)
	return a.ResponseWriter.Write(p)
}

// FlushError sends what was written so far, and the headers at least.
func (a *auditing) FlushError() error {
	a.write(http.StatusOK)
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Unwrap returns the underlying writer, for http.ResponseController.
func (a *auditing) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// end writes the line of a request whose handler has written nothing, or has panicked: then the caller gets a 500.
func (a *auditing) end() {
	if p := recover(); p != nil {
		a.write(http.StatusInternalServerError)
		panic(p)
	}
	a.write(http.StatusOK)
}
