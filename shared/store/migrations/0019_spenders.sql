-- Runs that count for another caller than their owner: an administrator's, or anybody's without isolation. There are few
-- of them. The erasure of a user, and a move of owners, find the name of the caller in them.
CREATE INDEX runs_spender ON {{.schema}}.runs (spender) WHERE spender <> owner AND spender <> '';

UPDATE {{.schema}}.schema_version SET oldest = 6;
