package store_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/limit"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/store/storetest"
)

// account is one of those whose use is counted, as the model expects it.
type account struct {
	whose         limit.Whose
	key           string
	limits        limit.Limits
	begun, tokens int
}

// counted is a run as the model expects it. One that was deleted while a leg executed it stays RUNNING until it is
// settled.
type counted struct {
	run     store.Run
	spender string
	status  string // "" is a run that was refused, or has been deleted
	expired bool   // its lease
	deleted bool
	legs    []store.Leg // the last one is the present one
}

func (c *counted) leg() store.Leg { return c.legs[len(c.legs)-1] }

// ledger is the model of what is counted.
type ledger struct {
	t         *testing.T
	processes []*process
	accounts  []*account
	runs      []*counted
}

// account returns the account of a caller, an agent or the OS.
func (m *ledger) account(whose limit.Whose, key string) *account {
	i := slices.IndexFunc(m.accounts, func(a *account) bool { return a.whose == whose && a.key == key })
	return m.accounts[i]
}

// of are the accounts to which a run of a caller belongs.
func (m *ledger) of(spender, agent string) []*account {
	return []*account{m.account(limit.Caller, spender), m.account(limit.Agent, agent), m.account(limit.OS, "")}
}

func (m *ledger) budget(spender, agent string) store.Budget {
	a := m.of(spender, agent)
	return store.Budget{Spender: spender, Caller: a[0].limits, Agent: a[1].limits, OS: a[2].limits}
}

// places counts the runs of an account with this status. A run whose process has crashed is in no place.
func (m *ledger) places(a *account, status string) (n int) {
	for _, c := range m.runs {
		mine := a.whose == limit.OS || a.whose == limit.Agent && c.run.AgentID == a.key ||
			a.whose == limit.Caller && c.spender == a.key
		if mine && c.status == status && !c.expired {
			n++
		}
	}
	return n
}

// uses are the limits of an account with what is used of them.
func (m *ledger) uses(a *account) map[limit.Name]int {
	return map[limit.Name]int{
		limit.ConcurrentRuns: m.places(a, "RUNNING"), limit.WaitingRuns: m.places(a, "PENDING"),
		limit.RunsPerDay: a.begun, limit.TokensPerDay: a.tokens,
	}
}

// wants checks the answer to a run that asks for these limits. It reports whether the run is allowed. If several limits
// are reached, the answer names one with the longest wait: those of a day before those of places.
func (m *ledger) wants(r *rapid.T, err error, spender, agent string, names ...limit.Name) bool {
	var days, places []string
	for _, a := range m.of(spender, agent) {
		for name, used := range m.uses(a) {
			most := int(a.limits.Of(name))
			if most == 0 || used < most || !slices.Contains(names, name) {
				continue
			}
			text := fmt.Sprintf(`"limit":{"name":%q,"of":%q,"limit":%d,"used":%d,`, name, a.whose, most, used)
			if name == limit.RunsPerDay || name == limit.TokensPerDay {
				days = append(days, text)
			} else {
				places = append(places, text)
			}
		}
	}
	reached := days
	if len(days) == 0 {
		reached = places
	}
	if len(reached) == 0 {
		if err != nil {
			r.Fatalf("refused within all limits: %v", err)
		}
		return true
	}
	_, _, body := fault.Answer(err)
	named := func(text string) bool { return strings.Contains(string(body), text) }
	if !errors.Is(err, fault.LimitReached) || !slices.ContainsFunc(reached, named) {
		r.Fatalf("%v %s, want one of %v", err, body, reached)
	}
	return false
}

func (m *ledger) process(r *rapid.T) *store.DB {
	p := m.processes[rapid.IntRange(0, len(m.processes)-1).Draw(r, "process")]
	if rapid.IntRange(0, 39).Draw(r, "lost") == 0 { // It takes as long as many statements.
		p.tap.LoseAnswer()
	}
	return p.db
}

// any returns one of the runs that satisfy a condition.
func (m *ledger) any(r *rapid.T, so func(*counted) bool) *counted {
	var list []*counted
	for _, c := range m.runs {
		if so(c) {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		r.Skip("no such run")
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(r, "run")]
}

func (m *ledger) spender(r *rapid.T) string {
	return rapid.SampledFrom([]string{"ann", "bob", "eve"}).Draw(r, "spender")
}

func (m *ledger) agent(r *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b"}).Draw(r, "agent")
}

// caller is what is stored of the caller's limits with a run.
func caller(b store.Budget) json.RawMessage {
	return json.RawMessage(`{"limits":` + cmp.Or(b.Caller.Text(), "{}") + `}`)
}

func (m *ledger) begin(r *rapid.T) {
	c := &counted{spender: m.spender(r)}
	c.run = newRun(rapid.SampledFrom([]string{"RUNNING", "PENDING"}).Draw(r, "status"))
	c.run.AgentID = m.agent(r)
	m.runs = append(m.runs, c)
	m.begins(r, c)
}

// begins asks for a run, for the first time or again.
func (m *ledger) begins(r *rapid.T, c *counted) {
	b := m.budget(c.spender, c.run.AgentID)
	c.run.Caller = caller(b)
	err := start(m.t.Context(), m.process(r), c.run, b)
	place := limit.ConcurrentRuns
	if c.run.Status == "PENDING" {
		place = limit.WaitingRuns
	}
	if !m.wants(r, err, c.spender, c.run.AgentID, place, limit.RunsPerDay, limit.TokensPerDay) {
		return
	}
	c.status = c.run.Status
	c.legs = []store.Leg{{RunID: c.run.RunID, Attempt: c.run.Attempt, ID: c.run.RunID}}
	for _, a := range m.of(c.spender, c.run.AgentID) {
		a.begun++
	}
}

// beginAgain repeats the statement that began a run, at any time of its life, or one that was refused.
func (m *ledger) beginAgain(r *rapid.T) {
	c := m.any(r, func(c *counted) bool { return !c.deleted })
	if c.status == "" {
		m.begins(r, c)
		return
	}
	b := m.budget(c.spender, c.run.AgentID)
	if err := start(m.t.Context(), m.process(r), c.run, b); err != nil {
		r.Fatalf("a repeated begin: %v", err)
	}
}

// end ends or pauses a run with one of its legs, also with one that has lost it, and also again.
func (m *ledger) end(r *rapid.T) {
	c := m.any(r, func(c *counted) bool { return c.status != "" })
	l := c.legs[rapid.IntRange(0, len(c.legs)-1).Draw(r, "leg")]
	row, tokens := c.run, rapid.IntRange(0, 3).Draw(r, "tokens")
	row.Status, row.Metrics = rapid.SampledFrom([]string{"PAUSED", "COMPLETED", "ERROR"}).Draw(r, "status"),
		json.RawMessage("{}")
	_, err := m.process(r).FinishRun(m.t.Context(), l, row, nil, store.Usage{ModelID: "m", Total: tokens}, day)
	switch mine := l == c.leg() && !c.deleted; {
	case mine && c.status == row.Status: // It is a repetition.
		if err != nil {
			r.Fatalf("%s again: %v", row.Status, err)
		}
	case mine && c.status == "RUNNING":
		if err != nil {
			r.Fatal(err)
		}
		c.status, c.expired = row.Status, false
		m.spend(c, tokens)
	case !errors.Is(err, fault.Conflict):
		r.Fatalf("the end of a leg that has lost the run: %v", err)
	}
}

// spend adds tokens to the accounts of a run.
func (m *ledger) spend(c *counted, tokens int) {
	for _, a := range m.of(c.spender, c.run.AgentID) {
		a.tokens += tokens
	}
}

func (m *ledger) continues(r *rapid.T) {
	c := m.any(r, func(c *counted) bool { return c.status == "PAUSED" })
	l := store.Leg{RunID: c.run.RunID, Attempt: c.leg().Attempt, ID: uuid.New()}
	spender := m.spender(r)
	b := m.budget(spender, c.run.AgentID)
	row := c.run
	row.Caller = caller(b)
	for range rapid.IntRange(1, 2).Draw(r, "times") {
		again := c.leg() == l
		_, claimed, err := m.process(r).ContinueRun(m.t.Context(), row, l.ID, store.Request{}, b)
		switch {
		case again && (err != nil || !claimed):
			r.Fatalf("continued again: %t %v", claimed, err)
		case again:
		case m.wants(r, err, spender, c.run.AgentID, limit.ConcurrentRuns, limit.TokensPerDay):
			c.status, c.spender, c.legs = "RUNNING", spender, append(c.legs, l)
		}
	}
}

// crash lets the lease of a run expire.
func (m *ledger) crash(r *rapid.T) {
	c := m.any(r, func(c *counted) bool { return c.status == "RUNNING" })
	for _, table := range []string{"runs", "unsettled"} {
		m.execute(r, `UPDATE keyway.`+table+` SET lease_until = now() - interval '1 second' WHERE run_id = '`+
			c.run.RunID.String()+`'`)
	}
	c.expired = true
}

func (m *ledger) execute(r *rapid.T, sql string) {
	if err := store.Execute(m.t.Context(), m.processes[0].db, sql); err != nil {
		r.Fatal(err)
	}
}

// renew is what a process does that was suspended for longer than the lease.
func (m *ledger) renew(r *rapid.T) {
	c := m.any(r, func(c *counted) bool { return c.status == "RUNNING" && !c.deleted })
	if _, err := m.process(r).Pulse(m.t.Context(), []store.Leg{c.leg()}, true); err != nil {
		r.Fatal(err)
	}
	c.expired = false
}

func (m *ledger) requeue(r *rapid.T) {
	if _, err := m.process(r).RequeueExpired(m.t.Context()); err != nil {
		r.Fatal(err)
	}
	for _, c := range m.runs {
		if c.status == "RUNNING" && c.expired && !c.deleted {
			c.status, c.expired = "PENDING", false
		}
	}
}

func (m *ledger) claim(r *rapid.T) {
	c := m.any(r, func(c *counted) bool {
		return !c.deleted && (c.status == "PENDING" || c.status == "RUNNING")
	})
	places, full := store.Places{Callers: true, Agents: map[string]int{}}, false
	for _, a := range m.accounts {
		if n := a.limits.ConcurrentRuns; a.whose == limit.OS {
			places.OS = n
		} else if a.whose == limit.Agent && n > 0 {
			places.Agents[a.key] = n
		}
	}
	for _, a := range m.of(c.spender, c.run.AgentID) {
		n := a.limits.ConcurrentRuns
		full = full || n > 0 && m.places(a, "RUNNING") >= n
	}
	l := store.Leg{RunID: c.run.RunID, Attempt: c.leg().Attempt + 1, ID: uuid.New()}
	_, claimed, err := m.process(r).ClaimRun(m.t.Context(), c.run.RunID, l.ID, places)
	waits := c.status == "PENDING" || c.expired
	if _, noPlace := errors.AsType[*store.NoPlace](err); noPlace != (waits && full) || err != nil && !noPlace ||
		claimed != (waits && !full) {
		r.Fatalf("claimed %t, %v; the run waits: %t; no place: %t", claimed, err, waits, full)
	}
	switch {
	case claimed:
		c.status, c.expired, c.legs = "RUNNING", false, append(c.legs, l)
	case waits:
		c.status, c.expired = "PENDING", false
	}
}

// deleteSession deletes a run. One that a leg executes keeps its place if its use of a day counts.
func (m *ledger) deleteSession(r *rapid.T) {
	c := m.any(r, func(c *counted) bool { return !c.deleted && c.status != "" })
	if _, err := m.process(r).DeleteSessions(m.t.Context(), ann, []string{c.run.SessionID}, ""); err != nil {
		r.Fatal(err)
	}
	c.deleted = true
	isCounted := slices.ContainsFunc(m.of(c.spender, c.run.AgentID), func(a *account) bool { return a.limits.AtBegin() })
	if c.status != "RUNNING" || !isCounted {
		c.status = ""
	}
}

// settle frees the place of a deleted run, once.
func (m *ledger) settle(r *rapid.T) {
	c := m.any(r, func(c *counted) bool { return c.deleted && len(c.legs) > 0 })
	l := c.legs[rapid.IntRange(0, len(c.legs)-1).Draw(r, "leg")]
	if err := m.process(r).Settle(m.t.Context(), l, store.Usage{Total: 2}); err != nil {
		r.Fatal(err)
	}
	if l == c.leg() && c.status == "RUNNING" {
		c.status = ""
		m.spend(c, 2)
	}
}

// check compares what the store has counted for a caller with the model.
func (m *ledger) check(r *rapid.T) {
	spender, agent := m.spender(r), m.agent(r)
	got, err := m.processes[0].db.Uses(m.t.Context(), m.budget(spender, agent), agent)
	if err != nil {
		r.Fatal(err)
	}
	want := 0
	for _, a := range m.of(spender, agent) {
		for range a.limits.All() {
			want++
		}
		uses := m.uses(a)
		for _, u := range got {
			if u.Whose == a.whose && int(u.Used) != uses[u.Name] {
				r.Fatalf("%s of %s %s: %v used, want %d", u.Name, a.whose, a.key, u.Used, uses[u.Name])
			}
		}
	}
	if len(got) != want {
		r.Fatalf("%d limits, want %d", len(got), want)
	}
}

// limits draws the limits of an account. It has none of a day shortly before the day ends.
func drawLimits(r *rapid.T, most int) (l limit.Limits) {
	l.ConcurrentRuns = rapid.IntRange(0, most).Draw(r, "concurrent")
	l.WaitingRuns = rapid.IntRange(0, most).Draw(r, "waiting")
	if time.Until(time.Now().Truncate(24*time.Hour).Add(24*time.Hour)) > 5*time.Minute {
		l.RunsPerDay = rapid.SampledFrom([]int{0, 0, 2 * most}).Draw(r, "runs")
		l.TokensPerDay = rapid.SampledFrom([]int{0, 0, 3 * most}).Draw(r, "tokens")
	}
	return l
}

// Two processes begin, pause, continue, claim and end runs of three callers and two agents in a random order. Some of
// the statements are repeated, and some of their answers are lost. Each answer of the store is that of a model that
// only counts: the run is allowed, or refused because of a limit that is reached.
func TestEachRunIsAllowedOrRefusedAsAModelCounts(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	var both []*process
	for range 2 {
		w := tap(t, url)
		both = append(both, &process{db: storetest.Open(t, store.Options{URL: w.URL}), tap: w})
	}
	rapid.Check(t, func(r *rapid.T) {
		m := &ledger{t: t, processes: both}
		for _, table := range []string{"sessions", "spending", "unsettled"} {
			m.execute(r, "DELETE FROM keyway."+table)
		}
		for _, key := range []string{"ann", "bob", "eve"} {
			m.accounts = append(m.accounts, &account{whose: limit.Caller, key: key, limits: drawLimits(r, 2)})
		}
		for _, key := range []string{"a", "b"} {
			m.accounts = append(m.accounts, &account{whose: limit.Agent, key: key, limits: drawLimits(r, 3)})
		}
		m.accounts = append(m.accounts, &account{whose: limit.OS, limits: drawLimits(r, 4)})
		r.Repeat(map[string]func(*rapid.T){
			"begin": m.begin, "begin another": m.begin, "begin again": m.beginAgain, "end": m.end, "continue": m.continues,
			"crash": m.crash, "renew": m.renew, "requeue": m.requeue, "claim": m.claim, "delete": m.deleteSession,
			"settle": m.settle, "": m.check,
		})
	})
}
