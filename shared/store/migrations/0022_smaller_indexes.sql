-- Each run writes to all indexes of its session twice: it creates the session or changes it, and its end changes
-- updated_at. Without the session id, an entry is 27 bytes shorter or more. The lists still sort sessions of the same
-- time by their id; PostgreSQL sorts these few itself (incremental sort).
CREATE INDEX sessions_owner_created2 ON {{.schema}}.sessions (owner, created_at DESC);
CREATE INDEX sessions_owner_updated2 ON {{.schema}}.sessions (owner, updated_at DESC);
CREATE INDEX sessions_created2 ON {{.schema}}.sessions (created_at DESC);
CREATE INDEX sessions_updated2 ON {{.schema}}.sessions (updated_at DESC);
CREATE INDEX sessions_owner_agent2 ON {{.schema}}.sessions (owner, agent_id, created_at DESC);
DROP INDEX {{.schema}}.sessions_owner_created, {{.schema}}.sessions_owner_updated, {{.schema}}.sessions_created,
    {{.schema}}.sessions_updated, {{.schema}}.sessions_owner_agent;
ALTER INDEX {{.schema}}.sessions_owner_created2 RENAME TO sessions_owner_created;
ALTER INDEX {{.schema}}.sessions_owner_updated2 RENAME TO sessions_owner_updated;
ALTER INDEX {{.schema}}.sessions_created2 RENAME TO sessions_created;
ALTER INDEX {{.schema}}.sessions_updated2 RENAME TO sessions_updated;
ALTER INDEX {{.schema}}.sessions_owner_agent2 RENAME TO sessions_owner_agent;

-- runs_turn has the same columns and one more. There are few runs in progress, so it serves each query of runs_active.
DROP INDEX {{.schema}}.runs_active;

UPDATE {{.schema}}.schema_version SET oldest = 6;
