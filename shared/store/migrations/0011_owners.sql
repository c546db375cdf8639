-- What this database knows about the names of owners: its home issuer, the issuers of keyway.yaml, and the number of
-- entries of each. See docs/adr/0017. NULL: nothing is recorded yet.
ALTER TABLE {{.schema}}.os ADD COLUMN owners jsonb;

-- `keyway owners move` renames the owner of a session and of its runs in one transaction, with one statement each.
ALTER TABLE {{.schema}}.session_usage ALTER CONSTRAINT session_usage_owner_session_id_fkey DEFERRABLE INITIALLY IMMEDIATE;
ALTER TABLE {{.schema}}.runs ALTER CONSTRAINT runs_owner_session_id_fkey DEFERRABLE INITIALLY IMMEDIATE;

UPDATE {{.schema}}.schema_version SET oldest = 6;
