-- The runs that have ended, by the time of their end, and those of them that have events: the retention deletes the oldest.
CREATE INDEX runs_finished ON {{.schema}}.runs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX runs_with_events ON {{.schema}}.runs (finished_at) WHERE streamed AND finished_at IS NOT NULL;

UPDATE {{.schema}}.schema_version SET oldest = 6;
