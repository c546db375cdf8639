-- A session without a name shows its first message. NULL: it has neither a name nor a message.
ALTER TABLE {{.schema}}.sessions
    ALTER COLUMN name DROP NOT NULL,
    ALTER COLUMN name DROP DEFAULT,
    ADD COLUMN team_id text,
    ADD COLUMN workflow_id text,
    ADD COLUMN summary jsonb;
UPDATE {{.schema}}.sessions SET name = NULL WHERE name = '';
CREATE INDEX sessions_owner_agent ON {{.schema}}.sessions (owner, agent_id, created_at DESC, session_id);

CREATE TABLE {{.schema}}.memories (
    memory_id  uuid        PRIMARY KEY,
    owner      text        NOT NULL CHECK (octet_length(owner) BETWEEN 1 AND 1024),
    memory     text        NOT NULL CHECK (memory <> ''),
    topics     text[]      NOT NULL,
    agent_id   text,
    team_id    text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX memories_owner_updated ON {{.schema}}.memories (owner, updated_at DESC, memory_id);
CREATE INDEX memories_owner_created ON {{.schema}}.memories (owner, created_at DESC, memory_id);
CREATE INDEX memories_updated ON {{.schema}}.memories (updated_at DESC, memory_id);

-- json keeps the order of members, which most routes return; a route that returns jsonb's order casts.
ALTER TABLE {{.schema}}.runs
    ALTER COLUMN provider_data TYPE json,
    ALTER COLUMN messages      TYPE json,
    ALTER COLUMN tools         TYPE json,
    ALTER COLUMN metrics DROP DEFAULT,
    ALTER COLUMN metrics       TYPE json,
    ALTER COLUMN metrics SET DEFAULT '{}',
    ADD COLUMN background   boolean NOT NULL DEFAULT false,
    ADD COLUMN streamed     boolean NOT NULL DEFAULT false, -- its events are stored in run_events
    ADD COLUMN metadata     jsonb,
    ADD COLUMN files        json,                           -- of its input
    ADD COLUMN requirements json;                           -- what a person must decide

-- The events of streamed runs, as they were sent to the client: a row holds the frames of half a second.
CREATE TABLE {{.schema}}.run_events (
    run_id      uuid    NOT NULL REFERENCES {{.schema}}.runs ON DELETE CASCADE,
    first_index integer NOT NULL,
    count       integer NOT NULL CHECK (count > 0),
    frames      text    NOT NULL,
    PRIMARY KEY (run_id, first_index)
);
