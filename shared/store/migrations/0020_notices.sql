-- What is still to be reported to the operator's webhook: a row for each pause and each end of a run. The statement that
-- stores the end makes it, and it is deleted when the webhook has accepted it or when it is given up.
CREATE TABLE {{.schema}}.notices (
    id      uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    -- A run that is deleted takes what is not reported yet with it.
    run_id  uuid        NOT NULL REFERENCES {{.schema}}.runs ON DELETE CASCADE,
    status  text        NOT NULL,
    made_at timestamptz NOT NULL,
    tries   integer     NOT NULL DEFAULT 0,
    -- When the next try is due.
    next_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notices_due ON {{.schema}}.notices (next_at);
CREATE INDEX notices_run ON {{.schema}}.notices (run_id);

-- A program of an earlier version works with the schema. The runs that it ends are not reported.
UPDATE {{.schema}}.schema_version SET oldest = 6;
