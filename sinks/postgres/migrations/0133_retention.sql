-- What retention may drop, and who may: a role that can do nothing else, through two functions that check what they are
-- asked (docs/decisions/0133-what-retention-gives-up.md). Sinks and gateways don't have it.

DO $role$
BEGIN
    BEGIN
        CREATE ROLE quaestor_retention NOLOGIN NOBYPASSRLS;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN NULL;
    END;
    EXECUTE format('GRANT quaestor_retention TO %I', session_user);
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the user % may not create roles: give it CREATEROLE, or create quaestor_retention', session_user;
END
$role$;
GRANT USAGE ON SCHEMA quaestor, quaestor_v1 TO quaestor_retention;

-- Drops the table partitions whose entries all stand below a position; answers how many. What shares a partition with
-- entries that stay, or with those of another log, stays as well.
CREATE FUNCTION quaestor.drop_audit_entries(of_log text, below bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entries constant bigint := 1048576;
    child text;
    shared boolean;
    dropped integer := 0;
BEGIN
    -- A log goes on from its last entries: they are never below.
    IF below <= 0 OR below % 65536 <> 0 OR NOT EXISTS (
        SELECT FROM quaestor.audit_log WHERE log = of_log AND integrated_size > below
    ) THEN
        RAISE EXCEPTION 'entries below % of the audit log % can''t be dropped', below, of_log
            USING ERRCODE = 'data_exception';
    END IF;
    FOR number IN 0 .. below / entries - 1 LOOP
        child := format('audit_entry_%s', lpad(number::text, 6, '0'));
        CONTINUE WHEN to_regclass(format('quaestor.%I', child)) IS NULL;
        -- Before looking, so that no other log enters anything after; in the order in which writers lock.
        LOCK TABLE ONLY quaestor.audit_entry IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('SELECT EXISTS (SELECT FROM quaestor.%I WHERE log <> $1)', child) INTO shared USING of_log;
        CONTINUE WHEN shared;
        EXECUTE format('DROP TABLE quaestor.%I', child);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
ALTER FUNCTION quaestor.drop_audit_entries(text, bigint) OWNER TO quaestor_owner;

-- Drops one month (UTC) of an event table that retention may cut; whether there was one. The books (costs, budgets,
-- transfers, control, quarantine, alerts) are not among these tables, and a young month is refused.
CREATE FUNCTION quaestor.drop_month(event_table text, month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first_day date := date_trunc('month', month);
    child text := event_table || to_char(first_day, '_YYYY_MM');
BEGIN
    IF event_table NOT IN ('request_event', 'decision', 'attempt', 'health')
        OR (first_day + interval '1 month') AT TIME ZONE 'UTC' > now() - interval '30 days' THEN
        RAISE EXCEPTION 'the month % of % can''t be dropped', first_day, event_table USING ERRCODE = 'data_exception';
    END IF;
    IF to_regclass(format('quaestor_v1.%I', child)) IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE quaestor_v1.%I', child);
    RETURN true;
END
$$;
ALTER FUNCTION quaestor.drop_month(text, date) OWNER TO quaestor_owner;

-- The months of those tables that begin before a day, their rows and bytes.
CREATE FUNCTION quaestor.retained_months(before date)
RETURNS TABLE (event_table text, month date, row_count bigint, byte_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    child record;
BEGIN
    FOR child IN
        SELECT parent.relname AS of_table, part.relname AS name, part.oid AS id
        FROM pg_inherits
        JOIN pg_class AS parent ON parent.oid = inhparent
        JOIN pg_class AS part ON part.oid = inhrelid
        WHERE parent.relnamespace = 'quaestor_v1'::regnamespace AND parent.relkind = 'p'
            AND parent.relname IN ('request_event', 'decision', 'attempt', 'health')
        ORDER BY part.relname
    LOOP
        event_table := child.of_table;
        month := to_date(right(child.name, 7), 'YYYY_MM');
        CONTINUE WHEN month >= before;
        EXECUTE format('SELECT count(*) FROM quaestor_v1.%I', child.name) INTO row_count;
        byte_count := pg_total_relation_size(child.id);
        RETURN NEXT;
    END LOOP;
END
$$;
ALTER FUNCTION quaestor.retained_months(date) OWNER TO quaestor_owner;

REVOKE ALL ON FUNCTION quaestor.drop_audit_entries(text, bigint), quaestor.drop_month(text, date),
    quaestor.retained_months(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quaestor.drop_audit_entries(text, bigint), quaestor.drop_month(text, date),
    quaestor.retained_months(date) TO quaestor_retention;
