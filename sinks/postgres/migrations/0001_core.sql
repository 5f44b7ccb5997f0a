-- Roles, schemas and what is not a projection: cursors and the quarantine outbox.
--
-- `quaestor` holds operational tables, shared by all versions of all projections. `quaestor_v1` holds what can be
-- rebuilt from the log; a later version is built beside it and swapped by renaming schemas. Roles belong to the whole
-- server, so they may exist already.

DO $roles$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['quaestor_owner', 'quaestor_app', 'quaestor_reader', 'quaestor_vault'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', name);
        EXCEPTION
            -- Another migration on this server may be making the very same role.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
    EXECUTE format('GRANT quaestor_owner, quaestor_app, quaestor_reader, quaestor_vault TO %I', session_user);
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the user % may not create roles: give it CREATEROLE, or create the quaestor_* roles', session_user;
END
$roles$;

CREATE SCHEMA quaestor_v1 AUTHORIZATION quaestor_owner;
ALTER SCHEMA quaestor OWNER TO quaestor_owner;
GRANT USAGE ON SCHEMA quaestor, quaestor_v1 TO quaestor_app, quaestor_reader;
GRANT USAGE ON SCHEMA quaestor TO quaestor_vault;

DO $database$
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO quaestor_app', current_database());
    EXECUTE format('ALTER DATABASE %I SET search_path = quaestor_v1, quaestor, public', current_database());
END
$database$;

-- Where each projection stands, and who may move it (sinks.md 1.1): the epoch is the fence.
CREATE TABLE quaestor.stream_cursor (
    projection text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    -- The topic's UUID, so that a re-created topic is not mistaken for the old one.
    topic_id text NOT NULL,
    -- The next offset to apply.
    next_offset bigint NOT NULL DEFAULT 0 CHECK (next_offset >= 0),
    epoch bigint NOT NULL DEFAULT 1,
    owner text NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    applied_at timestamptz,
    PRIMARY KEY (projection, topic, partition)
) WITH (fillfactor = 50);
ALTER TABLE quaestor.stream_cursor OWNER TO quaestor_owner;
GRANT SELECT, INSERT, UPDATE ON quaestor.stream_cursor TO quaestor_app;
GRANT SELECT ON quaestor.stream_cursor TO quaestor_reader;

-- Records that some sink could not take: kept here durably before the sink moves on, then published on
-- quaestor.quarantine (published_at). The id is a function of topic UUID, partition, offset and sink.
CREATE TABLE quaestor.quarantine_outbox (
    event_id uuid PRIMARY KEY,
    sink text NOT NULL,
    source_topic text NOT NULL,
    source_topic_id text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    reason text NOT NULL,
    fingerprint text NOT NULL,
    -- The whole event, JSON as msgspec writes it.
    body bytea NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX quarantine_outbox_unpublished ON quaestor.quarantine_outbox (kept_at) WHERE published_at IS NULL;
CREATE INDEX quarantine_outbox_position ON quaestor.quarantine_outbox (sink, source_topic, source_partition, source_offset);
ALTER TABLE quaestor.quarantine_outbox OWNER TO quaestor_owner;
GRANT SELECT, INSERT ON quaestor.quarantine_outbox TO quaestor_app;
GRANT UPDATE (published_at) ON quaestor.quarantine_outbox TO quaestor_app;
GRANT SELECT ON quaestor.quarantine_outbox TO quaestor_reader;
