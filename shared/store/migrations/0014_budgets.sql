-- spender is the caller whose limits a run counts for: the owner name of the token's issuer and subject, '' without a
-- subject. It may differ from the owner of the run. spend_day is the day of UTC to which the run's tokens are added, or
-- NULL if no limit applied when the run began, was continued or claimed.
ALTER TABLE {{.schema}}.runs
    ADD COLUMN spender   text NOT NULL DEFAULT '' CHECK (octet_length(spender) <= 1024),
    ADD COLUMN spend_day date;
-- The runs in progress and those that wait, by caller. There are few of them, however many runs are stored.
CREATE INDEX runs_active ON {{.schema}}.runs (status, spender) WHERE status IN ('PENDING', 'RUNNING');

-- What was used on each day of UTC by those who have a limit of a minute or a day: a caller (key: the spender), all runs
-- of an agent (its id), all runs of the OS (''), and a caller's merges of memories (the spender). It does not refer to
-- sessions or runs, so that nobody gets a budget back by deleting them.
CREATE TABLE {{.schema}}.spending (
    whose       text        NOT NULL CHECK (whose IN ('caller', 'agent', 'os', 'merges')),
    key         text        NOT NULL CHECK (octet_length(key) <= 1024),
    day         date        NOT NULL,
    runs        bigint      NOT NULL DEFAULT 0,
    tokens      bigint      NOT NULL DEFAULT 0,
    micro_usd   bigint      NOT NULL DEFAULT 0, -- millionths of a US dollar
    minute      timestamptz,                    -- the minute in which minute_runs began
    minute_runs bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (whose, key, day)
);
CREATE INDEX spending_day ON {{.schema}}.spending (day);

-- Work in progress that has no row in runs, until its tokens are counted: runs that were deleted while a process
-- executed them, and merges of memories. Until lease_until it counts as a run in progress.
CREATE TABLE {{.schema}}.unsettled (
    run_id      uuid        PRIMARY KEY,
    leg         uuid        NOT NULL,
    spender     text        NOT NULL,
    agent_id    text        NOT NULL,
    spend_day   date        NOT NULL,
    lease_until timestamptz NOT NULL
);
CREATE INDEX unsettled_lease ON {{.schema}}.unsettled (lease_until);

-- A trigger keeps deleted runs, whatever deletes them: a session, an import, an operator.
CREATE FUNCTION {{.schema}}.keep_unsettled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {{.schema}}.unsettled (run_id, leg, spender, agent_id, spend_day, lease_until)
    VALUES (OLD.run_id, OLD.leg, OLD.spender, OLD.agent_id, OLD.spend_day, OLD.lease_until)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_unsettled AFTER DELETE ON {{.schema}}.runs
    FOR EACH ROW WHEN (OLD.status = 'RUNNING' AND OLD.leg IS NOT NULL AND OLD.spend_day IS NOT NULL)
    EXECUTE FUNCTION {{.schema}}.keep_unsettled();

-- A program of an earlier version works with the schema. The runs that it begins count for no limit of a minute or a
-- day, and for the limits of runs in progress as runs of a caller without a subject.
UPDATE {{.schema}}.schema_version SET oldest = 6;
