-- A repeated request to run an agent finds the run that the first one started: by the client's key, and by a digest of
-- what the request asked for.
ALTER TABLE {{.schema}}.runs
    ADD COLUMN idempotency_key text CHECK (octet_length(idempotency_key) BETWEEN 1 AND 512),
    ADD COLUMN request_digest  bytea;
CREATE UNIQUE INDEX runs_idempotency ON {{.schema}}.runs (owner, agent_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
