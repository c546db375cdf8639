package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyway-agents/keyway/shared/fault"
)

// Memory is one row of memories: a fact about its owner.
type Memory struct {
	MemoryID uuid.UUID
	// Owner is the user that the fact is about. It is never "": a memory without a user would belong to everyone.
	Owner  string
	Memory string
	// Topics are labels in the order in which they were given.
	Topics []string
	// AgentID is the agent that wrote the memory. nil means that a caller wrote it.
	AgentID   *string
	TeamID    *string
	CreatedAt time.Time
	UpdatedAt time.Time
}

const memoryColumns = `memory_id, owner, memory, topics, agent_id, team_id, created_at, updated_at`

// AddMemory stores a new memory. UpdatedAt is set to CreatedAt. A memory of that id is left as it is: the ids are
// random, so the same call has stored it before.
func (db *DB) AddMemory(ctx context.Context, m Memory) error {
	_, err := db.exec(ctx, `
		INSERT INTO keyway.memories (memory_id, owner, memory, topics, agent_id, team_id, created_at, updated_at)
		VALUES (@memory_id, @owner, @memory, @topics, @agent_id, @team_id, @created_at, @created_at)
		ON CONFLICT (memory_id) DO NOTHING`,
		pgx.NamedArgs{
			"memory_id": m.MemoryID, "owner": m.Owner, "memory": m.Memory, "topics": m.Topics,
			"agent_id": m.AgentID, "team_id": m.TeamID, "created_at": m.CreatedAt,
		})
	if err != nil {
		return fmt.Errorf("add memory: %w", kindOf(err))
	}
	return nil
}

// MemoryQuery selects and orders memories. Fields with their zero value do not restrict the selection.
type MemoryQuery struct {
	// Owner restricts an administrator's view to one user.
	Owner   string
	AgentID string
	TeamID  string
	// Has is a part of the memory. Upper and lower case are the same, and there are no wildcards.
	Has string
	// Topics are topics that the memory must all have.
	Topics []string
	// SortBy is "updated_at" or "created_at". Defaults to "updated_at", also for any other value.
	SortBy string
	// Ascending reverses the order, which is descending by default. Equal values are sorted by id.
	Ascending bool
	// Limit is the size of a page, and Page its number. Both must be at least 1. Required.
	Limit, Page int
}

// where returns the condition of a query.
func (q MemoryQuery) where(v Viewer) (string, pgx.NamedArgs) {
	f := v.filter("owner")
	f.ifAsked("owner = @owner", "owner", q.Owner)
	f.ifAsked("agent_id = @agent_id", "agent_id", q.AgentID)
	f.ifAsked("team_id = @team_id", "team_id", q.TeamID)
	f.ifAsked("strpos(lower(memory), lower(@has)) > 0", "has", q.Has)
	if len(q.Topics) > 0 {
		f.and("topics @> @topics", "topics", q.Topics)
	}
	return f.sql, f.args
}

// Memories returns one page of the memories that match, and the number of all that match.
func (db *DB) Memories(ctx context.Context, v Viewer, q MemoryQuery) (page []Memory, total int, err error) {
	where, args := q.where(v)
	order := "updated_at"
	if q.SortBy == "created_at" {
		order = q.SortBy
	}
	page, total, err = paged(ctx, db, pgx.RowToStructByName[Memory], listing{
		on: db.pages, columns: memoryColumns, from: "keyway.memories WHERE " + where,
		order: order + direction(q.Ascending) + ", memory_id", limit: q.Limit, page: q.Page,
	}, args)
	if err != nil {
		return nil, 0, fmt.Errorf("memories: %w", kindOf(err))
	}
	return page, total, nil
}

// Memory returns one memory. It is fault.NotFound if there is none that the viewer can see. owner restricts an
// administrator's view to one user.
func (db *DB) Memory(ctx context.Context, v Viewer, id, owner string) (Memory, error) {
	return db.oneMemory(ctx, v, id, owner, `SELECT `+memoryColumns+` FROM keyway.memories WHERE `, "", nil)
}

// ChangeMemory changes the text of one memory, and its topics unless they are nil, and returns the memory. Errors are
// those of Memory.
//
// Each change increases UpdatedAt, by a microsecond if the clock of this process is behind that of the last change. So
// MergeMemories recognizes a memory that was changed by its UpdatedAt alone.
func (db *DB) ChangeMemory(
	ctx context.Context, v Viewer, id, text string, topics []string, now time.Time,
) (Memory, error) {
	return db.oneMemory(ctx, v, id, "", `
		UPDATE keyway.memories SET memory = @memory, topics = COALESCE(@topics, topics), updated_at = CASE
			WHEN memory = @memory AND topics = COALESCE(@topics, topics) AND updated_at >= @now THEN updated_at
			ELSE GREATEST(updated_at + interval '1 microsecond', @now) END WHERE `,
		` RETURNING `+memoryColumns, pgx.NamedArgs{"memory": text, "topics": topics, "now": now})
}

// oneMemory executes a statement that returns one memory. Reading and changing share it, so that both look for the
// memory with the same condition, and a memory that the viewer cannot read cannot be changed either. The condition
// that selects the memory, and that keeps other owners' memories out, comes between the texts before and after.
func (db *DB) oneMemory(
	ctx context.Context, v Viewer, id, owner, before, after string, more pgx.NamedArgs,
) (Memory, error) {
	memoryID, err := uuid.Parse(id)
	if err != nil || memoryID.String() != id { // Ids are issued in canonical form only.
		return Memory{}, fmt.Errorf("memory: %w", fault.NotFound)
	}
	where, args := MemoryQuery{Owner: owner}.where(v)
	args["memory_id"] = memoryID
	for name, value := range more {
		args[name] = value
	}
	found, err := collect[Memory](ctx, db, before+"memory_id = @memory_id AND "+where+after, args)
	if err != nil {
		return Memory{}, fmt.Errorf("memory: %w", kindOf(err))
	}
	if len(found) == 0 {
		return Memory{}, fmt.Errorf("memory: %w", fault.NotFound)
	}
	return found[0], nil
}

// DeleteMemories deletes memories in one statement. Missing memories, and those that the viewer cannot see, are ignored
// without an error, as in AgentOS. owners are those of the deleted memories; they are unknown if the statement was
// repeated because its answer was lost.
func (db *DB) DeleteMemories(ctx context.Context, v Viewer, ids []string, owner string) (owners []string, err error) {
	// Texts that are no ids cannot match, and PostgreSQL would reject them as an array of uuid.
	var known []uuid.UUID
	for _, id := range ids {
		if u, err := uuid.Parse(id); err == nil && u.String() == id {
			known = append(known, u)
		}
	}
	where, args := MemoryQuery{Owner: owner}.where(v)
	args["ids"] = known
	sql := `
		WITH held AS ( -- in the order of MergeMemories
			SELECT memory_id FROM keyway.memories WHERE memory_id = ANY(@ids) AND ` + where + ` ORDER BY memory_id FOR UPDATE
		), gone AS (
			DELETE FROM keyway.memories m USING held h WHERE m.memory_id = h.memory_id RETURNING m.owner
		)
		SELECT DISTINCT owner FROM gone`
	if owners, err = list(ctx, db.bulk, pgx.RowTo[string], sql, args); err != nil {
		return nil, fmt.Errorf("delete memories: %w", kindOf(err))
	}
	return owners, nil
}

// MemoryTopics returns the distinct topics of the memories, in order: a page of limit topics, or all for a limit of 0.
func (db *DB) MemoryTopics(ctx context.Context, v Viewer, owner string, limit, page int) ([]string, error) {
	where, args := MemoryQuery{Owner: owner}.where(v)
	clauses := pageOf(limit, page, args)
	topics, err := list(ctx, db.bulk, pgx.RowTo[string],
		`SELECT DISTINCT unnest(topics) AS topic FROM keyway.memories WHERE `+where+` ORDER BY topic`+clauses, args)
	if err != nil {
		return nil, fmt.Errorf("memory topics: %w", kindOf(err))
	}
	return topics, nil
}

// MemoryStats counts one user's memories and has the time of the latest change.
type MemoryStats struct {
	Owner       string
	Total       int
	LastUpdated time.Time
}

// MemoryStats returns one page of the users who have memories, and the number of all of them. The user with the latest
// change comes first.
func (db *DB) MemoryStats(
	ctx context.Context, v Viewer, q MemoryQuery,
) (page []MemoryStats, total int, err error) {
	where, args := q.where(v)
	// The grouping is a subquery, so that the owners are counted and not their memories.
	page, total, err = paged(ctx, db, pgx.RowToStructByName[MemoryStats], listing{
		on: db.bulk, columns: `owner, total, last_updated`,
		from: `(SELECT owner, count(*) AS total, max(updated_at) AS last_updated FROM keyway.memories
			WHERE ` + where + ` GROUP BY owner) AS stats`,
		order: "last_updated DESC, owner", limit: q.Limit, page: q.Page,
	}, args)
	if err != nil {
		return nil, 0, fmt.Errorf("memory stats: %w", kindOf(err))
	}
	return page, total, nil
}

// MergeMemories replaces several memories of one owner by one memory, in one statement. The statement locks those of
// the old memories that are unchanged, deletes them only if all are, and inserts the new one only if they were
// deleted. If one of them was deleted or changed since it was read, the error is fault.Conflict and nothing is
// changed: a model takes seconds to write the merged text, and a change of that time must not be lost. A memory is
// unchanged if its UpdatedAt is; see ChangeMemory. If the new memory exists already, the same call has stored it
// before.
func (db *DB) MergeMemories(ctx context.Context, old []Memory, merged Memory) error {
	ids, changes := make([]uuid.UUID, len(old)), make([]time.Time, len(old))
	for i, m := range old {
		ids[i], changes[i] = m.MemoryID, m.UpdatedAt
	}
	var stored bool
	err := db.bulk.queryRow(ctx, `
		WITH same AS (
			SELECT m.memory_id FROM keyway.memories m
			JOIN unnest(@ids::uuid[], @changes::timestamptz[]) AS read (memory_id, updated_at) USING (memory_id, updated_at)
			WHERE m.owner = @owner ORDER BY m.memory_id FOR UPDATE OF m
		), gone AS (
			DELETE FROM keyway.memories
			WHERE memory_id IN (SELECT memory_id FROM same) AND (SELECT count(*) FROM same) = @count
			RETURNING memory_id
		), merged AS (
			INSERT INTO keyway.memories (memory_id, owner, memory, topics, agent_id, team_id, created_at, updated_at)
			SELECT @memory_id, @owner, @memory, @topics, @agent_id, @team_id, @created_at, @created_at
			WHERE EXISTS (SELECT FROM gone)
			RETURNING memory_id
		)
		SELECT EXISTS (SELECT FROM merged) OR EXISTS (
			SELECT FROM keyway.memories WHERE memory_id = @memory_id AND owner = @owner)`,
		pgx.NamedArgs{
			"ids": ids, "changes": changes, "count": len(old), "memory_id": merged.MemoryID, "owner": merged.Owner,
			"memory": merged.Memory, "topics": merged.Topics, "agent_id": merged.AgentID, "team_id": merged.TeamID,
			"created_at": merged.CreatedAt,
		}).Scan(&stored)
	if err != nil {
		return fmt.Errorf("merge memories: %w", kindOf(err))
	}
	if !stored {
		return fault.Public(fault.Conflict, "The memories changed meanwhile; try again", nil)
	}
	return nil
}
