-- A run can continue in another process. attempt counts the claims of the run, and only the last attempt can
-- write. A pending run that was never claimed has attempt 0.
ALTER TABLE {{.schema}}.runs
    ADD COLUMN attempt    integer NOT NULL DEFAULT 1 CHECK (attempt >= 0),
    ADD COLUMN caller     json,  -- the identity that was allowed to run it; NULL after the end
    ADD COLUMN checkpoint json,  -- what the next attempt continues from; NULL: the beginning
    ADD COLUMN kept_events integer NOT NULL DEFAULT 0; -- the index of the first event after the checkpoint

-- Events of attempts that lost the run are never returned.
ALTER TABLE {{.schema}}.run_events
    ADD COLUMN attempt integer NOT NULL DEFAULT 1;
