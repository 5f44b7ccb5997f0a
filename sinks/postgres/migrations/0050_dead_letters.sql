-- What becomes of records that were set aside: their state, what waits behind them, requests of people, pauses.

ALTER TABLE quaestor.quarantine_outbox
    -- QUARANTINED (can't be applied), PARKED (waits behind another, or left by a person), REDRIVEN, DISCARDED.
    ADD COLUMN state text NOT NULL DEFAULT 'QUARANTINED'
        CHECK (state IN ('QUARANTINED', 'PARKED', 'REDRIVEN', 'DISCARDED')),
    ADD COLUMN tenant_id text NOT NULL DEFAULT '_system',
    ADD COLUMN detail text NOT NULL DEFAULT '',
    ADD COLUMN attempts integer NOT NULL DEFAULT 1,
    ADD COLUMN first_seen_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN record_millis bigint NOT NULL DEFAULT 0,
    ADD COLUMN key_bytes bytea,
    -- What later records of the partition wait for.
    ADD COLUMN order_key text,
    ADD COLUMN behind_event_id uuid,
    ADD COLUMN note text,
    -- A redrive was asked for; cut names what is tried together, and does not change while its outcome is unknown.
    ADD COLUMN requested_at timestamptz,
    ADD COLUMN requested_by text,
    ADD COLUMN cut uuid,
    ADD COLUMN settled_at timestamptz,
    ADD COLUMN settled_by text;

UPDATE quaestor.quarantine_outbox SET
    tenant_id = convert_from(body, 'UTF8')::json ->> 'tenant_id',
    detail = convert_from(body, 'UTF8')::json ->> 'detail',
    first_seen_at = kept_at,
    record_millis = (convert_from(body, 'UTF8')::json ->> 'occurred_at')::bigint / 1000,
    key_bytes = decode(convert_from(body, 'UTF8')::json ->> 'key_bytes', 'base64');

CREATE INDEX quarantine_outbox_open ON quaestor.quarantine_outbox (sink, source_topic, source_partition, source_offset)
    WHERE state IN ('QUARANTINED', 'PARKED');
CREATE INDEX quarantine_outbox_requested ON quaestor.quarantine_outbox (sink) WHERE requested_at IS NOT NULL;
CREATE INDEX quarantine_outbox_fingerprint ON quaestor.quarantine_outbox (fingerprint);
GRANT UPDATE (
    state, detail, reason, fingerprint, attempts, behind_event_id, note, requested_at, requested_by, cut,
    settled_at, settled_by
) ON quaestor.quarantine_outbox TO quaestor_app;

-- Events that follow from what people and sinks do with such records, and alerts: kept in the same transaction,
-- published by the relay on `topic`.
CREATE TABLE quaestor.quarantine_event (
    event_id uuid PRIMARY KEY,
    topic text NOT NULL,
    -- The whole event, JSON as msgspec writes it.
    body bytea NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz
);
CREATE INDEX quarantine_event_unpublished ON quaestor.quarantine_event (kept_at) WHERE published_at IS NULL;
ALTER TABLE quaestor.quarantine_event OWNER TO quaestor_owner;
GRANT SELECT, INSERT ON quaestor.quarantine_event TO quaestor_app;
GRANT UPDATE (published_at) ON quaestor.quarantine_event TO quaestor_app;
GRANT SELECT ON quaestor.quarantine_event TO quaestor_reader;

-- Partitions that a sink stopped because too much of them was poison, until a person resumes them.
CREATE TABLE quaestor.partition_pause (
    projection text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    topic_id text NOT NULL,
    -- The record that was one too many; the cursor stands there.
    paused_offset bigint NOT NULL,
    reason text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    resumed_at timestamptz,
    resumed_by text,
    note text,
    -- Below this offset no limit counts.
    lifted_until bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (projection, topic, partition)
);
ALTER TABLE quaestor.partition_pause OWNER TO quaestor_owner;
GRANT SELECT, INSERT, UPDATE ON quaestor.partition_pause TO quaestor_app;
GRANT SELECT ON quaestor.partition_pause TO quaestor_reader;

-- Version 2 of the topic's record.
ALTER TABLE quaestor_v1.quarantine
    ADD COLUMN kind text NOT NULL DEFAULT 'QUARANTINED',
    ADD COLUMN order_key text,
    ADD COLUMN behind_event_id uuid,
    ADD COLUMN note text;
