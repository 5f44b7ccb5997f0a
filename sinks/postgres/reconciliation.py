"""What the nightly report reconciles: requests, decisions, attempts, holds, costs and ledger, each rule as one query.

A rule gives rows that do not match: tenant_id, at, id, request_id and the difference in words. It is asked of a span
of time, a day and a margin on both sides of it: rows of the span stand in the place of the tables, and what is found
counts on the day of its `at` alone. So a request that ends after midnight is whole on its day and nothing on the next.
A commit may come a day after its hold expired, past every margin: requests that have one are read whole besides.

What is wrong is named once, by the rule that is nearest to the cause: a request that can't end because its hold is open
is found as an open hold; a charge without its commit is not also a hold that stays open.
"""

# ruff: noqa: S608 - tables and rules are our own
from __future__ import annotations

from sinks.postgres.charge_invariants import CHARGE_INVARIANTS
from sinks.postgres.invariants import COSTS, INVARIANTS, RESOLVED, Invariant
from sinks.postgres.tables import SCHEMA

#: What a span covers; other tables are small and asked whole.
SPANNED = ("request_event", "decision", "attempt", "cost", "budget_event", "transfer")
_IN_SPAN = "occurred_at >= $1 AND occurred_at < $2"
_IN_SPAN_OR_LATE = f"({_IN_SPAN} OR request_id = ANY($7::text[]) AND occurred_at >= $8 AND occurred_at < $9)"
ENDS = "('COMPLETED', 'FAILED', 'REFUSED')"

#: Requests that ended with an answer or a failure, though the candidate that was chosen for them was never tried.
_UNTRIED = """
SELECT chosen.tenant_id, chosen.occurred_at AS at, chosen.event_id::text AS id, chosen.request_id,
    format('%s/%s was chosen and never tried', chosen_provider_id, chosen_model) AS difference
FROM decision AS chosen
WHERE chosen_provider_id IS NOT NULL
    AND EXISTS (
        SELECT FROM request_event AS ended
        WHERE ended.tenant_id = chosen.tenant_id AND ended.request_id = chosen.request_id
            AND ended.kind IN ('COMPLETED', 'FAILED'))
    AND NOT EXISTS (
        SELECT FROM attempt AS tried
        WHERE tried.tenant_id = chosen.tenant_id AND tried.request_id = chosen.request_id
            AND tried.provider_id = chosen_provider_id AND tried.model = chosen_model)
    AND NOT EXISTS (
        SELECT FROM budget_event AS refused
        WHERE refused.kind = 'REFUSED' AND refused.tenant_id = chosen.tenant_id
            AND refused.request_id = chosen.request_id
            AND refused.provider_id = chosen_provider_id AND refused.model = chosen_model)
"""
#: Holds that nothing resolved, and when their last lease ends.
_OPEN = """
SELECT placed.tenant_id, placed.occurred_at AS at, placed.hold_id, placed.request_id, placed.amount_nano,
    placed.currency, greatest(coalesce(placed.lease_until, placed.occurred_at), (
        SELECT max(extended.lease_until)
        FROM budget_event AS extended
        WHERE extended.kind = 'EXTENDED' AND extended.request_id = placed.request_id
            AND extended.tenant_id = placed.tenant_id AND extended.hold_id = placed.hold_id)) AS due
FROM budget_event AS placed
WHERE placed.kind = 'PLACED' AND NOT EXISTS (
    SELECT FROM budget_event AS resolution
    WHERE resolution.tenant_id = placed.tenant_id AND resolution.hold_id = placed.hold_id
        AND resolution.kind IN ('COMMITTED', 'RELEASED', 'EXPIRED'))
"""
#: What each hold's transfers took to, and back from, the spent account of each counter.
_BOOKED = """
SELECT tenant_id, attempt_id AS hold_id, currency,
    split_part(CASE WHEN is_credit THEN credit_account ELSE debit_account END, '/', 2) AS counter,
    sum(CASE WHEN is_credit THEN amount_nano ELSE -amount_nano END) AS booked_nano
FROM (SELECT *, credit_account LIKE 'budget/%/spent' AS is_credit FROM transfer) AS moved
WHERE is_credit OR debit_account LIKE 'budget/%/spent'
GROUP BY tenant_id, attempt_id, currency, counter
"""
#: Whether anything was booked when a hold was resolved; EXTENDED voids what was pending, and resolves nothing.
_IS_BOOKED = """EXISTS (
    SELECT FROM transfer AS booked
    WHERE booked.tenant_id = resolved.tenant_id AND booked.attempt_id = resolved.hold_id
        AND booked.source_topic = 'quaestor.budgets' AND booked.kind <> 'PENDING'
        AND NOT EXISTS (
            SELECT FROM budget_event AS extended
            WHERE extended.tenant_id = booked.tenant_id AND extended.event_id = booked.source_event_id
                AND extended.kind = 'EXTENDED'))"""

RULES: tuple[Invariant, ...] = (
    Invariant(
        "requests_end",
        "A request that was received ends: answered, failed or refused.",
        f"""
SELECT received.tenant_id, received.occurred_at AS at, received.request_id AS id, received.request_id,
    format('%s was asked for, and nothing says how it ended', coalesce(model_requested, '?')) AS difference
FROM request_event AS received
WHERE kind = 'RECEIVED'
    AND NOT EXISTS (
        SELECT FROM request_event AS ended
        WHERE ended.tenant_id = received.tenant_id AND ended.request_id = received.request_id
            AND ended.kind IN {ENDS})
    AND NOT EXISTS (
        SELECT FROM ({_OPEN}) AS open
        WHERE open.tenant_id = received.tenant_id AND open.request_id = received.request_id)
""",
        of_spans=True,
    ),
    Invariant(
        "decisions_are_tried",
        "The candidate that was chosen is tried, unless a budget had no room for it or the request is refused before.",
        _UNTRIED,
        of_spans=True,
    ),
    Invariant(
        "attempts_have_a_decision",
        "No provider is called without a routing decision.",
        """
SELECT tenant_id, occurred_at AS at, attempt_id::text AS id, request_id,
    format('%s/%s was called, and nothing says why', provider_id, model) AS difference
FROM attempt
WHERE request_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM decision WHERE decision.tenant_id = attempt.tenant_id AND decision.request_id = attempt.request_id)
""",
        of_spans=True,
    ),
    Invariant(
        "completed_equals_attempts",
        "An answered request counts the attempts, the tokens and the money of its attempts.",
        f"""
SELECT answered.tenant_id, answered.occurred_at AS at, answered.request_id AS id, answered.request_id,
    format('says %s attempts, %s + %s tokens, %s %s; its attempts say %s, %s + %s, %s', attempt_count,
        answered.input_tokens, answered.output_tokens, answered.amount_nano, answered.currency,
        coalesce(tried.attempts, 0), coalesce(tried.input_tokens, 0), coalesce(tried.output_tokens, 0),
        coalesce(charged.amount_nano, 0)) AS difference
FROM request_event AS answered
LEFT JOIN (
    SELECT tenant_id, request_id, count(DISTINCT attempt_id) AS attempts, sum(input_tokens) AS input_tokens,
        sum(output_tokens) AS output_tokens
    FROM attempt
    GROUP BY tenant_id, request_id
) AS tried USING (tenant_id, request_id)
LEFT JOIN (
    SELECT tenant_id, request_id, sum(amount_nano) AS amount_nano
    FROM (
        SELECT tenant_id, hold_id, request_id, charged_nano AS amount_nano FROM ({RESOLVED}) AS resolved
        UNION ALL
        SELECT tenant_id, attempt_id, request_id, amount_nano
        FROM ({COSTS}) AS unsettled
        WHERE NOT EXISTS (
            SELECT FROM ({RESOLVED}) AS known
            WHERE known.tenant_id = unsettled.tenant_id AND known.hold_id = unsettled.attempt_id)
    ) AS charges
    GROUP BY tenant_id, request_id
) AS charged USING (tenant_id, request_id)
WHERE kind = 'COMPLETED'
    AND (attempt_count, answered.input_tokens, answered.output_tokens, answered.amount_nano) <> (
        coalesce(tried.attempts, 0), coalesce(tried.input_tokens, 0), coalesce(tried.output_tokens, 0),
        coalesce(charged.amount_nano, 0))
    AND NOT EXISTS (
        SELECT FROM ({_UNTRIED}) AS untried
        WHERE untried.tenant_id = answered.tenant_id AND untried.request_id = answered.request_id)
""",
        of_spans=True,
    ),
    Invariant(
        "holds_are_resolved",
        "A hold is charged, released or expired soon after its lease ends.",
        f"""
SELECT tenant_id, at, hold_id::text AS id, request_id, due,
    format('hold %s: %s %s are still held', hold_id, amount_nano, currency) AS difference
FROM ({_OPEN}) AS open
WHERE NOT EXISTS (SELECT FROM cost WHERE cost.tenant_id = open.tenant_id AND cost.attempt_id = open.hold_id)
""",
        of_spans=True,
        has_due=True,
    ),
    Invariant(
        "resolutions_are_booked",
        "A hold that was charged, released or expired has its transfers in the ledger.",
        f"""
SELECT tenant_id, at, hold_id::text AS id, request_id,
    format('%s of %s %s has no transfer', kind, charged_nano, currency) AS difference
FROM ({RESOLVED}) AS resolved
WHERE EXISTS (
        SELECT FROM jsonb_to_recordset(legs) AS leg (amount_nano bigint, held_nano bigint)
        WHERE leg.amount_nano > 0 OR leg.held_nano > 0)
    AND NOT {_IS_BOOKED}
""",
        of_spans=True,
    ),
    Invariant(
        "ledger_equals_holds",
        "The ledger moves what a hold's events say: what was charged is spent, and nothing of it stays pending.",
        f"""
SELECT DISTINCT ON (tenant_id, id) tenant_id, at, id, request_id, difference
FROM (
    SELECT tenant_id, at, hold_id::text AS id, request_id,
        format('charged %s %s on %s, booked %s', charges.amount_nano, currency, counter, coalesce(booked_nano, 0))
            AS difference
    FROM (
        SELECT resolved.tenant_id, resolved.hold_id, resolved.request_id, resolved.at, leg.limit_id AS counter,
            leg.currency, sum(CASE WHEN resolved.kind = 'RELEASED' THEN 0 ELSE leg.amount_nano END) AS amount_nano
        FROM ({RESOLVED}) AS resolved
        CROSS JOIN LATERAL jsonb_to_recordset(legs) AS leg (limit_id text, currency text, amount_nano bigint)
        WHERE {_IS_BOOKED}
        GROUP BY resolved.tenant_id, resolved.hold_id, resolved.request_id, resolved.at, leg.limit_id, leg.currency
    ) AS charges
    LEFT JOIN ({_BOOKED}) AS booked USING (tenant_id, hold_id, counter, currency)
    WHERE charges.amount_nano <> coalesce(booked_nano, 0)
    UNION ALL
    SELECT pending.tenant_id, pending.occurred_at, pending.attempt_id::text, pending.request_id,
        format('held %s %s, posted and voided %s', pending.amount_nano, pending.currency, sum(resolver.amount_nano))
    FROM transfer AS pending
    JOIN transfer AS resolver ON resolver.tenant_id = pending.tenant_id AND resolver.pending_id = pending.event_id
    GROUP BY pending.tenant_id, pending.event_id, pending.occurred_at, pending.attempt_id, pending.request_id,
        pending.amount_nano, pending.currency
    HAVING sum(resolver.amount_nano) < pending.amount_nano
) AS found
ORDER BY tenant_id, id, at
""",
        of_spans=True,
    ),
    Invariant(
        "ledger_equals_costs",
        "Every cost line is an expense and a payable of its amount.",
        """
SELECT cost.tenant_id, cost.occurred_at AS at, cost.event_id::text AS id, cost.request_id,
    format('%s %s, expense %s; provider''s %s %s, payable %s', cost.amount_nano, cost.currency,
        coalesce(expense_nano, 0), provider_amount_nano, provider_currency, coalesce(payable_nano, 0)) AS difference
FROM cost
LEFT JOIN (
    SELECT tenant_id, source_event_id,
        coalesce(sum(amount_nano) FILTER (WHERE debit_account LIKE 'expense/%'), 0)
            - coalesce(sum(amount_nano) FILTER (WHERE credit_account LIKE 'expense/%'), 0) AS expense_nano,
        coalesce(sum(amount_nano) FILTER (WHERE credit_account LIKE 'payable/%'), 0)
            - coalesce(sum(amount_nano) FILTER (WHERE debit_account LIKE 'payable/%'), 0) AS payable_nano
    FROM transfer
    WHERE source_topic = 'quaestor.costs'
    GROUP BY tenant_id, source_event_id
) AS booked ON booked.tenant_id = cost.tenant_id AND booked.source_event_id = cost.event_id
WHERE (cost.amount_nano, provider_amount_nano) <> (coalesce(expense_nano, 0), coalesce(payable_nano, 0))
""",
        of_spans=True,
    ),
    Invariant(
        "records_are_applied",
        "Every record of the log is applied by every sink.",
        """
SELECT tenant_id, to_timestamp(record_millis / 1000.0) AS at, event_id::text AS id, NULL::text AS request_id,
    format('%s by %s: %s/%s@%s, %s', lower(state), sink, source_topic, source_partition, source_offset, detail)
        AS difference
FROM quarantine_outbox
WHERE state <> 'REDRIVEN'
""",
        of_spans=True,
    ),
    *(each for each in (*CHARGE_INVARIANTS, *INVARIANTS) if each.of_spans),
)

_OF_THE_LEDGER = {"holds_are_resolved", "resolutions_are_booked", "ledger_equals_holds", "ledger_equals_costs"}
#: What of it is asked of everything too: whether holds end, and the ledger is the fold of holds and costs.
LEDGER_RULES = tuple(rule for rule in RULES if rule.name in _OF_THE_LEDGER)
#: Everything that `quaestor verify ledger` asks.
VERIFIED = (*INVARIANTS, *CHARGE_INVARIANTS, *LEDGER_RULES)
#: The one of them that also holds while the ledger is still behind the holds.
LEDGER_UNDER_TRAFFIC = tuple(rule for rule in LEDGER_RULES if rule.name == "ledger_equals_holds")


def in_span(sql: str, rows: str = _IN_SPAN) -> str:
    """The query on the rows of a span: $1 up to but without $2, of tenant $3 (null: of all)."""
    spans = ", ".join(
        f"{table} AS NOT MATERIALIZED (SELECT * FROM {SCHEMA}.{table} WHERE {rows} "
        "AND ($3::text IS NULL OR tenant_id = $3))"
        for table in SPANNED
    )
    outbox = "SELECT * FROM quaestor.quarantine_outbox WHERE $3::text IS NULL OR tenant_id = $3"
    return f"WITH {spans}, quarantine_outbox AS NOT MATERIALIZED ({outbox})\n{sql}"


def of_day(rule: Invariant, *, has_late: bool = False) -> str:
    """What does not match from $4 up to but without $5: how many per tenant, and the first $6 of each.

    Where there are late commits, the requests $7 are read from $8 up to but without $9. On other days nothing is asked
    of them, so that the index of times alone decides what is read.
    """
    sql = f"""
SELECT tenant_id, total, at, id, request_id, difference
FROM (
    SELECT found.*, count(*) OVER (PARTITION BY tenant_id) AS total,
        row_number() OVER (PARTITION BY tenant_id ORDER BY at, id) AS place
    FROM ({rule.sql}) AS found
    WHERE at >= $4 AND at < $5
) AS judged
WHERE place <= $6
ORDER BY tenant_id, place
"""
    return in_span(sql, _IN_SPAN_OR_LATE if has_late else _IN_SPAN)
