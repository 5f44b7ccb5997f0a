"""The figures of the nightly report, per tenant; each bounded by the time it reads and by the groups it answers.

Parameters of all: $1 from, $2 up to but without, $3 the tenant (null: all). What a query selects behind tenant_id is,
in this order, the row of processors.report.figures that it fills. All end with their order: a LIMIT is put behind it.
"""

# ruff: noqa: S608 - table and column names are our own
from __future__ import annotations

from sinks.postgres.reconciliation import in_span
from sinks.postgres.tables import SCHEMA

#: Groups of one figure over all tenants; more are refused, since half a report is none.
GROUPS_MAX = 100_000
_TENANT = "($3::text IS NULL OR tenant_id = $3)"
#: The class of an account: budget/available, expense, payable …
_CLASS = """split_part(account, '/', 1)
    || CASE WHEN account LIKE 'budget/%' THEN '/' || split_part(account, '/', 3) ELSE '' END"""

REQUESTS = in_span("""
SELECT tenant_id, kind, coalesce(error_code, ''), count(*)
FROM request_event
GROUP BY 1, 2, 3
ORDER BY 1, array_position(ARRAY['RECEIVED', 'COMPLETED', 'FAILED', 'REFUSED'], kind), 3
""")
DECISIONS = in_span("""
SELECT tenant_id, policy, coalesce(chosen_provider_id, ''), coalesce(chosen_model, ''), count(*)
FROM decision
GROUP BY 1, 2, 3, 4
ORDER BY 1, 5 DESC, 2, 3, 4
""")
ATTEMPTS = in_span("""
SELECT tenant_id, provider_id, model, outcome, usage_source, count(*), sum(input_tokens), sum(output_tokens)
FROM attempt
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 6 DESC, 2, 3, 4, 5
""")
CHARGES = in_span("""
SELECT tenant_id, provider_id, model, meter, estimated, currency, count(*),
    coalesce(sum(quantity) FILTER (WHERE kind = 'CHARGE'), 0), sum(amount_nano)
FROM cost
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 1, sum(amount_nano) DESC, 2, 3, 4, 5, 6
""")
OWNERS = in_span("""
SELECT tenant_id, coalesce(team_id, ''), coalesce(project_id, ''), coalesce(key_id, ''), currency, sum(amount_nano)
FROM cost
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, sum(amount_nano) DESC, 2, 3, 4, 5
""")
HOURS = in_span("""
SELECT tenant_id, floor(extract(epoch FROM occurred_at - $1) / 3600)::integer, currency, sum(amount_nano)
FROM cost
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
""")
HOLDS = in_span("""
SELECT tenant_id, kind, coalesce(reason, ''), coalesce(refused_by_limit_id, ''), currency, count(*), sum(amount_nano)
FROM budget_event
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, array_position(
    ARRAY['PLACED', 'EXTENDED', 'COMMITTED', 'RELEASED', 'EXPIRED', 'OVERAGE', 'REFUSED'], kind), 6 DESC, 3, 4, 5
""")
#: Commits from $4 up to but without $5 that came behind their expiry, which may stand before midnight.
LATE_COMMITS = in_span("""
SELECT tenant_id, currency, count(*), sum(estimated_nano), sum(charged_nano)
FROM (
    SELECT tenant_id, currency,
        min(amount_nano) FILTER (WHERE kind = 'EXPIRED') AS estimated_nano,
        min(amount_nano) FILTER (WHERE kind = 'COMMITTED') AS charged_nano
    FROM budget_event
    WHERE kind IN ('EXPIRED', 'COMMITTED')
    GROUP BY tenant_id, hold_id, currency
    HAVING min(log_offset) FILTER (WHERE kind = 'EXPIRED') < min(log_offset) FILTER (WHERE kind = 'COMMITTED')
        AND min(occurred_at) FILTER (WHERE kind = 'COMMITTED') >= $4
        AND min(occurred_at) FILTER (WHERE kind = 'COMMITTED') < $5
) AS late
GROUP BY 1, 2
ORDER BY 1, 2
""")
#: $4: since when pending transfers are looked for.
LEDGER = f"""
SELECT tenant_id, {_CLASS}, currency,
    coalesce(sum(pending_nano) FILTER (WHERE is_debit), 0),
    coalesce(sum(pending_nano) FILTER (WHERE NOT is_debit), 0),
    coalesce(sum(posted_nano) FILTER (WHERE is_debit), 0),
    coalesce(sum(posted_nano) FILTER (WHERE NOT is_debit), 0)
FROM {SCHEMA}.transfer_sides($1, $2, $4)
WHERE {_TENANT}
GROUP BY 1, 2, 3
ORDER BY 1, 3, 2
"""
SET_ASIDE = f"""
SELECT tenant_id, sink, source_topic, state, reason, count(*)
FROM quaestor.quarantine_outbox
WHERE state <> 'REDRIVEN' AND {_TENANT}
    AND record_millis >= extract(epoch FROM $1::timestamptz) * 1000
    AND record_millis < extract(epoch FROM $2::timestamptz) * 1000
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 6 DESC, 2, 3, 4, 5
"""
#: The last word on every limit by $2, removed ones left out.
LIMITS = f"""
SELECT tenant_id, after
FROM (
    SELECT DISTINCT ON (tenant_id, entity_id) tenant_id, entity_id, after
    FROM {SCHEMA}.control_event
    WHERE entity_kind = 'LIMIT' AND occurred_at < $2 AND $1::timestamptz IS NOT NULL AND {_TENANT}
    ORDER BY tenant_id, entity_id, log_offset DESC
) AS last
WHERE after IS NOT NULL
ORDER BY tenant_id, entity_id
"""
#: What a transfer takes to a spent account, or back from it, and whose.
_SPENT = "CASE WHEN credit_account LIKE 'budget/%/spent' THEN amount_nano ELSE -amount_nano END"
_COUNTER = """
split_part(CASE WHEN credit_account LIKE 'budget/%/spent' THEN credit_account ELSE debit_account END, '/', 2)"""
#: Per counter and window, from the oldest window on: what was spent by $4, the end of the day, and after it.
WINDOWS = in_span(f"""
SELECT tenant_id, {_COUNTER}, currency, window_start,
    coalesce(sum({_SPENT}) FILTER (WHERE occurred_at < $4), 0),
    coalesce(sum({_SPENT}) FILTER (WHERE occurred_at >= $4), 0)
FROM transfer
WHERE (credit_account LIKE 'budget/%/spent' OR debit_account LIKE 'budget/%/spent')
    AND window_start > 'epoch'
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
""")
#: Counters without a window: what stands on them now, without what came since $1, the end of the day.
TOTALS = f"""
SELECT kept.tenant_id, kept.counter, kept.currency, 'epoch'::timestamptz,
    kept.spent_nano - coalesce(later.spent_nano, 0), 0
FROM (
    SELECT tenant_id, split_part(account, '/', 2) AS counter, currency,
        credits_posted_nano - debits_posted_nano AS spent_nano
    FROM {SCHEMA}.account_balance
    WHERE account LIKE 'budget/%/spent' AND split_part(split_part(account, '/', 2), '.', 1) = ANY($4::text[])
        AND {_TENANT}
) AS kept
LEFT JOIN (
    SELECT tenant_id, {_COUNTER} AS counter, currency, sum({_SPENT}) AS spent_nano
    FROM {SCHEMA}.transfer
    WHERE occurred_at >= $1 AND $2::timestamptz IS NOT NULL AND {_TENANT}
        AND (credit_account LIKE 'budget/%/spent' OR debit_account LIKE 'budget/%/spent')
    GROUP BY 1, 2, 3
) AS later USING (tenant_id, counter, currency)
ORDER BY 1, 2, 3
"""
