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
#: Requests with a commit that was made after its hold's lease, or before it and reached the log behind EXPIRED.
LATE_REQUESTS = in_span("""
SELECT request_id
FROM budget_event
WHERE kind = 'COMMITTED' AND late AND request_id IS NOT NULL
UNION
SELECT expired.request_id
FROM budget_event AS expired
JOIN budget_event AS committed USING (tenant_id, request_id, hold_id)
WHERE expired.kind = 'EXPIRED' AND committed.kind = 'COMMITTED' AND expired.log_offset < committed.log_offset
""")
#: Commits of the requests $6, from $4 up to but without $5, that came behind their expiry, which may stand days before.
LATE_COMMITS = in_span("""
SELECT tenant_id, currency, count(*), sum(estimated_nano), sum(charged_nano)
FROM (
    SELECT tenant_id, currency,
        min(amount_nano) FILTER (WHERE kind = 'EXPIRED') AS estimated_nano,
        min(amount_nano) FILTER (WHERE kind = 'COMMITTED') AS charged_nano
    FROM budget_event
    WHERE kind IN ('EXPIRED', 'COMMITTED') AND request_id = ANY($6::text[])
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
#: Whether a transfer moves what is spent.
_IS_SPENT = "(credit_account LIKE 'budget/%/spent' OR debit_account LIKE 'budget/%/spent')"
#: Of each limit the $4 fullest counters, and how many there are; behind it its rows of WindowSpend.
_RANKED = """
SELECT tenant_id, counter, currency, window_start, spent_nano, settled_nano, counters
FROM (
    SELECT found.*, count(*) OVER (PARTITION BY tenant_id, limit_id) AS counters,
        row_number() OVER (PARTITION BY tenant_id, limit_id ORDER BY used_nano DESC, counter) AS place
    FROM ({found}) AS found
) AS ranked
WHERE place <= $4
ORDER BY 1, 2, 3, 4
"""
#: Of each counter its fullest window that touches the day: what was spent by $5, the end of the day, and what after it,
#: which counts where the window is over by then. $6 to $9: the limits, tenant and id of each, where the first window of
#: the day begins, and where the one begins that goes on after it.
WINDOWS = in_span(
    _RANKED.format(
        found=f"""
    SELECT DISTINCT ON (tenant_id, counter, currency) *,
        spent_nano + CASE WHEN window_start < goes_on_since THEN settled_nano ELSE 0 END AS used_nano
    FROM (
        SELECT tenant_id, limit_id, counter, currency, window_start, goes_on_since,
            coalesce(sum(nano) FILTER (WHERE occurred_at < $5), 0) AS spent_nano,
            coalesce(sum(nano) FILTER (WHERE occurred_at >= $5), 0) AS settled_nano
        FROM (
            SELECT tenant_id, {_COUNTER} AS counter, currency, window_start, occurred_at, {_SPENT} AS nano
            FROM transfer
            WHERE {_IS_SPENT} AND window_start < $5
        ) AS moved
        JOIN unnest($6::text[], $7::text[], $8::timestamptz[], $9::timestamptz[])
            AS asked (tenant_id, limit_id, since, goes_on_since) USING (tenant_id)
        WHERE split_part(counter, '.', 1) = limit_id AND window_start >= since
        GROUP BY tenant_id, limit_id, counter, currency, window_start, goes_on_since
    ) AS windows
    ORDER BY tenant_id, counter, currency, used_nano DESC, window_start"""
    )
)
#: Counters without a window: what stands on them now, without what came since $2, the end of the day. $5 to $7: the
#: limits, tenant and id of each, and whether it is on each of a kind: those have a counter for all that ever was, so
#: only what moved on the day is read of them.
TOTALS = _RANKED.format(
    found=f"""
    SELECT asked.tenant_id, limit_id, asked.counter, kept.currency, 'epoch'::timestamptz AS window_start,
        0::numeric AS settled_nano, used.nano AS spent_nano, used.nano AS used_nano
    FROM (
        SELECT tenant_id, limit_id, limit_id AS counter
        FROM unnest($5::text[], $6::text[], $7::boolean[]) AS limits (tenant_id, limit_id, is_each)
        WHERE NOT is_each
        UNION ALL
        SELECT DISTINCT tenant_id, limit_id, counter
        FROM (
            SELECT tenant_id, {_COUNTER} AS counter
            FROM {SCHEMA}.transfer
            WHERE occurred_at >= $1 AND occurred_at < $2 AND {_TENANT} AND {_IS_SPENT}
        ) AS moved
        JOIN unnest($5::text[], $6::text[], $7::boolean[]) AS limits (tenant_id, limit_id, is_each) USING (tenant_id)
        WHERE is_each AND split_part(counter, '.', 1) = limit_id
    ) AS asked
    JOIN {SCHEMA}.account_balance AS kept
        ON kept.tenant_id = asked.tenant_id AND kept.account = 'budget/' || asked.counter || '/spent'
    LEFT JOIN (
        SELECT tenant_id, {_COUNTER} AS counter, currency, sum({_SPENT}) AS nano
        FROM {SCHEMA}.transfer
        WHERE occurred_at >= $2 AND {_TENANT} AND {_IS_SPENT}
        GROUP BY 1, 2, 3
    ) AS later ON later.tenant_id = asked.tenant_id AND later.counter = asked.counter
        AND later.currency = kept.currency
    CROSS JOIN LATERAL (
        SELECT kept.credits_posted_nano - kept.debits_posted_nano - coalesce(later.nano, 0) AS nano) AS used"""
)
