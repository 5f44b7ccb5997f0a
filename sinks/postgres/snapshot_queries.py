"""Every statement about snapshots of live budgets, named."""

from __future__ import annotations

NEWEST = """
SELECT log_offset, manifest, digest
FROM quaestor.budget_snapshot
WHERE projection = $1 AND partition = $2 AND topic_id = $3
ORDER BY log_offset DESC
"""
CHUNKS = """
SELECT digest, body
FROM quaestor.budget_snapshot_chunk
WHERE projection = $1 AND partition = $2 AND digest = ANY($3::bytea[])
"""
#: One owner of a partition at a time.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('snapshot/' || $1 || '/' || $2::integer::text, 0))"
EPOCH = "SELECT max(epoch) FROM quaestor.budget_snapshot WHERE projection = $1 AND partition = $2"
KEEP_CHUNK = """
INSERT INTO quaestor.budget_snapshot_chunk (projection, partition, digest, body) VALUES ($1, $2, $3, $4)
ON CONFLICT (projection, partition, digest) DO NOTHING
"""
CHUNKS_THERE = """
SELECT count(*)
FROM quaestor.budget_snapshot_chunk
WHERE projection = $1 AND partition = $2 AND digest = ANY($3::bytea[])
"""
FORGET_SAME = """
DELETE FROM quaestor.budget_snapshot
WHERE projection = $1 AND partition = $2 AND topic_id = $3 AND log_offset = $4
"""
KEEP = """
INSERT INTO quaestor.budget_snapshot (
    projection, partition, topic_id, log_offset, epoch, manifest, digest, chunks
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
#: All but the newest of this topic; those of an earlier topic of its name go too.
FORGET = """
DELETE FROM quaestor.budget_snapshot
WHERE projection = $1 AND partition = $2 AND (topic_id <> $3 OR log_offset NOT IN (
    SELECT log_offset
    FROM quaestor.budget_snapshot
    WHERE projection = $1 AND partition = $2 AND topic_id = $3
    ORDER BY log_offset DESC
    LIMIT $4
))
"""
FORGET_CHUNKS = """
DELETE FROM quaestor.budget_snapshot_chunk
WHERE projection = $1 AND partition = $2 AND digest NOT IN (
    SELECT unnest(chunks) FROM quaestor.budget_snapshot WHERE projection = $1 AND partition = $2
)
"""
