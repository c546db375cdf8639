// Package audit writes and searches the audit log: one line for each request that changed data, and for each one with
// which an administrator read the data of users. A line says who did what to whose data, from where and with which
// result. Names are keyed hashes; see package loghash.
package audit

import (
	"context"
	"log/slog"
	"slices"

	"github.com/keyway-agents/keyway/shared/logging"
	"github.com/keyway-agents/keyway/shared/loghash"
)

// message is the text of each line.
const message = "audit"

// Log writes the lines. A nil *Log writes nothing.
type Log struct {
	out    *slog.Logger
	keys   loghash.Keys
	agents []string
}

// New returns a log that writes to out. agents are the ids of the declared agents.
func New(out *slog.Logger, keys loghash.Keys, agents []string) *Log { return &Log{out, keys, agents} }

// Request is what is known of a request before it is answered.
type Request struct {
	// ID is the id in the header X-Request-Id.
	ID string
	// ClientID is the id that the caller gave the request, or "".
	ClientID string
	// Actor is the hash of the caller.
	Actor string
	// Admin reports that the caller is an administrator.
	Admin bool
	// Action is the name of the route, and Route its method and pattern.
	Action, Route string
	// Agent is the id in the path of a route about an agent, or "". A line has that of a declared agent only: any other
	// text is the caller's.
	Agent string
	// Source is the address that the request came from.
	Source string
	// Silent is whether the request has no line unless Agent is called: a door's request may do nothing.
	Silent bool
}

// Record is one line in the making. A nil *Record is of a request that is not audited. It is used by one goroutine.
type Record struct {
	log     *Log
	request Request
	all     bool
	owners  []string
	kind    string
	objects []string
	count   int
}

// Begin begins the line of a request.
func (l *Log) Begin(r Request) *Record {
	if l == nil {
		return nil
	}
	return &Record{log: l, request: r}
}

const (
	// maxObjects is how many objects a line names. It always has their number.
	maxObjects = 100
	// maxOwners is how many owners a line names.
	maxOwners = 20
)

// AllOwners notes that the request may reach the data of every owner. Owner is more exact.
func (r *Record) AllOwners() {
	if r != nil {
		r.all = true
	}
}

// Owner notes an owner of the data by the name in the database. "" is no owner.
func (r *Record) Owner(name string) {
	if r == nil || name == "" {
		return
	}
	h := r.log.keys.Hash(kindOwner, name)
	if h != "" && len(r.owners) < maxOwners && !slices.Contains(r.owners, h) {
		r.owners = append(r.owners, h)
	}
}

// Agent notes the agent of a request whose path names none.
func (r *Record) Agent(id string) {
	if r != nil {
		r.request.Agent, r.request.Silent = id, false
	}
}

// Object notes objects of a kind, such as "session", by their ids. The last kind counts.
func (r *Record) Object(kind string, ids ...string) {
	if r == nil {
		return
	}
	r.kind, r.count, r.objects = kind, len(ids), nil
	for _, id := range ids[:min(len(ids), maxObjects)] {
		if h := r.log.keys.Hash(kind, id); h != "" {
			r.objects = append(r.objects, h)
		}
	}
}

// Subject notes that the object is a caller, by the hash that the decisions have of this caller.
func (r *Record) Subject(issuer, subject string) {
	if r == nil {
		return
	}
	r.kind, r.count, r.objects = "subject", 1, nil
	if h := r.log.keys.Subject(issuer, subject); h != "" {
		r.objects = []string{h}
	}
}

// Write writes the line. status is that of the answer.
func (r *Record) Write(ctx context.Context, status int) {
	if r == nil || r.request.Silent {
		return
	}
	q := r.request
	a := make([]slog.Attr, 0, 14)
	text := func(name, value string) {
		if value != "" {
			a = append(a, slog.String(name, value))
		}
	}
	text("request_id", q.ID)
	text("client_request_id", q.ClientID)
	text("actor", q.Actor)
	if q.Admin {
		a = append(a, slog.Bool("admin", true))
	}
	text("action", q.Action)
	text("route", q.Route)
	if slices.Contains(r.log.agents, q.Agent) {
		text("agent", q.Agent)
	}
	text("object", r.kind)
	if len(r.objects) > 0 {
		a = append(a, slog.Any("objects", r.objects))
	}
	if r.count > len(r.objects) {
		a = append(a, slog.Int("count", r.count))
	}
	switch {
	case len(r.owners) > 0:
		a = append(a, slog.Any("owners", r.owners))
	case r.all:
		a = append(a, slog.Bool("all_owners", true))
	}
	text("source", q.Source)
	a = append(a, slog.Int("status", status))
	logging.Write(ctx, r.log.out, slog.LevelInfo, message, a...)
}

// kindOwner is the kind of an owner's hash.
const kindOwner = "owner"

// kinds are the kinds of objects that a line can have.
var kinds = []string{"session", "run", "memory", "token"}
