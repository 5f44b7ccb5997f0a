-- The index of event ids of the ClickHouse sink, smaller: projections and topics by number, and the id first in the key,
-- which tells two entries apart by itself (docs/decisions/0170-a-smaller-index-of-ids.md).

-- Names of projections and topics, as numbers.
CREATE TABLE quaestor.clickhouse_name (
    number integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL UNIQUE
);
ALTER TABLE quaestor.clickhouse_name OWNER TO quaestor_owner;
GRANT SELECT, INSERT ON quaestor.clickhouse_name TO quaestor_app;
GRANT SELECT ON quaestor.clickhouse_name TO quaestor_reader;

ALTER TABLE quaestor.clickhouse_event RENAME TO clickhouse_event_wide;
ALTER TABLE quaestor.clickhouse_event_wide RENAME CONSTRAINT clickhouse_event_pkey TO clickhouse_event_wide_pkey;

-- The first offset of each event, by its time and a hash of tenant and event id (sinks/clickhouse/known.py). A day is the
-- day of occurred_at, which a repeated event repeats, so a key on a partitioned table still finds it.
CREATE TABLE quaestor.clickhouse_event (
    id uuid NOT NULL,
    -- Of the record's body; the same id with other bytes is a fault.
    content_hash uuid NOT NULL,
    log_offset bigint NOT NULL,
    day date NOT NULL,
    partition integer NOT NULL,
    topic integer NOT NULL,
    projection integer NOT NULL,
    PRIMARY KEY (id, projection, day)
) PARTITION BY RANGE (day);
ALTER TABLE quaestor.clickhouse_event OWNER TO quaestor_owner;
GRANT SELECT, INSERT ON quaestor.clickhouse_event TO quaestor_app;
GRANT SELECT ON quaestor.clickhouse_event TO quaestor_reader;

INSERT INTO quaestor.clickhouse_name (name)
SELECT projection FROM quaestor.clickhouse_event_wide UNION SELECT topic FROM quaestor.clickhouse_event_wide;

DO $$
DECLARE
    wanted date;
    child text;
BEGIN
    FOR wanted IN SELECT day FROM quaestor.clickhouse_event_day ORDER BY day LOOP
        child := 'clickhouse_event' || to_char(wanted, '_YYYY_MM_DD');
        EXECUTE format('ALTER TABLE IF EXISTS quaestor.%I RENAME TO %I', child, child || '_wide');
        PERFORM quaestor.ensure_clickhouse_day(wanted);
    END LOOP;
END
$$;

INSERT INTO quaestor.clickhouse_event (id, content_hash, log_offset, day, partition, topic, projection)
SELECT wide.id, wide.content_hash, wide.log_offset, wide.day, wide.partition, topic.number, projection.number
FROM quaestor.clickhouse_event_wide AS wide
JOIN quaestor.clickhouse_name AS topic ON topic.name = wide.topic
JOIN quaestor.clickhouse_name AS projection ON projection.name = wide.projection;

DROP TABLE quaestor.clickhouse_event_wide;
