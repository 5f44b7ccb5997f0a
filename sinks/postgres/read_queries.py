"""The statements behind sinks.postgres.reads; ledger checks are in invariants.py, the report's in report_queries.py."""

# ruff: noqa: S608 - table and column names come from our own schemas, never from input
from __future__ import annotations

from sinks.postgres.tables import SCHEMA, EventTable


def totals(table: EventTable) -> str:
    """Records, digest and money of one topic over rows of a time on, below a barrier of (partition, end) pairs."""
    amount = "min(amount_nano)" if table.has_amount else "0::bigint"
    return f"""
SELECT
    count(*) AS records,
    coalesce(sum(('x' || substr(md5(tenant_id || '/' || event_id::text), 1, 15))::bit(60)::bigint), 0) AS id_digest,
    coalesce(sum(amount_nano), 0) AS amount_nano
FROM (
    SELECT tenant_id, event_id, {amount} AS amount_nano
    FROM {SCHEMA}.{table.name}
    JOIN unnest($1::integer[], $2::bigint[]) AS barrier (log_partition, log_end) USING (log_partition)
    WHERE log_offset < barrier.log_end AND occurred_at >= $3
    GROUP BY tenant_id, event_id
) AS distinct_events
"""


def story(table: EventTable) -> str:
    """Everything one topic has about a request, as JSON."""
    return f"""
SELECT
    log_partition, log_offset, event_id::text, occurred_at, tenant_id,
    to_jsonb(found) - 'content_hash' - 'log_partition' - 'log_offset' AS fields
FROM {SCHEMA}.{table.name} AS found
WHERE request_id = $1
"""


def actors(table: EventTable) -> str:
    """Who caused the events of one topic that these (tenant, id, time) are; each is found by the table's own key."""
    return f"""
SELECT found.event_id::text, found.actor
FROM unnest($1::text[], $2::uuid[], $3::timestamptz[]) AS asked (tenant_id, event_id, occurred_at)
JOIN {SCHEMA}.{table.name} AS found USING (tenant_id, event_id, occurred_at)
"""


def content(table: EventTable) -> str:
    """Every column of the rows of a time on within (partition, first, after) ranges of offsets, in any order."""
    columns = ", ".join(f"found.{name}" for name in table.columns)
    return f"""
SELECT {columns}
FROM {SCHEMA}.{table.name} AS found
JOIN unnest($1::integer[], $2::bigint[], $3::bigint[]) AS given (log_partition, first, after)
    ON found.log_partition = given.log_partition AND log_offset >= given.first AND log_offset < given.after
WHERE occurred_at >= $4
"""


MONTH_TABLES = f"""
SELECT name FROM unnest($1::text[]) AS asked (name)
WHERE to_regclass(format('{SCHEMA}.%I', name || to_char($2::timestamptz AT TIME ZONE 'UTC', '_YYYY_MM'))) IS NOT NULL
"""
SET_ASIDE = """
SELECT source_topic, source_partition, source_offset
FROM quaestor.quarantine_outbox
WHERE sink = $1 AND state <> 'REDRIVEN'
"""
CURSORS = "SELECT topic, partition, next_offset FROM quaestor.stream_cursor WHERE projection = $1"
QUARANTINED = """
SELECT count(*) FROM quaestor.quarantine_outbox WHERE $1::text IS NULL OR sink = $1
"""
SEALED_EVENTS = f"""
SELECT count(*) FROM {SCHEMA}.request_event
WHERE tenant_id = $1 AND subject_handle = $2 AND sealed IS NOT NULL
"""
_BALANCES = f"""
SELECT
    tenant_id, account, currency, debits_pending_nano, debits_posted_nano, credits_pending_nano, credits_posted_nano
FROM {SCHEMA}.account_balance
WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR account LIKE $2)
"""
_MOVEMENTS = f"""
SELECT
    tenant_id, account, currency,
    coalesce(sum(pending_nano) FILTER (WHERE is_debit), 0) AS debits_pending_nano,
    coalesce(sum(posted_nano) FILTER (WHERE is_debit), 0) AS debits_posted_nano,
    coalesce(sum(pending_nano) FILTER (WHERE NOT is_debit), 0) AS credits_pending_nano,
    coalesce(sum(posted_nano) FILTER (WHERE NOT is_debit), 0) AS credits_posted_nano
FROM {SCHEMA}.transfer_sides($4, $5, $6)
WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR account LIKE $2)
GROUP BY 1, 2, 3
"""


def _trial_balance(accounts: str) -> str:
    """The first of these accounts, and the sums of all of them per currency with how many they are."""
    return f"""
WITH found AS MATERIALIZED ({accounts}), first AS (
    SELECT * FROM found ORDER BY tenant_id, currency, account LIMIT $3
)
SELECT
    tenant_id, account, currency,
    debits_pending_nano::text, debits_posted_nano::text, credits_pending_nano::text, credits_posted_nano::text,
    NULL::bigint AS summed
FROM first
UNION ALL
SELECT
    '', 'TOTAL', currency,
    sum(debits_pending_nano)::text, sum(debits_posted_nano)::text, sum(credits_pending_nano)::text,
    sum(credits_posted_nano)::text, count(*)
FROM found
GROUP BY currency
ORDER BY summed NULLS FIRST, tenant_id, currency, account
"""


BALANCES = _trial_balance(_BALANCES)
#: What moved on accounts between two times; their pending transfers are looked for from $6 on.
MOVEMENTS = _trial_balance(_MOVEMENTS)
HAS_ACCOUNT = f"SELECT EXISTS (SELECT FROM {SCHEMA}.account_balance WHERE tenant_id = $1 AND account = $2)"
STATEMENT = f"""
SELECT
    transfer.event_id::text, transfer.occurred_at, transfer.kind, transfer.memo,
    CASE WHEN transfer.debit_account = $2 THEN transfer.credit_account ELSE transfer.debit_account END AS other_account,
    side.is_debit, side.pending_nano, side.posted_nano, transfer.currency, transfer.request_id,
    transfer.source_event_id::text, count(*) OVER () AS lines
FROM {SCHEMA}.transfer_sides($4, $5, $6) AS side
JOIN {SCHEMA}.transfer USING (tenant_id, event_id, occurred_at)
WHERE side.tenant_id = $1 AND side.account = $2
ORDER BY transfer.occurred_at DESC, transfer.log_partition, transfer.log_offset DESC, side.is_debit
LIMIT $3
"""
RECENT_REQUESTS = f"""
SELECT
    request_id, tenant_id, kind AS state, occurred_at, key_id, team_id, model_requested, provider_id, model_served,
    status_code, input_tokens, output_tokens, amount_nano, currency, duration_micros
FROM {SCHEMA}.request_event
WHERE kind <> 'RECEIVED' AND ($1::text IS NULL OR tenant_id = $1)
ORDER BY occurred_at DESC
LIMIT $2
"""
KEYS = f"""
SELECT tenant_id, key_id, team_id, project_id, models::text, revoked, changed_at, changed_by
FROM {SCHEMA}.virtual_key
WHERE $1::text IS NULL OR tenant_id = $1
ORDER BY tenant_id, changed_at
LIMIT $2
"""
SPENDING = f"""
SELECT
    coalesce(team_id, '-') AS team_id, provider_id, model, currency,
    sum(amount_nano)::text AS amount_nano, count(DISTINCT attempt_id) AS attempts
FROM {SCHEMA}.cost
WHERE $1::text IS NULL OR tenant_id = $1
GROUP BY 1, 2, 3, 4
ORDER BY sum(amount_nano) DESC
LIMIT $2
"""
