-- Which days of the index of event ids a projection of ClickHouse still needs: each for itself, by how far it has come
-- (docs/decisions/0170-a-smaller-index-of-ids.md).

-- When a projection last entered an event of a day. Told again about every hour, not with every event.
CREATE TABLE quaestor.clickhouse_day_use (
    projection integer NOT NULL,
    day date NOT NULL,
    used_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, day)
);
ALTER TABLE quaestor.clickhouse_day_use OWNER TO quaestor_owner;
GRANT SELECT ON quaestor.clickhouse_day_use TO quaestor_reader;

INSERT INTO quaestor.clickhouse_day_use (projection, day)
SELECT DISTINCT projection, day FROM quaestor.clickhouse_event;

-- Says that a projection enters events of a day now; makes the day's partition where there is none.
CREATE FUNCTION quaestor.use_clickhouse_day(wanted date, by_projection integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM quaestor.ensure_clickhouse_day(wanted);
    INSERT INTO quaestor.clickhouse_day_use AS known (projection, day)
    VALUES (by_projection, wanted)
    ON CONFLICT (projection, day) DO UPDATE SET used_at = now();
END
$$;
ALTER FUNCTION quaestor.use_clickhouse_day(date, integer) OWNER TO quaestor_owner;
REVOKE ALL ON FUNCTION quaestor.use_clickhouse_day(date, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quaestor.use_clickhouse_day(date, integer) TO quaestor_app;

-- Drops days that no projection needs any more. One has passed a day when it has entered events that are more than the
-- horizon younger (an event's own time may lie in the future: today counts for that), and none of that day lately: the
-- slowest of its partitions is through with it. A day made lately stays, whoever made it.
CREATE OR REPLACE FUNCTION quaestor.drop_clickhouse_days(horizon_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    lately timestamptz := now() - interval '2 days';
    old date;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('quaestor.ensure_clickhouse_day'));
    DELETE FROM quaestor.clickhouse_day_use AS used
    USING (SELECT projection, max(day) AS day FROM quaestor.clickhouse_day_use GROUP BY projection) AS reached
    WHERE used.projection = reached.projection
        AND used.day < least(reached.day, today) - horizon_days
        AND used.used_at < lately;
    FOR old IN
        DELETE FROM quaestor.clickhouse_event_day AS made
        WHERE made.day < today - horizon_days AND made.made_at < lately
            AND NOT EXISTS (SELECT FROM quaestor.clickhouse_day_use AS used WHERE used.day = made.day)
        RETURNING made.day
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS quaestor.%I', 'clickhouse_event' || to_char(old, '_YYYY_MM_DD'));
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
