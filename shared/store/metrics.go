package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// DayMetrics is what the runs that ended on one day of UTC have used.
type DayMetrics struct {
	Day time.Time
	// Runs counts the runs, Sessions their sessions, and Users their owners; runs without an owner count for no user.
	Runs, Sessions, Users int
	Input, Output, Total  int64 // tokens
	FirstEnded, LastEnded time.Time
	Models                json.RawMessage // [{"model_id","model_provider","count"}], the most used one first
}

// UsageQuery selects runs by the day of UTC on which they ended: From is the first day, and To the one after the last.
// Texts that are empty do not restrict the selection.
type UsageQuery struct {
	From, To       time.Time
	Owner, AgentID string
}

// where returns the condition of a query. The index runs_finished has its range.
func (q UsageQuery) where(v Viewer) filter {
	f := v.filterSessions("owner", "session_id")
	f.and("finished_at >= @ended_from", "ended_from", q.From)
	f.and("finished_at < @ended_to", "ended_to", q.To)
	f.ifAsked("owner = @owner", "owner", q.Owner)
	f.ifAsked("agent_id = @agent", "agent", q.AgentID)
	return f
}

// tokens are the columns with the tokens and the cost of a run. The cost is NULL if the model had no price at its end.
const tokens = `COALESCE((metrics ->> 'input_tokens')::bigint, 0) AS input,
	COALESCE((metrics ->> 'output_tokens')::bigint, 0) AS output,
	COALESCE((metrics ->> 'total_tokens')::bigint, 0) AS total, (metrics ->> 'cost')::float8 AS cost`

// MetricsByDay returns the metrics of each day on which a run ended that the viewer can see, in the order of the days.
func (db *DB) MetricsByDay(ctx context.Context, v Viewer, q UsageQuery) ([]DayMetrics, error) {
	sql, args := metricsQuery(v, q)
	days, err := collect[DayMetrics](ctx, db.bulk, sql, args)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", kindOf(err))
	}
	return days, nil
}

// metricsQuery is the statement of MetricsByDay.
func metricsQuery(v Viewer, q UsageQuery) (string, pgx.NamedArgs) {
	f := q.where(v)
	return `
		WITH ended AS MATERIALIZED (
			SELECT (finished_at AT TIME ZONE 'UTC')::date AS day, owner, session_id, model_id, model_provider, finished_at,
				` + tokens + `
			FROM keyway.runs WHERE ` + f.sql + `
		), models AS (
			SELECT day, json_agg(json_build_object('model_id', model_id, 'model_provider', model_provider, 'count', n)
				ORDER BY n DESC, model_id, model_provider) AS models
			FROM (SELECT day, model_id, model_provider, count(*) AS n FROM ended GROUP BY 1, 2, 3) AS m GROUP BY day
		)
		SELECT e.day, count(*) AS runs, count(DISTINCT (owner, session_id)) AS sessions,
			count(DISTINCT owner) FILTER (WHERE owner <> '') AS users,
			sum(input)::bigint AS input, sum(output)::bigint AS output, sum(total)::bigint AS total,
			min(finished_at) AS first_ended, max(finished_at) AS last_ended,
			(SELECT models FROM models WHERE models.day = e.day) AS models
		FROM ended e GROUP BY e.day ORDER BY e.day`, f.args
}

// DayUsage is what the runs of one agent, user and model that ended on one day of UTC have used.
type DayUsage struct {
	Day                               time.Time
	AgentID, Owner, ModelID, Provider string
	Runs                              int
	Input, Output                     int64 // tokens
	// Cost is in US dollars, nil if none of the runs had a price.
	Cost *float64
}

// UsageByDay returns one page of the usage, the latest day first, and the number of all rows. limit and page are at
// least 1.
func (db *DB) UsageByDay(ctx context.Context, v Viewer, q UsageQuery, limit, page int) (
	rows []DayUsage, total int, err error,
) {
	f := q.where(v)
	rows, total, err = paged(ctx, db, pgx.RowToStructByName[DayUsage], listing{
		on: db.bulk, columns: "*", from: `(
			SELECT day, agent_id, owner, model_id, provider, count(*) AS runs, sum(input)::bigint AS input,
				sum(output)::bigint AS output, sum(cost) AS cost
			FROM (
				SELECT (finished_at AT TIME ZONE 'UTC')::date AS day, agent_id, owner, model_id, model_provider AS provider,
					` + tokens + `
				FROM keyway.runs WHERE ` + f.sql + `
			) AS ended GROUP BY day, agent_id, owner, model_id, provider
		) AS used`,
		order: "day DESC, runs DESC, agent_id, owner, model_id, provider", limit: limit, page: page,
	}, f.args)
	if err != nil {
		return nil, 0, fmt.Errorf("usage: %w", kindOf(err))
	}
	return rows, total, nil
}
