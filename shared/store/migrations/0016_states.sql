-- A run with a large state refers to the state of its session instead of keeping a copy. Its own column is NULL then.
ALTER TABLE {{.schema}}.runs ADD COLUMN state_in_session boolean NOT NULL DEFAULT false;

-- A program of an earlier version works with the schema. It shows {} as the state of such a run.
UPDATE {{.schema}}.schema_version SET oldest = 6;
