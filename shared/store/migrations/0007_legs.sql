-- leg identifies the execution of a run by one process, from its start, continuation or claim to its end, pause or
-- hand-over. Only the process that knows it can write, and that process can repeat each of its statements.
-- NULL: no process of this version has executed the run yet.
ALTER TABLE {{.schema}}.runs ADD COLUMN leg uuid;

-- What each step of a run in progress added to its checkpoint: messages, calls, requirements and text. runs.checkpoint
-- holds only the rest, which does not grow. The rows are deleted at the end of the run, at a pause and at a claim.
CREATE TABLE {{.schema}}.run_steps (
    run_id uuid    NOT NULL REFERENCES {{.schema}}.runs ON DELETE CASCADE,
    step   integer NOT NULL,
    added  json    NOT NULL,
    PRIMARY KEY (run_id, step)
);

-- The requests to continue a run that had an Idempotency-Key. first_index is the index of the continuation's first event.
CREATE TABLE {{.schema}}.continuations (
    run_id      uuid    NOT NULL REFERENCES {{.schema}}.runs ON DELETE CASCADE,
    key         text    NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 512),
    digest      bytea   NOT NULL,
    first_index integer NOT NULL,
    PRIMARY KEY (run_id, key)
);

-- When a process claims a run, the checkpoint and the steps become one JSON document again. A trigger does it, so that a
-- process of the previous release, which knows only runs.checkpoint, can claim the run too: during an update and after a
-- rollback. The text is concatenated because jsonb would change the order of members and the form of numbers.
--
-- That release does not know the column leg either. If a claim or a continuation does not change the leg, it comes from
-- that release. Then the trigger sets leg to NULL, so that a repeated statement of the earlier leg matches no row.
CREATE FUNCTION {{.schema}}.merge_steps() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    merged text;
BEGIN
    SELECT '"messages":[' || COALESCE(string_agg(parts.messages, ',' ORDER BY step) FILTER (WHERE parts.messages <> ''), '')
        || '],"calls":[' || COALESCE(string_agg(parts.calls, ',' ORDER BY step) FILTER (WHERE parts.calls <> ''), '')
        || '],"waiting":[' || COALESCE(string_agg(parts.waiting, ',' ORDER BY step) FILTER (WHERE parts.waiting <> ''), '')
        || '],"content":' || to_json(string_agg(parts.content, '' ORDER BY step))
    INTO merged
    FROM (
        SELECT step, COALESCE(added ->> 'content', '') AS content,
            (SELECT string_agg(value::text, ',' ORDER BY n) FROM json_array_elements(added -> 'messages') WITH ORDINALITY AS e (value, n)) AS messages,
            (SELECT string_agg(value::text, ',' ORDER BY n) FROM json_array_elements(added -> 'calls') WITH ORDINALITY AS e (value, n)) AS calls,
            (SELECT string_agg(value::text, ',' ORDER BY n) FROM json_array_elements(added -> 'waiting') WITH ORDINALITY AS e (value, n)) AS waiting
        FROM {{.schema}}.run_steps WHERE run_id = NEW.run_id
    ) AS parts
    HAVING count(*) > 0;
    IF merged IS NOT NULL AND NEW.checkpoint IS NOT NULL THEN
        NEW.checkpoint := (left(NEW.checkpoint::text, -1) || ',' || merged || '}')::json;
    END IF;
    DELETE FROM {{.schema}}.run_steps WHERE run_id = NEW.run_id;
    IF NEW.leg IS NOT DISTINCT FROM OLD.leg THEN
        NEW.leg := NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER merge_steps BEFORE UPDATE OF attempt, status ON {{.schema}}.runs
    FOR EACH ROW WHEN (NEW.attempt <> OLD.attempt OR OLD.status = 'PAUSED' AND NEW.status = 'RUNNING')
    EXECUTE FUNCTION {{.schema}}.merge_steps();

UPDATE {{.schema}}.schema_version SET oldest = 6;
