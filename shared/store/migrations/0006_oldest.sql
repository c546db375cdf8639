-- During an update, and after a rollback, programs of the previous release use the new schema. oldest is the lowest
-- version that a program must be written for, so that its queries fit. Each migration from here on sets it.
ALTER TABLE {{.schema}}.schema_version ADD COLUMN oldest integer NOT NULL DEFAULT 0;
UPDATE {{.schema}}.schema_version SET oldest = 5;
