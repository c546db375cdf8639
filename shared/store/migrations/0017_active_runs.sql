-- The runs that have not ended, the oldest first: an administrator lists them, and cancels all of them.
CREATE INDEX runs_unfinished ON {{.schema}}.runs (seq) WHERE finished_at IS NULL;

UPDATE {{.schema}}.schema_version SET oldest = 6;
