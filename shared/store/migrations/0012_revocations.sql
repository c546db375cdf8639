-- The tokens that are refused although they are valid: one token by its id (claim jti), or the tokens of a subject
-- (claim sub) that were issued before a time. One of token_id and subject is ''.
CREATE TABLE {{.schema}}.revocations (
    -- The issuer of the tokens (claim iss). '' means the keys that accept tokens of any issuer.
    issuer   text        NOT NULL CHECK (octet_length(issuer) <= 1024),
    token_id text        NOT NULL CHECK (octet_length(token_id) <= 512),
    subject  text        NOT NULL CHECK (octet_length(subject) <= 1024),
    -- Tokens of the subject that were issued earlier are refused. A token without iat counts as earlier.
    before   timestamptz,
    made_at  timestamptz NOT NULL,
    note     text        NOT NULL CHECK (octet_length(note) <= 1024),
    PRIMARY KEY (issuer, token_id, subject),
    CHECK ((token_id = '') <> (subject = '')),
    CHECK ((subject = '') = (before IS NULL))
);

-- A program of an earlier version works with the schema. It does not know the table, and so refuses no revoked token.
UPDATE {{.schema}}.schema_version SET oldest = 6;
