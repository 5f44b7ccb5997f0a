"""Every statement of the plans of the ClickHouse sink, named."""

from __future__ import annotations

#: Rows are taken in one order everywhere, so that two owners never wait for each other in a ring.
HOLD = """
SELECT held.topic, held.partition, held.next_offset, held.epoch
FROM quaestor.stream_cursor AS held
JOIN unnest($2::text[], $3::integer[]) AS given (topic, partition) USING (topic, partition)
WHERE held.projection = $1
ORDER BY topic, partition
FOR UPDATE OF held
"""
LEFT_OPEN = """
SELECT
    token, topic, partition, topic_id, first_offset, next_offset, excluded,
    extract(epoch FROM now() - planned_at)::float8 AS age_seconds
FROM quaestor.clickhouse_plan
WHERE projection = $1 AND token IN (
    SELECT token
    FROM quaestor.clickhouse_plan
    JOIN unnest($2::text[], $3::integer[]) AS given (topic, partition) USING (topic, partition)
    WHERE projection = $1 AND NOT settled
)
ORDER BY token, partition
"""
USE_DAY = "SELECT quaestor.use_clickhouse_day($1, $2)"
DROP_DAYS = "SELECT quaestor.drop_clickhouse_days($1)"
#: Names that have no number yet get one; asked alone, since a statement does not see what it inserts itself.
ENSURE_NAMES = """
INSERT INTO quaestor.clickhouse_name (name)
SELECT given.name
FROM unnest($1::text[]) AS given (name)
WHERE NOT EXISTS (SELECT FROM quaestor.clickhouse_name AS known WHERE known.name = given.name)
ON CONFLICT (name) DO NOTHING
"""
NAMES = "SELECT name, number FROM quaestor.clickhouse_name WHERE name = ANY($1::text[])"
#: Given in the order of the log, so that of two copies in one batch the first stays.
LEARN = """
INSERT INTO quaestor.clickhouse_event (id, content_hash, log_offset, day, partition, topic, projection)
SELECT id, content_hash, log_offset, day, partition, topic, $1
FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::date[], $6::integer[], $7::integer[])
    AS given (id, content_hash, log_offset, day, partition, topic)
ON CONFLICT (id, projection, day) DO NOTHING
"""
REPEATED = """
SELECT
    given.topic, given.partition, given.log_offset, given.content_hash = met.content_hash AS is_same
FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::date[], $6::integer[], $7::integer[])
    AS given (id, content_hash, log_offset, day, partition, topic)
JOIN quaestor.clickhouse_event AS met ON met.id = given.id AND met.projection = $1 AND met.day = given.day
WHERE (met.topic, met.partition, met.log_offset) <> (given.topic, given.partition, given.log_offset)
"""
PLAN = """
INSERT INTO quaestor.clickhouse_plan
    (projection, topic, partition, topic_id, first_offset, next_offset, excluded, token, epoch)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
SETTLE = """
UPDATE quaestor.clickhouse_plan AS open
SET settled = true
FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS given (topic, partition, first_offset)
WHERE open.projection = $1
    AND open.topic = given.topic
    AND open.partition = given.partition
    AND open.first_offset = given.first_offset
"""
FORGET = """
DELETE FROM quaestor.clickhouse_plan AS done
WHERE done.projection = $1 AND NOT EXISTS (
    SELECT FROM quaestor.clickhouse_plan AS open
    WHERE open.projection = $1 AND open.token = done.token AND NOT open.settled
)
"""
