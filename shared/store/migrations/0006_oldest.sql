-- Programs of before an update run on during it, and after it was rolled back. oldest is
-- the version that a program has to be written for, at the least, for its queries to fit;
-- each migration from here on says it.
ALTER TABLE {{.schema}}.schema_version ADD COLUMN oldest integer NOT NULL DEFAULT 0;
UPDATE {{.schema}}.schema_version SET oldest = 5;
