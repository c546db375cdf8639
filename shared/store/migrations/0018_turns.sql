-- The runs that wait or execute, by the caller they count for. The local queue shares the processes between callers, and
-- the owner of a run is not always its caller: without isolation, a request can name any owner. Runs of an earlier
-- version count as those of a caller without a subject until they have ended.
CREATE INDEX runs_turn ON {{.schema}}.runs (spender, status, lease_until) WHERE status IN ('PENDING', 'RUNNING');
DROP INDEX {{.schema}}.runs_share;

UPDATE {{.schema}}.schema_version SET oldest = 6;
