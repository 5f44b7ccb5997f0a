"""The SQL of the audit log."""

from __future__ import annotations

from typing import Final

MAKE_LOG: Final = "INSERT INTO quaestor.audit_log (log) VALUES ($1) ON CONFLICT DO NOTHING"

CLAIM: Final = """
UPDATE quaestor.audit_log SET epoch = epoch + 1, owner = $2 WHERE log = $1
RETURNING epoch, next_seq, integrated_size, integrated_root
"""

STATE: Final = "SELECT epoch, next_seq, integrated_size, integrated_root FROM quaestor.audit_log WHERE log = $1"

MAKE_CURSORS: Final = """
INSERT INTO quaestor.audit_cursor (log, topic, partition, topic_id)
SELECT $1, topic, partition, topic_id FROM unnest($2::text[], $3::int[], $4::text[]) AS new (topic, partition, topic_id)
ON CONFLICT DO NOTHING
"""

FOREIGN_CURSOR: Final = """
SELECT topic, partition, known.topic_id, new.topic_id AS new_topic_id
FROM quaestor.audit_cursor AS known
JOIN unnest($2::text[], $3::int[], $4::text[]) AS new (topic, partition, topic_id) USING (topic, partition)
WHERE log = $1 AND known.topic_id <> new.topic_id
ORDER BY topic, partition LIMIT 1
"""

CURSORS: Final = "SELECT topic, partition, next_offset FROM quaestor.audit_cursor WHERE log = $1"

HEADS: Final = "SELECT tenant_id, tseq, chain FROM quaestor.audit_head WHERE log = $1"

HEADS_OF: Final = (
    "SELECT tenant_id, tseq, chain FROM quaestor.audit_head WHERE log = $1 AND tenant_id = ANY($2::text[])"
)

# First statement of every batch: the row lock orders sequencers, the epoch and position refuse an older one.
ADVANCE: Final = """
UPDATE quaestor.audit_log SET next_seq = $4 WHERE log = $1 AND epoch = $2 AND next_seq = $3 RETURNING next_seq
"""

MOVE_CURSORS: Final = """
UPDATE quaestor.audit_cursor AS cursor SET next_offset = move.next_offset
FROM unnest($2::text[], $3::int[], $4::text[], $5::bigint[], $6::bigint[])
    AS move (topic, partition, topic_id, first_offset, next_offset)
WHERE cursor.log = $1 AND cursor.topic = move.topic AND cursor.partition = move.partition
    AND cursor.topic_id = move.topic_id AND cursor.next_offset = move.first_offset
RETURNING 1
"""

MOVE_HEADS: Final = """
INSERT INTO quaestor.audit_head (log, tenant_id, tseq, chain)
SELECT $1, tenant_id, tseq, chain FROM unnest($2::text[], $3::bigint[], $4::bytea[]) AS new (tenant_id, tseq, chain)
ON CONFLICT (log, tenant_id) DO UPDATE SET tseq = excluded.tseq, chain = excluded.chain
"""

MAKE_PARTITION: Final = "SELECT quaestor.ensure_audit_entries($1)"

ENTRIES: Final = "SELECT leaf, entry FROM quaestor.audit_entry WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq"

ROWS: Final = """
SELECT seq, tenant_id, tseq, chain, leaf, entry, topic, partition, "offset",
    coalesce(event_id::text, '') AS event_id, coalesce(request_id, '') AS request_id, amount_nano
FROM quaestor.audit_entry WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq
"""

INTEGRATED: Final = """
UPDATE quaestor.audit_log SET integrated_size = $3, integrated_root = $4 WHERE log = $1 AND epoch = $2 RETURNING epoch
"""

KEEP_CHECKPOINT: Final = """
INSERT INTO quaestor.audit_checkpoint (log, size, note) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""

CHECKPOINTS: Final = "SELECT size, note FROM quaestor.audit_checkpoint WHERE log = $1 ORDER BY size"

NO_STATEMENT_BOUND: Final = "SET LOCAL statement_timeout = 0"

TOTALS: Final = """
WITH events AS (
    SELECT topic, tenant_id, event_id, min(amount_nano) AS amount_nano
    FROM quaestor.audit_entry AS entry
    JOIN unnest($2::text[], $3::int[], $4::bigint[]) AS barrier (topic, partition, next_offset) USING (topic, partition)
    WHERE entry.log = $1 AND entry."offset" < barrier.next_offset AND event_id IS NOT NULL AND entry.seq >= $5
    GROUP BY topic, tenant_id, event_id
)
SELECT topic, count(*) AS records,
    sum(('x' || substr(md5(tenant_id || '/' || event_id::text), 1, 15))::bit(60)::bigint) AS id_digest,
    coalesce(sum(amount_nano), 0) AS amount_nano
FROM events GROUP BY topic
"""

COUNTS: Final = """
SELECT topic, count(*) AS entries
FROM quaestor.audit_entry AS entry
JOIN unnest($2::text[], $3::int[], $4::bigint[]) AS barrier (topic, partition, next_offset) USING (topic, partition)
WHERE entry.log = $1 AND entry."offset" < barrier.next_offset
GROUP BY topic
"""

# The topic as a literal: a partial index serves it.
OF_CONTROL: Final = """
SELECT seq, topic, partition, "offset", event_id::text AS event_id FROM quaestor.audit_entry
WHERE topic = 'quaestor.control' AND log = $1 AND event_id = $2 ORDER BY seq LIMIT 1
"""

OF_REQUEST: Final = """
SELECT seq, topic, partition, "offset", event_id::text AS event_id FROM quaestor.audit_entry
WHERE log = $1 AND request_id = $2 ORDER BY seq
"""
