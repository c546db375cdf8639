-- A run may be handed over as often as it needs. losses counts only the attempts that ended with a crash, and limits how
-- often the run is tried.
ALTER TABLE {{.schema}}.runs ADD COLUMN losses integer NOT NULL DEFAULT 0;
