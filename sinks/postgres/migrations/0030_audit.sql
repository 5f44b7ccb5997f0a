-- The audit log: entries in the sequencer's order, chain heads, cursors, checkpoints. Rows are only ever added.

CREATE TABLE audit_log (
    log              text   PRIMARY KEY,
    -- Grows with every claim; a sequencer with an older one is refused.
    epoch            bigint NOT NULL DEFAULT 0,
    owner            text   NOT NULL DEFAULT '',
    -- Position of the next entry.
    next_seq         bigint NOT NULL DEFAULT 0,
    -- Entries that are in durable tiles, and their root.
    integrated_size  bigint NOT NULL DEFAULT 0,
    integrated_root  bytea  NOT NULL DEFAULT '\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    CHECK (integrated_size <= next_seq)
);

CREATE TABLE audit_cursor (
    log          text    NOT NULL REFERENCES audit_log,
    topic        text    NOT NULL,
    partition    integer NOT NULL,
    topic_id     text    NOT NULL,
    next_offset  bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (log, topic, partition)
);

CREATE TABLE audit_head (
    log        text   NOT NULL REFERENCES audit_log,
    tenant_id  text   NOT NULL,
    tseq       bigint NOT NULL,
    chain      bytea  NOT NULL,
    PRIMARY KEY (log, tenant_id)
);

CREATE TABLE audit_checkpoint (
    log        text        NOT NULL REFERENCES audit_log,
    size       bigint      NOT NULL,
    note       text        NOT NULL,
    kept_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log, size)
);

-- Partitions have bounds at multiples of 1,048,576 (16 of the 65,536 that retention moves in); the sequencer makes them.
CREATE TABLE audit_entry (
    log          text    NOT NULL,
    seq          bigint  NOT NULL,
    tenant_id    text    NOT NULL,
    tseq         bigint  NOT NULL,
    chain        bytea   NOT NULL,
    leaf         bytea   NOT NULL,
    entry        bytea   NOT NULL,
    topic        text    NOT NULL,
    partition    integer NOT NULL,
    "offset"     bigint  NOT NULL,
    event_id     uuid,
    request_id   uuid,
    amount_nano  bigint,
    PRIMARY KEY (log, seq)
) PARTITION BY RANGE (seq);

CREATE INDEX audit_entry_request ON audit_entry (request_id) WHERE request_id IS NOT NULL;

CREATE FUNCTION audit_entry_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are never changed or deleted';
END
$$;

-- A guard against mistakes; against a superuser only the signed checkpoints help.
CREATE TRIGGER audit_entry_final BEFORE UPDATE OR DELETE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION audit_entry_is_final();
