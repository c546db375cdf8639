package api

import (
	"cmp"
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/keyway-agents/keyway/shared/bound"
	"github.com/keyway-agents/keyway/shared/fault"
	"github.com/keyway-agents/keyway/shared/route"
	"github.com/keyway-agents/keyway/shared/store"
	"github.com/keyway-agents/keyway/shared/wire"
)

// Metrics answers the routes about what runs have used. All numbers are computed from the stored runs, by the day of
// UTC on which these ended.
type Metrics struct {
	// DB is required.
	DB *store.DB
	// Isolation decides whose runs a caller sees the numbers of. Required.
	Isolation Isolation
	// Now returns the time that decides which day is today. Required.
	Now func() time.Time
}

// endpoints implements Resource.
func (m Metrics) endpoints() []Endpoint {
	refresh := stream(route.RefreshMetrics, m.refresh, reflect.TypeFor[[]wire.DayMetrics]())
	refresh.Streams = false
	return []Endpoint{
		answer(route.Metrics, m.list), accepting[wire.RefreshAccepted](refresh), answer(route.RefreshStatus, m.status),
		answer(route.Usage, m.usage),
	}
}

// days are the days that a request asks for. Defaults to the last 30 days.
type days struct {
	Start string `query:"starting_date" bound:"short_text" doc:"The first day, YYYY-MM-DD. Defaults to 29 days earlier."`
	End   string `query:"ending_date" bound:"short_text" doc:"The last day, YYYY-MM-DD. Defaults to today, in UTC."`
}

// defaultDays is the number of days without a first one.
const defaultDays = 30

// query returns the selection of these days. A day that is none, and more of them than bound.Days, is an error.
func (d days) query(now time.Time) (q store.UsageQuery, err error) {
	var wrong []fault.Field
	day := func(name, text string, otherwise time.Time) time.Time {
		if text == "" {
			return otherwise
		}
		t, err := time.Parse(time.DateOnly, text)
		if err != nil || t.Year() < 1 {
			wrong = append(wrong, fault.Field{
				Type: "date_parsing", Loc: []any{"query", name}, Msg: "Input should be a valid date in the format YYYY-MM-DD",
				Input: text,
			})
		}
		return t
	}
	last := day("ending_date", d.End, now.UTC().Truncate(24*time.Hour))
	q.To = last.AddDate(0, 0, 1)
	q.From = day("starting_date", d.Start, q.To.AddDate(0, 0, -defaultDays))
	if asked := int(q.To.Sub(q.From) / (24 * time.Hour)); len(wrong) == 0 && asked > bound.Days.Default {
		wrong = append(wrong, fault.Field{
			Type: "value_error", Loc: []any{"query", "starting_date"}, Input: d.Start,
			Msg: bound.Days.Exceeded(bound.Days.Default, asked),
		})
	}
	if len(wrong) > 0 {
		return q, fault.Fields(wrong...)
	}
	return q, nil
}

// metrics is the input of GET /metrics.
type metrics struct {
	days
	User string `query:"user_id" bound:"short_text" doc:"Only this user, for callers who see others than themselves."`
	database
}

// list answers the metrics of each day on which a run ended that the caller sees: an administrator all runs, others
// their own, or all runs without user isolation.
func (m Metrics) list(ctx context.Context, r *request, in metrics) (out wire.MetricsList, err error) {
	q, err := in.query(m.Now())
	if err != nil {
		return out, err
	}
	out.Metrics, err = m.byDay(ctx, r, in.database, q, in.User)
	for _, day := range out.Metrics {
		if out.UpdatedAt == nil || day.UpdatedAt.After(out.UpdatedAt.Time) {
			out.UpdatedAt = &day.UpdatedAt
		}
	}
	return out, err
}

// byDay returns the metrics of the days of a query.
func (m Metrics) byDay(
	ctx context.Context, r *request, db database, q store.UsageQuery, user string,
) ([]wire.DayMetrics, error) {
	viewer, err := m.Isolation.viewerIn(r, db)
	if err != nil {
		return nil, err
	}
	r.audit.Owner(user)
	q.Owner = user
	days, err := m.DB.MetricsByDay(ctx, viewer, q)
	if err != nil {
		return nil, err
	}
	out := make([]wire.DayMetrics, len(days))
	for i, d := range days {
		// AgentOS's ids name the day, and the user if the numbers are those of one.
		id := d.Day.Format(time.DateOnly) + "_daily"
		if owner := viewer.Owner; owner != "" || user != "" {
			id = d.Day.Format(time.DateOnly) + "_" + cmp.Or(owner, user) + "_daily"
		}
		out[i] = wire.DayMetrics{
			ID: id, AgentRunsCount: d.Runs, AgentSessionsCount: d.Sessions, UsersCount: d.Users,
			TokenMetrics: wire.TokenMetrics{InputTokens: d.Input, OutputTokens: d.Output, TotalTokens: d.Total},
			ModelMetrics: d.Models, Date: wire.Time{Time: d.Day},
			CreatedAt: wire.Time{Time: d.FirstEnded}, UpdatedAt: wire.Time{Time: d.LastEnded},
		}
	}
	return out, nil
}

// refreshMetrics is the input of POST /metrics/refresh.
type refreshMetrics struct {
	User       string `query:"user_id" bound:"short_text" doc:"Only this user, as in GET /metrics."`
	Background bool   `query:"background" default:"false" doc:"Answer 202 at once."`
	database
}

// refresh answers the metrics of the last 30 days. There is nothing to refresh, because they are computed at each
// request.
func (m Metrics) refresh(w http.ResponseWriter, r *request, in refreshMetrics) error {
	if in.Background {
		if _, err := m.Isolation.viewerIn(r, in.database); err != nil {
			return err
		}
		return writeJSON(w, http.StatusAccepted, wire.RefreshAccepted{
			Status: "started", Message: "Metrics are computed at each request",
		})
	}
	q, err := days{}.query(m.Now())
	if err != nil {
		return err
	}
	out, err := m.byDay(r.Context(), r, in.database, q, in.User)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// status answers that the metrics are up to date.
func (m Metrics) status(_ context.Context, _ *request, db database) (wire.RefreshStatus, error) {
	return wire.RefreshStatus{Status: "completed"}, db.check()
}

// usage is the input of GET /usage.
type usage struct {
	days
	User    string `query:"user_id" bound:"short_text" doc:"Only this user."`
	AgentID string `query:"agent_id" bound:"short_text" doc:"Only this agent."`
	Limit   int    `query:"limit" default:"100" min:"1" max:"1000" doc:"Rows on a page, at most 1,000."`
	Page    int    `query:"page" default:"1" min:"1" doc:"The number of the page, from 1. The latest day is first."`
}

// usage answers one page of what the runs of all users have used. Only administrators are allowed to.
func (m Metrics) usage(ctx context.Context, r *request, in usage) (page wire.Page[wire.DayUsage], err error) {
	q, err := in.query(m.Now())
	if err != nil {
		return page, err
	}
	viewer, err := m.Isolation.viewer(r)
	if err != nil {
		return page, err
	}
	q.Owner, q.AgentID = in.User, in.AgentID
	rows, total, err := m.DB.UsageByDay(ctx, viewer, q, in.Limit, in.Page)
	if err != nil {
		return page, err
	}
	page.Data = make([]wire.DayUsage, len(rows))
	for i, u := range rows {
		page.Data[i] = wire.DayUsage{
			Day: u.Day.Format(time.DateOnly), AgentID: u.AgentID, UserID: u.Owner, Model: u.ModelID,
			ModelProvider: u.Provider, Runs: u.Runs, InputTokens: u.Input, OutputTokens: u.Output, Cost: u.Cost,
		}
	}
	page.Meta = wire.PageOf(in.Page, in.Limit, total)
	return page, nil
}
