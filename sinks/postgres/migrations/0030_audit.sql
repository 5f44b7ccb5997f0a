-- The audit log: entries in the sequencer's order, chain heads, cursors, checkpoints. It is primary data, not a
-- projection: its order over topics exists nowhere else, so it lives beside the versioned schemas and is backed up.

CREATE TABLE quaestor.audit_log (
    log text PRIMARY KEY,
    -- Grows with every claim; a sequencer with an older one is refused.
    epoch bigint NOT NULL DEFAULT 0,
    owner text NOT NULL DEFAULT '',
    -- Position of the next entry.
    next_seq bigint NOT NULL DEFAULT 0,
    -- Entries that are in durable tiles, and the root over them (of no entries: SHA-256 of nothing).
    integrated_size bigint NOT NULL DEFAULT 0 CHECK (integrated_size <= next_seq),
    integrated_root bytea NOT NULL DEFAULT '\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
) WITH (fillfactor = 50);

CREATE TABLE quaestor.audit_cursor (
    log text NOT NULL REFERENCES quaestor.audit_log,
    topic text NOT NULL,
    partition integer NOT NULL,
    -- The topic's UUID, so that a re-created topic is not mistaken for the old one.
    topic_id text NOT NULL,
    -- The next offset to enter.
    next_offset bigint NOT NULL DEFAULT 0 CHECK (next_offset >= 0),
    PRIMARY KEY (log, topic, partition)
) WITH (fillfactor = 50);

-- Where each tenant's chain stands.
CREATE TABLE quaestor.audit_head (
    log text NOT NULL REFERENCES quaestor.audit_log,
    tenant_id text NOT NULL,
    tseq bigint NOT NULL,
    chain bytea NOT NULL,
    PRIMARY KEY (log, tenant_id)
) WITH (fillfactor = 50);

-- Every checkpoint that was signed and published.
CREATE TABLE quaestor.audit_checkpoint (
    log text NOT NULL REFERENCES quaestor.audit_log,
    size bigint NOT NULL,
    note text NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log, size)
);

-- One row per record of the audited topics. Partitions have bounds at multiples of 1,048,576 entries, 16 times the
-- 65,536 that the log's minimum index moves in; ensure_audit_entries makes them.
CREATE TABLE quaestor.audit_entry (
    log text NOT NULL,
    seq bigint NOT NULL,
    tenant_id text NOT NULL,
    tseq bigint NOT NULL,
    chain bytea NOT NULL,
    leaf bytea NOT NULL,
    -- The entry's bytes (docs/reference/audit-format.md); what the other columns say is in them.
    entry bytea NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    -- Null when the record could not be decoded.
    event_id uuid,
    request_id text,
    amount_nano bigint,
    PRIMARY KEY (log, seq)
) PARTITION BY RANGE (seq);

CREATE INDEX audit_entry_request ON quaestor.audit_entry (request_id) WHERE request_id IS NOT NULL;

-- A guard against mistakes. Nothing in the database stops its superuser: the signed checkpoints show what he did.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quaestor.audit_entry
    FOR EACH ROW EXECUTE FUNCTION quaestor.refuse_change();
ALTER TABLE quaestor.audit_entry ENABLE ALWAYS TRIGGER append_only;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quaestor.audit_checkpoint
    FOR EACH ROW EXECUTE FUNCTION quaestor.refuse_change();
ALTER TABLE quaestor.audit_checkpoint ENABLE ALWAYS TRIGGER append_only;

DO $owners$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['audit_log', 'audit_cursor', 'audit_head', 'audit_checkpoint', 'audit_entry'] LOOP
        EXECUTE format('ALTER TABLE quaestor.%I OWNER TO quaestor_owner', name);
        EXECUTE format('GRANT SELECT, INSERT ON quaestor.%I TO quaestor_app', name);
        EXECUTE format('GRANT SELECT ON quaestor.%I TO quaestor_reader', name);
    END LOOP;
    GRANT UPDATE ON quaestor.audit_log, quaestor.audit_cursor, quaestor.audit_head TO quaestor_app;
END
$owners$;

-- Makes the table partition that holds an entry; a no-op when it is there. Answers the first position after it.
CREATE FUNCTION quaestor.ensure_audit_entries(seq bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entries constant bigint := 1048576;
    number bigint := seq / entries;
    child text := format('audit_entry_%s', lpad(number::text, 6, '0'));
BEGIN
    IF to_regclass(format('quaestor.%I', child)) IS NULL THEN
        -- Attached, not created in place: readers of the parent are not kept out.
        EXECUTE format('CREATE TABLE quaestor.%I (LIKE quaestor.audit_entry INCLUDING DEFAULTS)', child);
        EXECUTE format(
            'ALTER TABLE quaestor.audit_entry ATTACH PARTITION quaestor.%I FOR VALUES FROM (%L) TO (%L)',
            child, number * entries, (number + 1) * entries);
        EXECUTE format(
            'CREATE TRIGGER no_truncate BEFORE TRUNCATE ON quaestor.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION quaestor.refuse_change()', child);
        EXECUTE format('ALTER TABLE quaestor.%I ENABLE ALWAYS TRIGGER no_truncate', child);
        EXECUTE format('GRANT SELECT ON quaestor.%I TO quaestor_reader', child);
    END IF;
    RETURN (number + 1) * entries;
END
$$;
ALTER FUNCTION quaestor.ensure_audit_entries(bigint) OWNER TO quaestor_owner;
REVOKE EXECUTE ON FUNCTION quaestor.ensure_audit_entries(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quaestor.ensure_audit_entries(bigint) TO quaestor_app;
