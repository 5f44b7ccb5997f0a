-- Searching the audit log (docs/decisions/0130). What is looked for stands in the entry's bytes or in columns that are
-- there already, so older entries are found like new ones, and the sequencer writes what it wrote before.

-- occurred_at of an entry, microseconds since the epoch: eight bytes at 69 (docs/reference/audit-format.md).
CREATE FUNCTION quaestor.audit_entry_micros(entry bytea) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ('x' || encode(substr(entry, 70, 8), 'hex'))::bit(64)::bigint;
ALTER FUNCTION quaestor.audit_entry_micros(bytea) OWNER TO quaestor_owner;

-- `kind` of an entry: the fifth of the texts that begin at 122, each behind its length of two bytes.
CREATE FUNCTION quaestor.audit_entry_kind(entry bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    position integer := 122;
BEGIN
    FOR skipped IN 1..4 LOOP
        position := position + 2 + get_byte(entry, position) * 256 + get_byte(entry, position + 1);
    END LOOP;
    RETURN convert_from(
        substr(entry, position + 3, get_byte(entry, position) * 256 + get_byte(entry, position + 1)), 'UTF8');
END
$$;
ALTER FUNCTION quaestor.audit_entry_kind(bytea) OWNER TO quaestor_owner;

-- The times of every 65,536 entries, and whose they are, so that a search looks only where something may be found.
-- Entries come nearly in the order of their times, but for late ones.
CREATE TABLE quaestor.audit_window (
    log text NOT NULL REFERENCES quaestor.audit_log,
    -- Entries [number * 65536, (number + 1) * 65536).
    number bigint NOT NULL,
    first_micros bigint NOT NULL,
    last_micros bigint NOT NULL,
    PRIMARY KEY (log, number)
) WITH (fillfactor = 50);
CREATE TABLE quaestor.audit_window_tenant (
    log text NOT NULL REFERENCES quaestor.audit_log,
    tenant_id text NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (log, tenant_id, number)
);

DO $owners$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['audit_window', 'audit_window_tenant'] LOOP
        EXECUTE format('ALTER TABLE quaestor.%I OWNER TO quaestor_owner', name);
        EXECUTE format('GRANT SELECT, INSERT ON quaestor.%I TO quaestor_app', name);
        EXECUTE format('GRANT SELECT ON quaestor.%I TO quaestor_reader', name);
    END LOOP;
    GRANT UPDATE ON quaestor.audit_window TO quaestor_app;
END
$owners$;

INSERT INTO quaestor.audit_window (log, number, first_micros, last_micros)
SELECT log, seq / 65536, min(quaestor.audit_entry_micros(entry)), max(quaestor.audit_entry_micros(entry))
FROM quaestor.audit_entry GROUP BY 1, 2;
INSERT INTO quaestor.audit_window_tenant (log, tenant_id, number)
SELECT DISTINCT log, tenant_id, seq / 65536 FROM quaestor.audit_entry;
