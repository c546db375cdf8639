-- The OS that this schema belongs to: one row, written once.
CREATE TABLE {{.schema}}.os (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    id         text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A session id is unique for each owner. Otherwise a caller could occupy the id of another owner's session, or
-- find out that it exists. The owner '' is a caller whose token has no subject (user isolation is off).
CREATE TABLE {{.schema}}.sessions (
    owner        text        NOT NULL CHECK (octet_length(owner) <= 1024),
    session_id   text        NOT NULL CHECK (octet_length(session_id) BETWEEN 1 AND 255),
    session_type text        NOT NULL DEFAULT 'agent' CHECK (session_type IN ('agent', 'team', 'workflow')),
    agent_id     text,
    name         text        NOT NULL DEFAULT '',
    state        jsonb,
    metadata     jsonb,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    PRIMARY KEY (owner, session_id)
);
CREATE INDEX sessions_owner_created ON {{.schema}}.sessions (owner, created_at DESC, session_id);
CREATE INDEX sessions_owner_updated ON {{.schema}}.sessions (owner, updated_at DESC, session_id);
CREATE INDEX sessions_created ON {{.schema}}.sessions (created_at DESC, session_id);
CREATE INDEX sessions_updated ON {{.schema}}.sessions (updated_at DESC, session_id);
CREATE INDEX sessions_id ON {{.schema}}.sessions (session_id);

-- The usage of a session by model: counters to which every run adds its usage when it ends.
CREATE TABLE {{.schema}}.session_usage (
    owner         text   NOT NULL,
    session_id    text   NOT NULL,
    model_id      text   NOT NULL,
    model_family  text   NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    total_tokens  bigint NOT NULL,
    PRIMARY KEY (owner, session_id, model_id, model_family),
    FOREIGN KEY (owner, session_id) REFERENCES {{.schema}}.sessions ON DELETE CASCADE
);

CREATE TABLE {{.schema}}.runs (
    run_id             uuid        PRIMARY KEY,
    seq                bigint      GENERATED ALWAYS AS IDENTITY,
    owner              text        NOT NULL,
    session_id         text        NOT NULL,
    agent_id           text        NOT NULL,
    agent_name         text        NOT NULL,
    model_id           text        NOT NULL,
    model_provider     text        NOT NULL,
    status             text        NOT NULL,
    cancellation_stage text,
    cancel_requested   boolean     NOT NULL DEFAULT false,
    lease_until        timestamptz,
    input              text        NOT NULL,
    content            text,
    provider_data      jsonb,
    messages           jsonb,
    tools              jsonb,
    metrics            jsonb       NOT NULL DEFAULT '{}',
    session_state      jsonb,
    created_at         timestamptz NOT NULL,
    finished_at        timestamptz,
    FOREIGN KEY (owner, session_id) REFERENCES {{.schema}}.sessions ON DELETE CASCADE,
    CHECK (status IN ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'ERROR', 'CANCELLED')),
    CHECK ((status IN ('COMPLETED', 'ERROR', 'CANCELLED')) = (finished_at IS NOT NULL)),
    CHECK ((status IN ('PENDING', 'RUNNING')) = (lease_until IS NOT NULL)),
    CHECK ((status = 'CANCELLED') = (cancellation_stage IS NOT NULL))
);
CREATE INDEX runs_session ON {{.schema}}.runs (owner, session_id, seq);
-- The history query reads the last completed runs of one agent and no other rows.
CREATE INDEX runs_history ON {{.schema}}.runs (owner, session_id, agent_id, seq DESC) WHERE status = 'COMPLETED';
CREATE INDEX runs_lease ON {{.schema}}.runs (lease_until) WHERE status IN ('PENDING', 'RUNNING');
