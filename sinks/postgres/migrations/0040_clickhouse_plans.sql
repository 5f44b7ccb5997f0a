-- What the ClickHouse sink keeps here: its open plans, and where each event was first met (sinks/clickhouse/plans.py).
-- Its cursors stand in stream_cursor like every other.

-- One row per partition of an insert that is planned and not known to be done. `token` is the insert's deduplication
-- token, shared by the partitions of one insert; a row never changes but to be settled, and goes when its whole insert
-- is settled.
CREATE TABLE quaestor.clickhouse_plan (
    projection text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    topic_id text NOT NULL,
    first_offset bigint NOT NULL,
    next_offset bigint NOT NULL,
    -- Offsets left out: quarantined, or events met before at another offset.
    excluded bigint[] NOT NULL,
    token text NOT NULL,
    epoch bigint NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT now(),
    settled boolean NOT NULL DEFAULT false,
    PRIMARY KEY (projection, topic, partition, first_offset),
    CHECK (first_offset < next_offset)
);
CREATE UNIQUE INDEX clickhouse_plan_open ON quaestor.clickhouse_plan (projection, topic, partition) WHERE NOT settled;
CREATE INDEX clickhouse_plan_token ON quaestor.clickhouse_plan (projection, token);

-- The first offset of each event, by the first 16 bytes of SHA-256 of tenant and event id. A day is the day of
-- occurred_at, which a repeated event repeats, so a key on a partitioned table still finds it.
CREATE TABLE quaestor.clickhouse_event (
    projection text NOT NULL,
    day date NOT NULL,
    id uuid NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    log_offset bigint NOT NULL,
    -- Of the record's body; the same id with other bytes is a fault.
    content_hash uuid NOT NULL,
    PRIMARY KEY (projection, id, day)
) PARTITION BY RANGE (day);

CREATE TABLE quaestor.clickhouse_event_day (
    day date PRIMARY KEY,
    made_at timestamptz NOT NULL DEFAULT now()
);

-- Makes the partition of one day; a no-op when it is there.
CREATE FUNCTION quaestor.ensure_clickhouse_day(wanted date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    child text := 'clickhouse_event' || to_char(wanted, '_YYYY_MM_DD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('quaestor.ensure_clickhouse_day'));
    IF to_regclass(format('quaestor.%I', child)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE quaestor.%I (LIKE quaestor.clickhouse_event INCLUDING DEFAULTS)', child);
    EXECUTE format(
        'ALTER TABLE quaestor.clickhouse_event ATTACH PARTITION quaestor.%I FOR VALUES FROM (%L) TO (%L)',
        child, wanted, wanted + 1);
    INSERT INTO quaestor.clickhouse_event_day (day) VALUES (wanted) ON CONFLICT DO NOTHING;
END
$$;

-- Drops days older than the horizon. A day made lately is spared: a projection that is being rebuilt reads old days.
CREATE FUNCTION quaestor.drop_clickhouse_days(horizon_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old date;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('quaestor.ensure_clickhouse_day'));
    FOR old IN
        DELETE FROM quaestor.clickhouse_event_day
        WHERE day < (now() AT TIME ZONE 'UTC')::date - horizon_days AND made_at < now() - interval '2 days'
        RETURNING day
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS quaestor.%I', 'clickhouse_event' || to_char(old, '_YYYY_MM_DD'));
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

ALTER TABLE quaestor.clickhouse_plan OWNER TO quaestor_owner;
ALTER TABLE quaestor.clickhouse_event OWNER TO quaestor_owner;
ALTER TABLE quaestor.clickhouse_event_day OWNER TO quaestor_owner;
GRANT CREATE ON SCHEMA quaestor TO quaestor_owner;
ALTER FUNCTION quaestor.ensure_clickhouse_day(date) OWNER TO quaestor_owner;
ALTER FUNCTION quaestor.drop_clickhouse_days(integer) OWNER TO quaestor_owner;
REVOKE ALL ON FUNCTION quaestor.ensure_clickhouse_day(date), quaestor.drop_clickhouse_days(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quaestor.ensure_clickhouse_day(date), quaestor.drop_clickhouse_days(integer) TO quaestor_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON quaestor.clickhouse_plan TO quaestor_app;
GRANT SELECT, INSERT ON quaestor.clickhouse_event TO quaestor_app;
GRANT SELECT ON quaestor.clickhouse_plan, quaestor.clickhouse_event, quaestor.clickhouse_event_day TO quaestor_reader;
