"""Every statement of the quarantine, named."""

# ruff: noqa: S608 - conditions and columns are our own, never input
from __future__ import annotations

#: What tells an unresolved record; the partial index says the same.
OPEN = "state IN ('QUARANTINED', 'PARKED')"
OF_PARTITION = "sink = $1 AND source_topic = $2 AND source_partition = $3"
#: What the first event of a record is read from, or made of where its body can't be read.
FIRST = (
    "event_id::text, sink, source_topic, source_topic_id, source_partition, source_offset, reason, detail, fingerprint,"
    " tenant_id, attempts, first_seen_at, record_millis, key_bytes, order_key, behind_event_id::text, body"
)
WAITING = (
    "event_id::text, source_offset, order_key, key_bytes, record_millis, state, behind_event_id IS NOT NULL AS follows"
)

KEEP = """
INSERT INTO quaestor.quarantine_outbox (
    event_id, sink, source_topic, source_topic_id, source_partition, source_offset, reason, fingerprint, body,
    state, tenant_id, detail, attempts, first_seen_at, record_millis, key_bytes, order_key, behind_event_id
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
ON CONFLICT (event_id) DO NOTHING
"""
#: Whoever settles one of these waits until what is kept behind it can be seen, or was before and can be seen by us.
HOLD_HEADS = """
SELECT 1 FROM quaestor.quarantine_outbox WHERE event_id = ANY($1::uuid[]) ORDER BY event_id FOR SHARE
"""
#: What was parked behind a record that is settled by now: its owner had not heard of that.
ASK_FOR_LATE = f"""
UPDATE quaestor.quarantine_outbox AS follower
SET requested_at = now(), requested_by = 'sink/' || sink
WHERE event_id = ANY($1::uuid[])
    AND state = 'PARKED'
    AND NOT EXISTS (
        SELECT 1 FROM quaestor.quarantine_outbox AS head
        WHERE head.event_id = follower.behind_event_id AND head.{OPEN}
    )
"""
#: In the order they were kept; records that were kept together have one time, and go in the order of the log.
UNPUBLISHED = """
SELECT event_id::text, topic, body
FROM (
    (SELECT event_id, 'quaestor.quarantine' AS topic, body, kept_at, source_partition, source_offset
    FROM quaestor.quarantine_outbox
    WHERE published_at IS NULL AND event_id <> ALL($2::uuid[])
    ORDER BY kept_at, source_partition, source_offset
    LIMIT $1)
    UNION ALL
    (SELECT event_id, topic, body, kept_at, NULL, NULL
    FROM quaestor.quarantine_event
    WHERE published_at IS NULL AND event_id <> ALL($2::uuid[])
    ORDER BY kept_at
    LIMIT $1)
) AS kept
ORDER BY kept_at, source_partition, source_offset
LIMIT $1
"""
MARK_PUBLISHED = """
UPDATE quaestor.quarantine_outbox SET published_at = now() WHERE event_id = ANY($1::uuid[]) AND published_at IS NULL
"""
MARK_EVENT_PUBLISHED = """
UPDATE quaestor.quarantine_event SET published_at = now() WHERE event_id = ANY($1::uuid[]) AND published_at IS NULL
"""
TELL = """
INSERT INTO quaestor.quarantine_event (event_id, topic, body) VALUES ($1, $2, $3) ON CONFLICT (event_id) DO NOTHING
"""

# What an owner must know.
STANDINGS = f"""
SELECT source_topic, source_partition, {WAITING}
FROM quaestor.quarantine_outbox
JOIN unnest($2::text[], $3::integer[]) AS given (topic, partition)
    ON source_topic = given.topic AND source_partition = given.partition
WHERE sink = $1 AND {OPEN}
"""
DISCARDED = """
SELECT source_topic, source_partition, source_offset
FROM quaestor.quarantine_outbox
JOIN unnest($2::text[], $3::integer[], $4::bigint[]) AS given (topic, partition, cursor)
    ON source_topic = given.topic AND source_partition = given.partition AND source_offset >= given.cursor
WHERE sink = $1 AND state = 'DISCARDED'
"""
PAUSES_OF = """
SELECT held.topic, held.partition, held.reason, held.resumed_at IS NOT NULL AS is_resumed, held.lifted_until
FROM quaestor.partition_pause AS held
JOIN unnest($2::text[], $3::integer[]) AS given (topic, partition) USING (topic, partition)
WHERE held.projection = $1
"""
PAUSE = """
INSERT INTO quaestor.partition_pause (projection, topic, partition, topic_id, paused_offset, reason)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (projection, topic, partition) DO UPDATE SET
    topic_id = excluded.topic_id, paused_offset = excluded.paused_offset, reason = excluded.reason, paused_at = now(),
    resumed_at = NULL, resumed_by = NULL, note = NULL, lifted_until = 0
"""
CALLS = """
SELECT DISTINCT source_topic AS topic, source_partition AS partition, false AS is_resumed
FROM quaestor.quarantine_outbox
WHERE sink = $1 AND requested_at IS NOT NULL
UNION ALL
SELECT topic, partition, true FROM quaestor.partition_pause WHERE projection = $1 AND resumed_at IS NOT NULL
"""

# Redriving. Rows are taken and settled by one owner at a time: the lock is the partition's.
LOCK_PARTITION = "SELECT pg_advisory_xact_lock(hashtextextended($1 || '/' || $2 || '/' || $3::integer::text, 0))"
PINNED = f"""
SELECT {FIRST} FROM quaestor.quarantine_outbox WHERE {OF_PARTITION} AND cut IS NOT NULL ORDER BY source_offset
"""
CANDIDATES = f"""
SELECT {WAITING}, requested_at IS NOT NULL AS requested
FROM quaestor.quarantine_outbox
WHERE {OF_PARTITION} AND ({OPEN} OR requested_at IS NOT NULL)
"""
PIN = "UPDATE quaestor.quarantine_outbox SET cut = $2 WHERE event_id = ANY($1::uuid[])"
NOTHING_GOES = f"""
UPDATE quaestor.quarantine_outbox SET requested_at = NULL, requested_by = NULL
WHERE {OF_PARTITION} AND requested_at IS NOT NULL AND source_offset < $4
"""
IN_CUT = f"SELECT {FIRST} FROM quaestor.quarantine_outbox WHERE {OF_PARTITION} AND cut IS NOT NULL"
REDRIVEN = """
UPDATE quaestor.quarantine_outbox
SET state = 'REDRIVEN', attempts = attempts + 1, settled_at = now(), settled_by = $2
WHERE event_id = ANY($1::uuid[])
"""
FAILED = """
UPDATE quaestor.quarantine_outbox
SET state = 'QUARANTINED', attempts = attempts + 1, behind_event_id = NULL, reason = $2, detail = $3, fingerprint = $4
WHERE event_id = $1
"""
UNPIN = f"""
UPDATE quaestor.quarantine_outbox SET cut = NULL, requested_at = NULL, requested_by = NULL
WHERE {OF_PARTITION} AND cut IS NOT NULL
"""
#: What waited behind these, or comes after them in their chains (of a record that could not be read: has its key);
#: may_go says which of it may be applied.
FREE_FOLLOWERS = """
UPDATE quaestor.quarantine_outbox AS follower
SET requested_at = now(), requested_by = $2
FROM quaestor.quarantine_outbox AS gone
WHERE gone.event_id = ANY($1::uuid[])
    AND follower.sink = gone.sink
    AND follower.source_topic = gone.source_topic
    AND follower.source_partition = gone.source_partition
    AND follower.state = 'PARKED'
    AND follower.behind_event_id IS NOT NULL
    AND (
        follower.behind_event_id = gone.event_id
        OR follower.order_key = gone.order_key
        OR gone.order_key IS NULL AND follower.key_bytes = gone.key_bytes
    )
"""

# People.
LETTER = """
event_id::text, sink, source_topic, source_partition, source_offset, state, reason, detail, fingerprint, tenant_id,
attempts, first_seen_at, record_millis * 1000 AS record_at, order_key, behind_event_id::text,
requested_at IS NOT NULL AS requested, note, settled_by
"""
FIND = f"""
SELECT {LETTER}
FROM quaestor.quarantine_outbox
WHERE ($1::uuid[] IS NULL OR event_id = ANY($1))
    AND ($2::text[] IS NULL OR state = ANY($2))
    AND ($3::text IS NULL OR sink = $3)
    AND ($4::text IS NULL OR source_topic = $4)
    AND ($5::text IS NULL OR tenant_id = $5)
    AND ($6::text IS NULL OR fingerprint = $6)
    AND ($7::bigint IS NULL OR record_millis * 1000 >= $7)
    AND ($8::bigint IS NULL OR record_millis * 1000 < $8)
ORDER BY kept_at, source_topic, source_partition, source_offset
LIMIT $9
"""
SHOW = f"""
SELECT {LETTER}, source_topic_id, record_millis, key_bytes, body FROM quaestor.quarantine_outbox WHERE event_id = $1
"""
REQUEST = """
UPDATE quaestor.quarantine_outbox
SET requested_at = now(), requested_by = $2
WHERE event_id = ANY($1::uuid[]) AND state = ANY($3::text[])
"""
#: A record that is being redriven is nobody's to decide on: cut says so.
PARK = f"""
UPDATE quaestor.quarantine_outbox
SET state = 'PARKED', note = $2
WHERE event_id = ANY($1::uuid[]) AND state = 'QUARANTINED' AND cut IS NULL
RETURNING {FIRST}
"""
DISCARD = f"""
UPDATE quaestor.quarantine_outbox
SET state = 'DISCARDED', note = $2, settled_at = now(), settled_by = $3, requested_at = NULL, requested_by = NULL
WHERE event_id = ANY($1::uuid[]) AND state IN ('QUARANTINED', 'PARKED') AND cut IS NULL
RETURNING {FIRST}
"""
PAUSES = """
SELECT projection, topic, partition, paused_offset, reason, paused_at
FROM quaestor.partition_pause
WHERE resumed_at IS NULL
ORDER BY projection, topic, partition
"""
RESUME = """
UPDATE quaestor.partition_pause
SET resumed_at = now(), resumed_by = $4, lifted_until = $5
WHERE projection = $1 AND topic = $2 AND partition = $3 AND resumed_at IS NULL
"""
