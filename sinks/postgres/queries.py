"""Every statement of the Postgres sink and its reads, named."""

# ruff: noqa: S608 - table and column names come from our own schemas, never from input
from __future__ import annotations

from sinks.postgres.tables import SCHEMA, EventTable

# Cursors. Rows are taken in one order everywhere, so that two owners never wait for each other in a ring.
CLAIM = """
INSERT INTO quaestor.stream_cursor AS held (projection, topic, partition, topic_id, owner)
SELECT $1, topic, partition, topic_id, $2
FROM unnest($3::text[], $4::integer[], $5::text[]) AS given (topic, partition, topic_id)
ORDER BY topic, partition
ON CONFLICT (projection, topic, partition)
DO UPDATE SET epoch = held.epoch + 1, owner = excluded.owner, claimed_at = now()
RETURNING topic, partition, topic_id, next_offset, epoch
"""
ADVANCE = """
UPDATE quaestor.stream_cursor AS held
SET next_offset = given.next_offset, applied_at = now()
FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[])
    AS given (topic, partition, first_offset, next_offset, epoch)
WHERE held.projection = $1
    AND held.topic = given.topic
    AND held.partition = given.partition
    AND held.epoch = given.epoch
    AND held.next_offset = given.first_offset
"""
HOLD_EPOCH = """
SELECT epoch FROM quaestor.stream_cursor WHERE projection = $1 AND topic = $2 AND partition = $3 FOR UPDATE
"""
CURSORS = """
SELECT topic, partition, next_offset, epoch
FROM quaestor.stream_cursor
WHERE projection = $1
"""

ENSURE_MONTH = "SELECT quaestor.ensure_month($1, $2)"


def stage_table(table: EventTable) -> str:
    """Where a batch's rows of one table are copied first; lives as long as the connection."""
    return f"CREATE TEMPORARY TABLE {stage(table)} (LIKE {SCHEMA}.{table.name}) ON COMMIT DELETE ROWS"


def stage(table: EventTable) -> str:
    """Name of the staging table."""
    return f"stage_{table.name}"


def insert_staged(table: EventTable) -> str:
    """Move staged rows into an event table; rows whose id is there already are left out."""
    columns = ", ".join(table.columns)
    into = f"INSERT INTO {SCHEMA}.{table.name} ({columns}) SELECT {columns} FROM pg_temp.{stage(table)}"
    return f"{into} ON CONFLICT (tenant_id, event_id, occurred_at) DO NOTHING"


def conflicting(table: EventTable) -> str:
    """A staged row whose id stands in the table with other bytes."""
    return f"""
SELECT staged.event_id
FROM pg_temp.{stage(table)} AS staged
JOIN {SCHEMA}.{table.name} AS kept USING (tenant_id, event_id, occurred_at)
WHERE kept.content_hash <> staged.content_hash
LIMIT 1
"""


def insert_staged_transfers(table: EventTable) -> str:
    """Move staged transfers; answers those that were new."""
    return f"{insert_staged(table)} RETURNING {TRANSFER_FIELDS}"


TRANSFER_FIELDS = (
    "tenant_id, event_id::text, kind, debit_account, credit_account, amount_nano, currency, pending_id::text"
)
PENDINGS = f"""
SELECT tenant_id, event_id::text, debit_account, credit_account
FROM {SCHEMA}.transfer
JOIN unnest($1::text[], $2::uuid[]) AS given (tenant_id, event_id) USING (tenant_id, event_id)
WHERE kind = 'PENDING'
"""
MOVE_BALANCES = f"""
INSERT INTO {SCHEMA}.account_balance AS held (
    tenant_id, account, currency,
    debits_pending_nano, debits_posted_nano, credits_pending_nano, credits_posted_nano
)
SELECT tenant_id, account, currency,
    debits_pending::numeric, debits_posted::numeric, credits_pending::numeric, credits_posted::numeric
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS given (
    tenant_id, account, currency, debits_pending, debits_posted, credits_pending, credits_posted
)
ORDER BY tenant_id, account, currency
ON CONFLICT (tenant_id, account, currency) DO UPDATE SET
    debits_pending_nano = held.debits_pending_nano + excluded.debits_pending_nano,
    debits_posted_nano = held.debits_posted_nano + excluded.debits_posted_nano,
    credits_pending_nano = held.credits_pending_nano + excluded.credits_pending_nano,
    credits_posted_nano = held.credits_posted_nano + excluded.credits_posted_nano
"""


def insert_control(table: EventTable) -> str:
    """Move staged control events and keep the last word on each entity; answers how many were new."""
    return f"""
WITH inserted AS (
    {insert_staged(table)}
    RETURNING
        tenant_id, entity_kind, entity_id, action, before, after, occurred_at, actor, event_id, log_offset
),
latest AS (
    SELECT DISTINCT ON (tenant_id, entity_kind, entity_id) *
    FROM inserted
    ORDER BY tenant_id, entity_kind, entity_id, log_offset DESC
),
kept AS (
    INSERT INTO {SCHEMA}.control_entity AS held (
        tenant_id, entity_kind, entity_id, state, last_state, removed, changed_at, changed_by, event_id, log_offset
    )
    SELECT
        tenant_id, entity_kind, entity_id, after::jsonb, coalesce(after, before)::jsonb,
        action = 'REMOVED', occurred_at, actor, event_id, log_offset
    FROM latest
    ON CONFLICT (tenant_id, entity_kind, entity_id) DO UPDATE SET
        state = excluded.state,
        last_state = coalesce(excluded.last_state, held.last_state),
        removed = excluded.removed,
        changed_at = excluded.changed_at,
        changed_by = excluded.changed_by,
        event_id = excluded.event_id,
        log_offset = excluded.log_offset
    WHERE held.log_offset < excluded.log_offset
)
SELECT count(*) FROM inserted
"""
