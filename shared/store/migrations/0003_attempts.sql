-- A run outlives its process: attempt counts who has taken it up, and only the
-- last of them may write. A run that waits for its first has had none.
ALTER TABLE {{.schema}}.runs
    ADD COLUMN attempt    integer NOT NULL DEFAULT 1 CHECK (attempt >= 0),
    ADD COLUMN caller     json,  -- who was admitted to what; NULL when it has ended
    ADD COLUMN checkpoint json,  -- what the next attempt goes on from; NULL: from the beginning
    ADD COLUMN kept_events integer NOT NULL DEFAULT 0; -- the index after the last event before the checkpoint

-- Events of attempts that lost the run are never shown.
ALTER TABLE {{.schema}}.run_events
    ADD COLUMN attempt integer NOT NULL DEFAULT 1;
