-- The runs that wait or execute, by their owner: the local queue counts what each owner has in progress, and finds the
-- runs of each owner that wait, without reading the others.
CREATE INDEX runs_share ON {{.schema}}.runs (owner, status, lease_until) WHERE status IN ('PENDING', 'RUNNING');

UPDATE {{.schema}}.schema_version SET oldest = 6;
