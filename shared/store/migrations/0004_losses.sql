-- A run may be handed over as often as it takes; how many processes died of it is another
-- matter, and bounds how often it is tried.
ALTER TABLE {{.schema}}.runs ADD COLUMN losses integer NOT NULL DEFAULT 0;
