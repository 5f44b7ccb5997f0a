"""The ledger's invariants as queries: each answers which things disagree (docs/reference/ledger-invariants.md).

Every query gives rows of (id, difference), best a handful; none means the invariant holds. They read one snapshot.
Those that hold of any span of time also say whose row it is, when, and of what request: `quaestor verify ledger` asks
them of everything, the nightly report of a day (reconciliation.py). What charges must be is in charge_invariants.py.
"""

# ruff: noqa: S608 - the schema's name is ours
from __future__ import annotations

from dataclasses import dataclass

from schemas.topics import LEDGER
from sinks.postgres.tables import SCHEMA

#: Differences that are told apart; of more than that only their number is known.
DIFFERENCES_MAX = 10_000


@dataclass(frozen=True)
class Invariant:
    """One thing that must hold."""

    name: str
    claim: str
    #: Rows with the text columns `id` (what it is about) and `difference`; none when it holds.
    sql: str
    #: Whether they can be asked of a span of time: rows have tenant_id, at and request_id too, and tables stand without
    #: their schema, so that whoever asks may put the rows of a span in their place.
    of_spans: bool = False
    #: Whether rows have `due` too, a time until which nothing is wrong with them.
    has_due: bool = False


#: Costs of an attempt, corrections included.
COSTS = """
SELECT tenant_id, attempt_id, min(request_id) AS request_id, currency, sum(amount_nano) AS amount_nano,
    min(occurred_at) AS at
FROM cost
GROUP BY tenant_id, attempt_id, currency
"""
#: The one resolution of a hold that counts: the first by offset, or the first COMMITTED that came after an EXPIRED.
RESOLVED = """
SELECT DISTINCT ON (tenant_id, hold_id) tenant_id, hold_id, request_id, currency, kind, legs, occurred_at AS at,
    CASE WHEN kind = 'RELEASED' THEN 0 ELSE amount_nano END AS charged_nano
FROM (
    SELECT *, first_value(kind) OVER (PARTITION BY tenant_id, hold_id ORDER BY log_offset) AS first_kind
    FROM budget_event
    WHERE kind IN ('COMMITTED', 'RELEASED', 'EXPIRED')) AS resolution
ORDER BY tenant_id, hold_id, (first_kind = 'EXPIRED' AND kind = 'COMMITTED') DESC, log_offset
"""

#: What each limit was set to, from when and until when. Gateways go by a change within seconds; a minute covers their
#: clocks too.
_SET = f"""
SELECT tenant_id, entity_id AS limit_id, (after::jsonb ->> 'amount_nano')::numeric AS amount_nano,
    after::jsonb -> 'increases' AS increases, after::jsonb ->> 'window' AS length,
    coalesce(after::jsonb ->> 'time_zone', 'UTC') AS time_zone,
    coalesce((after::jsonb ->> 'hard')::boolean, true) AS hard,
    occurred_at - interval '1 minute' AS since,
    lead(occurred_at) OVER (PARTITION BY tenant_id, entity_id ORDER BY log_offset) + interval '1 minute' AS until
FROM {SCHEMA}.control_event
WHERE entity_kind = 'LIMIT'
"""
#: The increases that a limit named and that counted at some time of the window so far: together never too little. Days,
#: weeks and months are those of the limit's clock.
_INCREASED = """
SELECT sum((increase ->> 'amount_nano')::numeric) AS amount_nano
FROM jsonb_array_elements(allowed.increases) AS increase
CROSS JOIN LATERAL (
    SELECT CASE WHEN allowed.length IN ('minute', 'hour') THEN taken.window_start + ('1 ' || allowed.length)::interval
        WHEN allowed.length IN ('day', 'week', 'month') THEN
            ((taken.window_start AT TIME ZONE allowed.time_zone) + ('1 ' || allowed.length)::interval)
                AT TIME ZONE allowed.time_zone
        END AS over
) AS span
WHERE (increase ->> 'valid_from')::numeric / 1000000
        < extract(epoch FROM least(span.over, allowed.until, now() + interval '1 minute'))
    AND (increase ->> 'valid_until')::numeric / 1000000
        > extract(epoch FROM greatest(taken.window_start, allowed.since))
"""
#: What was taken from a limit's available account and not given back, per window: held and charged, overage apart. A
#: commit that came late for more than EXPIRED had charged is recorded as a correction, and counts as overage does.
_TAKEN = f"""
SELECT tenant_id, currency, coalesce(window_start, to_timestamp(0)) AS window_start,
    split_part(CASE WHEN is_debit THEN debit_account ELSE credit_account END, '/', 2) AS counter,
    sum(CASE WHEN is_debit THEN amount_nano ELSE -amount_nano END) AS taken_nano
FROM (
    SELECT *, debit_account LIKE 'budget/%/available' AS is_debit
    FROM {SCHEMA}.transfer
    WHERE (kind = 'PENDING' AND debit_account LIKE 'budget/%/available')
        OR (kind IN ('VOID', 'DIRECT') AND credit_account LIKE 'budget/%/available')
) AS moved
GROUP BY tenant_id, currency, window_start, counter
"""

#: What was let through unchecked while budgets could not be (setting fail_open_usd_per_hour), per counter and window.
_LET_THROUGH = f"""
SELECT placed.tenant_id, leg ->> 'limit_id' AS counter, leg ->> 'currency' AS currency,
    to_timestamp((leg ->> 'window_start')::bigint / 1000000.0) AS window_start,
    sum((leg ->> 'amount_nano')::numeric) AS through_nano
FROM {SCHEMA}.budget_event AS placed, jsonb_array_elements(placed.legs) AS leg
WHERE placed.kind = 'PLACED' AND placed.reason = 'fail_open'
GROUP BY 1, 2, 3, 4
"""

INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        "debits_equal_credits",
        "Per currency, debits equal credits, pending and posted apart.",
        f"""
SELECT currency AS id, format('%s: pending %s/%s, posted %s/%s', currency, sum(debits_pending_nano),
    sum(credits_pending_nano), sum(debits_posted_nano), sum(credits_posted_nano)) AS difference
FROM {SCHEMA}.account_balance
GROUP BY currency
HAVING sum(debits_pending_nano) <> sum(credits_pending_nano) OR sum(debits_posted_nano) <> sum(credits_posted_nano)
""",
    ),
    Invariant(
        "balances_are_the_fold",
        "Every balance is the sum of its transfers.",
        f"""
WITH fold AS (
    SELECT tenant_id, account, currency,
        coalesce(sum(pending_nano) FILTER (WHERE is_debit), 0) AS debits_pending_nano,
        coalesce(sum(posted_nano) FILTER (WHERE is_debit), 0) AS debits_posted_nano,
        coalesce(sum(pending_nano) FILTER (WHERE NOT is_debit), 0) AS credits_pending_nano,
        coalesce(sum(posted_nano) FILTER (WHERE NOT is_debit), 0) AS credits_posted_nano
    FROM {SCHEMA}.transfer_side
    GROUP BY tenant_id, account, currency
)
SELECT format('%s %s %s', tenant_id, account, currency) AS id,
    format('%s %s %s: debits %s, credits %s; its transfers say %s, %s', tenant_id, account, currency,
        kept.debits_posted_nano, kept.credits_posted_nano, fold.debits_posted_nano, fold.credits_posted_nano)
        AS difference
FROM fold FULL JOIN {SCHEMA}.account_balance AS kept USING (tenant_id, account, currency)
WHERE (fold.debits_pending_nano, fold.debits_posted_nano, fold.credits_pending_nano, fold.credits_posted_nano)
    IS DISTINCT FROM
    (kept.debits_pending_nano, kept.debits_posted_nano, kept.credits_pending_nano, kept.credits_posted_nano)
""",
    ),
    Invariant(
        "pending_resolved_within_bounds",
        "A pending transfer is resolved by one event, in one post and one void at most, which never exceed it.",
        """
SELECT pending.tenant_id, pending.occurred_at AS at, pending.event_id::text AS id, pending.request_id,
    format('%s: pending %s, posted %s in %s, voided %s, by %s', pending.event_id, pending.amount_nano,
        coalesce(sum(resolver.amount_nano) FILTER (WHERE resolver.kind = 'POST'), 0),
        count(*) FILTER (WHERE resolver.kind = 'POST'),
        coalesce(sum(resolver.amount_nano) FILTER (WHERE resolver.kind = 'VOID'), 0),
        concat_ws(' and ', min(resolver.source_event_id::text),
            nullif(max(resolver.source_event_id::text), min(resolver.source_event_id::text)))) AS difference
FROM transfer AS resolver
JOIN transfer AS pending
    ON pending.tenant_id = resolver.tenant_id AND pending.event_id = resolver.pending_id
GROUP BY pending.tenant_id, pending.event_id, pending.occurred_at, pending.request_id, pending.amount_nano
HAVING sum(resolver.amount_nano) > pending.amount_nano
    OR count(*) FILTER (WHERE resolver.kind = 'POST') > 1
    OR count(*) FILTER (WHERE resolver.kind = 'VOID') > 1
    OR min(resolver.source_event_id::text) <> max(resolver.source_event_id::text)
""",
        of_spans=True,
    ),
    Invariant(
        "resolutions_have_a_pending",
        "A post or void points at a pending transfer of the same currency and moves on from one of its accounts; "
        "a void goes back to where the pending transfer came from.",
        """
SELECT resolver.tenant_id, resolver.occurred_at AS at, resolver.event_id::text AS id, resolver.request_id,
    format('%s %s', resolver.kind, resolver.event_id) AS difference
FROM transfer AS resolver
LEFT JOIN transfer AS pending
    ON pending.tenant_id = resolver.tenant_id AND pending.event_id = resolver.pending_id AND pending.kind = 'PENDING'
WHERE resolver.kind IN ('POST', 'VOID')
    AND (pending.currency IS DISTINCT FROM resolver.currency
        OR resolver.debit_account NOT IN (pending.debit_account, pending.credit_account)
        OR (resolver.kind = 'VOID' AND resolver.credit_account <> pending.debit_account))
""",
        of_spans=True,
    ),
    Invariant(
        "committed_equals_costs",
        "What a hold was charged is the sum of its attempt's costs, late commits and corrections netted.",
        f"""
SELECT resolved.tenant_id, resolved.at, hold_id::text AS id, resolved.request_id,
    format('attempt %s: charged %s, costs %s %s', hold_id, charged_nano, coalesce(costs.amount_nano, 0),
        resolved.currency) AS difference
FROM ({RESOLVED}) AS resolved
LEFT JOIN ({COSTS}) AS costs
    ON costs.tenant_id = resolved.tenant_id AND costs.attempt_id = resolved.hold_id
    AND costs.currency = resolved.currency
WHERE charged_nano <> coalesce(costs.amount_nano, 0)
""",
        of_spans=True,
    ),
    Invariant(
        "charges_are_settled",
        "An attempt that has costs has a hold that was charged, in the same currency.",
        f"""
SELECT tenant_id, at, attempt_id::text AS id, request_id,
    format('attempt %s: costs %s %s, its hold was never charged', attempt_id, amount_nano, currency) AS difference
FROM ({COSTS}) AS costs
WHERE amount_nano <> 0 AND NOT EXISTS (
    SELECT FROM budget_event AS resolution
    WHERE resolution.tenant_id = costs.tenant_id AND resolution.hold_id = costs.attempt_id
        AND resolution.currency = costs.currency AND resolution.kind IN ('COMMITTED', 'RELEASED', 'EXPIRED'))
""",
        of_spans=True,
    ),
    Invariant(
        "limits_hold",
        "What is held and charged in a window is at most what its limit allowed, and what is recorded above it: "
        "overage, and calls let through while budgets could not be checked.",
        f"""
SELECT format('%s %s %s from %s', tenant_id, counter, currency, window_start) AS id,
    format('%s %s from %s: taken %s, allowed %s %s', tenant_id, counter, window_start, taken_nano,
        max(allowed.amount_nano + coalesce(increased.amount_nano, 0)), currency) AS difference
FROM ({_TAKEN}) AS taken
JOIN ({_SET}) AS allowed USING (tenant_id)
CROSS JOIN LATERAL ({_INCREASED}) AS increased
LEFT JOIN ({_LET_THROUGH}) AS through USING (tenant_id, counter, currency, window_start)
WHERE allowed.limit_id = split_part(taken.counter, '.', 1) AND allowed.hard
    AND (allowed.until IS NULL OR allowed.until > taken.window_start)
GROUP BY tenant_id, counter, window_start, currency, taken_nano, through_nano
HAVING taken_nano > max(allowed.amount_nano + coalesce(increased.amount_nano, 0)) + coalesce(through_nano, 0)
""",
    ),
    Invariant(
        "entries_have_a_source",
        "Every transfer derives from an event that is here too.",
        """
SELECT entry.tenant_id, entry.occurred_at AS at, entry.event_id::text AS id, entry.request_id,
    format('%s from %s %s', entry.event_id, entry.source_topic, entry.source_event_id) AS difference
FROM transfer AS entry
WHERE NOT EXISTS (
        SELECT FROM budget_event AS source
        WHERE source.tenant_id = entry.tenant_id AND source.event_id = entry.source_event_id)
    AND NOT EXISTS (
        SELECT FROM cost AS source
        WHERE source.tenant_id = entry.tenant_id AND source.event_id = entry.source_event_id)
""",
        of_spans=True,
    ),
    Invariant(
        "one_row_per_id",
        "An event id stands once per tenant, whatever its time.",
        f"""
SELECT event_id::text AS id, format('%s %s', tenant_id, event_id) AS difference
FROM {SCHEMA}.transfer
GROUP BY tenant_id, event_id
HAVING count(*) > 1
""",
    ),
    Invariant(
        "amounts_are_not_negative",
        "A transfer's amount is never negative, and it moves between two different accounts.",
        """
SELECT tenant_id, occurred_at AS at, event_id::text AS id, request_id, event_id::text AS difference
FROM transfer
WHERE amount_nano < 0 OR debit_account = credit_account
""",
        of_spans=True,
    ),
    # EXPIRED has no time of its own. But what stands under a checkpoint was in the log before that was kept; the reaper
    # waits for longer than clocks differ.
    Invariant(
        "holds_expire_after_their_lease",
        "No hold that stands expires, as far as the audit log's checkpoints tell.",
        f"""
SELECT expired.hold_id::text AS id,
    format('hold %s expired before %s, its lease ends at %s', expired.hold_id, seen.kept_at, lease.until) AS difference
FROM {SCHEMA}.budget_event AS expired
JOIN quaestor.audit_entry AS entered ON entered.request_id = expired.request_id
    AND entered.tenant_id = expired.tenant_id AND entered.event_id = expired.event_id
CROSS JOIN LATERAL (
    SELECT max(stands.lease_until) AS until
    FROM {SCHEMA}.budget_event AS stands
    WHERE stands.kind IN ('PLACED', 'EXTENDED') AND stands.request_id = expired.request_id
        AND stands.tenant_id = expired.tenant_id AND stands.hold_id = expired.hold_id
        AND stands.log_offset < expired.log_offset
) AS lease
CROSS JOIN LATERAL (
    SELECT kept_at FROM quaestor.audit_checkpoint AS checkpoint
    WHERE checkpoint.log = entered.log AND checkpoint.size > entered.seq
    ORDER BY checkpoint.size
    LIMIT 1
) AS seen
WHERE expired.kind = 'EXPIRED' AND seen.kept_at < lease.until
""",
    ),
    # Entries that retention gave up, and records that the sequencer has yet to enter, are at offsets outside.
    Invariant(
        "transfers_are_audited",
        "Every transfer has its entry in the audit log, of the same amount, as far as the log goes.",
        f"""
WITH entered AS MATERIALIZED (
    SELECT log, tenant_id, partition, "offset", event_id, amount_nano
    FROM quaestor.audit_entry
    WHERE topic = '{LEDGER.name}'
), spans AS (
    SELECT log, partition, min("offset") AS first_offset, next_offset
    FROM entered JOIN quaestor.audit_cursor AS reached USING (log, partition)
    WHERE reached.topic = '{LEDGER.name}'
    GROUP BY log, partition, next_offset
)
SELECT transfer.event_id::text AS id,
    format('%s %s of %s %s is not in the audit log %s', transfer.kind, transfer.event_id, transfer.amount_nano,
        transfer.currency, spans.log) AS difference
FROM {SCHEMA}.transfer
JOIN spans ON spans.partition = transfer.log_partition
    AND transfer.log_offset >= spans.first_offset AND transfer.log_offset < spans.next_offset
WHERE NOT EXISTS (
    SELECT FROM entered
    WHERE entered.log = spans.log AND entered.tenant_id = transfer.tenant_id
        AND entered.event_id = transfer.event_id AND entered.amount_nano = transfer.amount_nano)
""",
    ),
)


def limited(invariant: Invariant) -> str:
    """The query with its differences counted and as many told apart as may be.

    Rows that have `due` count when they were due before $1.
    """
    return f"""
SELECT count(*) OVER () AS differences, id, difference
FROM ({invariant.sql}) AS found
{"WHERE due < $1" if invariant.has_due else ""}
ORDER BY difference
LIMIT {DIFFERENCES_MAX}
"""
