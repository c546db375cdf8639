-- No query uses it: lists compare the agent, the team and the workflow with one id.
DROP INDEX {{.schema}}.sessions_owner_agent;

-- The end of a run changes updated_at of its session. With an index on updated_at, PostgreSQL wrote an entry to each index of
-- the session then. The minute seldom changes, and an update that changes no indexed column writes no entry (HOT). A list by
-- updated_at is sorted by the minute first, which is the same order.
--
-- To add the column rewrites the table: 10 to 20 seconds for a million sessions, which nobody can use meanwhile.
DROP INDEX {{.schema}}.sessions_owner_updated, {{.schema}}.sessions_updated;
ALTER TABLE {{.schema}}.sessions
    ADD COLUMN updated_minute timestamp GENERATED ALWAYS AS (date_trunc('minute', updated_at AT TIME ZONE 'UTC')) STORED,
    SET (fillfactor = 90); -- the new version of a row needs room on its page
CREATE INDEX sessions_owner_updated ON {{.schema}}.sessions (owner, updated_minute DESC);
CREATE INDEX sessions_updated ON {{.schema}}.sessions (updated_minute DESC);

-- runs_turn has these rows too. There are few of them, so it serves each query for the leases of all callers.
DROP INDEX {{.schema}}.runs_lease;

-- Compressed events of up to 8 KB stay in their row. Elsewhere they need one row and one index entry for each 2 KB.
ALTER TABLE {{.schema}}.run_events ALTER COLUMN frames SET STORAGE MAIN;

-- A program of an earlier version works with the schema. It sorts all sessions for a list by updated_at.
UPDATE {{.schema}}.schema_version SET oldest = 6;
