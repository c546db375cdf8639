-- The thoughts of the model, as text for the people who read the run. NULL: the model has sent none.
ALTER TABLE {{.schema}}.runs ADD COLUMN reasoning_content text;

-- What providers require back of the answers of a PAUSED run, by the id of the message: signatures, encrypted thoughts.
-- No client reads it. NULL: nothing, or the run is not paused.
ALTER TABLE {{.schema}}.runs ADD COLUMN opaque json;

UPDATE {{.schema}}.schema_version SET oldest = 6;
