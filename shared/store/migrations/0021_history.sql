-- The conversation before a run, as its caller sent it by a protocol whose clients keep the conversation themselves: a JSON
-- array of turns. NULL for all others. It is the caller's claim, and no message of the run or the session.
ALTER TABLE {{.schema}}.runs ADD COLUMN history json;

-- A program of an earlier version works with the schema. It executes such a run without the conversation.
UPDATE {{.schema}}.schema_version SET oldest = 6;
