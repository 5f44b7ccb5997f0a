"""What charges must be, as queries: what was used at the price in force, once; and nothing of what was refused.

They name what is wrong with a bill whose sums agree. Where what was charged is not the sum of the costs
`committed_equals_costs` says so (invariants.py), and only an attempt whose sums agree is compared with what it used: so
a bill of which a part is yet to come is not judged before it is whole.
"""

# ruff: noqa: S608 - tables and rules are our own
from __future__ import annotations

from sinks.postgres.invariants import Invariant
from sinks.postgres.tables import SCHEMA

#: Half of the last digit that is kept, in pico-units: what rounding may add to a charge.
ROUNDING_PICO = 500

#: Every rate of every published price book: of calls with more input tokens than `above`, up to `up_to`. Reasoning is
#: charged as other output unless it has a price of its own.
_RATES = f"""
SELECT DISTINCT book.entity_id AS provider_id, book.after::jsonb ->> 'version' AS price_version,
    price ->> 'price_id' AS price_id, price ->> 'model' AS model, coalesce(price ->> 'currency', 'USD') AS currency,
    tier.above, tier.up_to, rate.meter, rate.pico
FROM {SCHEMA}.control_event AS book
CROSS JOIN LATERAL jsonb_array_elements(book.after::jsonb -> 'prices') AS price
CROSS JOIN LATERAL (
    SELECT above, rates, lead(above) OVER (ORDER BY above) AS up_to
    FROM (
        SELECT -1::numeric AS above, price -> 'rates' AS rates
        UNION ALL
        SELECT (longer ->> 'above_input_tokens')::numeric, longer -> 'rates'
        FROM jsonb_array_elements(price -> 'tiers') AS longer
    ) AS tiers
) AS tier
CROSS JOIN LATERAL (VALUES
    ('INPUT_TOKENS', (rates ->> 'input')::numeric),
    ('CACHED_INPUT_TOKENS', coalesce(rates ->> 'cached_input', rates ->> 'input')::numeric),
    ('CACHE_WRITE_TOKENS', coalesce(rates ->> 'cache_write', rates ->> 'input')::numeric),
    ('OUTPUT_TOKENS', (rates ->> 'output')::numeric),
    ('REASONING_TOKENS', (rates ->> 'reasoning')::numeric)
) AS rate (meter, pico)
WHERE book.entity_kind = 'PRICE_BOOK'
"""
#: What each attempt was billed, per meter, corrections netted.
_BILLED = """
SELECT tenant_id, attempt_id, currency, sum(amount_nano) AS amount_nano,
    coalesce(sum(quantity) FILTER (WHERE meter = 'INPUT_TOKENS'), 0) AS input,
    coalesce(sum(quantity) FILTER (WHERE meter = 'CACHED_INPUT_TOKENS'), 0) AS cached,
    coalesce(sum(quantity) FILTER (WHERE meter = 'CACHE_WRITE_TOKENS'), 0) AS written,
    coalesce(sum(quantity) FILTER (WHERE meter = 'OUTPUT_TOKENS'), 0) AS output,
    coalesce(sum(quantity) FILTER (WHERE meter = 'REASONING_TOKENS'), 0) AS reasoning
FROM cost
GROUP BY tenant_id, attempt_id, currency
"""
#: What each attempt used, its parts within their totals as `processors.pricing.checked_usage` has them. The reaper
#: closes attempts of whose use nobody told.
_USED = """
SELECT tenant_id, attempt_id, request_id, occurred_at, total_input, total_output, written,
    least(cached, total_input - written) AS cached, least(reasoning, total_output) AS reasoning
FROM attempt
CROSS JOIN LATERAL (
    SELECT greatest(input_tokens, 0) AS total_input, greatest(output_tokens, 0) AS total_output,
        least(greatest(cache_write_tokens, 0), greatest(input_tokens, 0)) AS written,
        greatest(cached_input_tokens, 0) AS cached, greatest(reasoning_tokens, 0) AS reasoning
) AS told
WHERE usage_source <> 'NONE'
"""

CHARGE_INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        "attempts_are_charged_once",
        "An attempt is charged once for what each meter counted.",
        """
SELECT tenant_id, min(occurred_at) AS at, attempt_id::text AS id, min(request_id) AS request_id,
    format('%s of attempt %s charged %s times', meter, attempt_id, count(*)) AS difference
FROM cost
WHERE kind = 'CHARGE'
GROUP BY tenant_id, attempt_id, meter
HAVING count(*) > 1
""",
        of_spans=True,
    ),
    # A commit comes as late as its gateway was alone: the charge that it corrects may be of a day long past.
    Invariant(
        "corrections_have_a_charge",
        "A correction takes back what one charge of its attempt charged, and no more than that.",
        f"""
SELECT correction.corrects_event_id::text AS id,
    format('%s of attempt %s takes back %s of %s %s', min(correction.event_id::text), correction.attempt_id,
        -sum(correction.amount_nano), coalesce(charge.amount_nano, 0), correction.currency) AS difference
FROM {SCHEMA}.cost AS correction
LEFT JOIN {SCHEMA}.cost AS charge ON charge.tenant_id = correction.tenant_id
    AND charge.event_id = correction.corrects_event_id AND charge.kind = 'CHARGE'
    AND charge.attempt_id = correction.attempt_id AND charge.currency = correction.currency
WHERE correction.kind = 'CORRECTION'
GROUP BY correction.tenant_id, correction.attempt_id, correction.corrects_event_id, correction.currency,
    charge.event_id, charge.amount_nano
HAVING charge.event_id IS NULL OR charge.amount_nano + sum(correction.amount_nano) < 0
""",
    ),
    # Retention gives up attempts and keeps costs: then any length of input may have been the call's.
    Invariant(
        "costs_have_a_price",
        "A cost is its quantity times its price, and the price is that of its model in a published price book.",
        f"""
WITH rate AS MATERIALIZED ({_RATES})
SELECT DISTINCT cost.tenant_id, cost.occurred_at AS at, cost.event_id::text AS id, cost.request_id,
    format('%s: %s x %s pico-units of %s (%s) gave %s %s', cost.meter, quantity, unit_price_pico, cost.price_id,
        cost.price_version, provider_amount_nano, provider_currency) AS difference
FROM cost
LEFT JOIN ({_USED}) AS used ON used.tenant_id = cost.tenant_id AND used.attempt_id = cost.attempt_id
LEFT JOIN rate ON rate.provider_id = cost.provider_id AND rate.price_version = cost.price_version
    AND rate.price_id = cost.price_id AND rate.model = cost.model AND rate.currency = cost.provider_currency
    AND rate.meter = cost.meter AND rate.pico = cost.unit_price_pico
    AND (used.total_input > rate.above OR used.total_input IS NULL)
    AND (used.total_input > rate.up_to) IS NOT TRUE
WHERE abs(quantity::numeric * unit_price_pico - provider_amount_nano::numeric * 1000) > {ROUNDING_PICO}
    OR cost.meter <> 'UNSETTLED_HOLD' AND rate.pico IS NULL
""",
        of_spans=True,
    ),
    Invariant(
        "costs_are_what_was_used",
        "What an attempt is charged for is what it used.",
        f"""
SELECT used.tenant_id, used.occurred_at AS at, used.attempt_id::text AS id, used.request_id,
    format('attempt %s: charged for %s + %s cached + %s written, %s + %s reasoning; used %s (%s, %s), %s (%s)',
        used.attempt_id, coalesce(billed.input, 0), coalesce(billed.cached, 0), coalesce(billed.written, 0),
        coalesce(billed.output, 0), coalesce(billed.reasoning, 0), used.total_input, used.cached, used.written,
        used.total_output, used.reasoning) AS difference
FROM ({_USED}) AS used
JOIN budget_event AS committed ON committed.tenant_id = used.tenant_id AND committed.hold_id = used.attempt_id
    AND committed.kind = 'COMMITTED'
LEFT JOIN ({_BILLED}) AS billed ON billed.tenant_id = committed.tenant_id AND billed.attempt_id = committed.hold_id
    AND billed.currency = committed.currency
WHERE committed.amount_nano = coalesce(billed.amount_nano, 0)
    AND NOT (
        coalesce(billed.input, 0) = used.total_input - used.cached - used.written
        AND coalesce(billed.cached, 0) = used.cached AND coalesce(billed.written, 0) = used.written
        AND coalesce(billed.output, 0) + coalesce(billed.reasoning, 0) = used.total_output
        AND coalesce(billed.reasoning, 0) IN (0, used.reasoning))
""",
        of_spans=True,
    ),
    # A hold that is refused may stand already: what found no room was more of it. And the reaper closes as abandoned
    # what may never have been called.
    Invariant(
        "what_was_refused_was_not_called",
        "No provider is called for a request that was refused, nor for a hold that found no room.",
        """
SELECT called.tenant_id, called.occurred_at AS at, called.attempt_id::text AS id, called.request_id,
    format('%s/%s was called by attempt %s of a refused %s', called.provider_id, called.model, called.attempt_id, what)
        AS difference
FROM attempt AS called
JOIN (
    SELECT 'request' AS what, tenant_id, request_id, NULL::uuid AS hold_id
    FROM request_event
    WHERE kind = 'REFUSED'
    UNION
    SELECT 'hold', refusal.tenant_id, refusal.request_id, refusal.hold_id
    FROM budget_event AS refusal
    WHERE refusal.kind = 'REFUSED' AND NOT EXISTS (
        SELECT FROM budget_event AS placed
        WHERE placed.kind = 'PLACED' AND placed.tenant_id = refusal.tenant_id AND placed.hold_id = refusal.hold_id)
) AS refused ON refused.tenant_id = called.tenant_id AND refused.request_id = called.request_id
    AND (refused.hold_id IS NULL OR refused.hold_id = called.attempt_id)
WHERE NOT (called.outcome = 'ABANDONED' AND called.usage_source = 'NONE')
""",
        of_spans=True,
    ),
)
