-- Hourly rollups, filled by materialized views in the very insert that brings the facts. Each event reaches its fact
-- table once, so these count events, not rows. Targets have a window of deduplication of their own: without one a
-- repeated insert would count twice here while the facts stay right.

-- What was charged: by meter, so that a quantity has one unit; corrections stand apart from charges.
CREATE TABLE IF NOT EXISTS {database}.rollup_cost_hourly {on_cluster} (
    hour DateTime('UTC'),
    tenant_id LowCardinality(String),
    team_id LowCardinality(String),
    project_id LowCardinality(String),
    provider_id LowCardinality(String),
    model LowCardinality(String),
    meter LowCardinality(String),
    kind LowCardinality(String),
    estimated Bool,
    currency LowCardinality(String),
    quantity Int64,
    amount Decimal(38, 9),
    events UInt64
) ENGINE = {engine_prefix}SummingMergeTree((quantity, amount, events))
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant_id, hour, team_id, project_id, provider_id, model, meter, kind, estimated, currency)
SETTINGS {dedup_window};

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.rollup_cost_hourly_view {on_cluster}
TO {database}.rollup_cost_hourly AS
SELECT
    toStartOfHour(occurred_at, 'UTC') AS hour,
    tenant_id,
    team_id,
    project_id,
    provider_id,
    model,
    meter,
    kind,
    estimated,
    currency,
    sum(costs.quantity) AS quantity,
    sum(toDecimal128(costs.amount_nano, 9) / 1000000000) AS amount,
    count() AS events
FROM {database}.costs
GROUP BY hour, tenant_id, team_id, project_id, provider_id, model, meter, kind, estimated, currency;

-- How requests ended. The model is the one that served, or the one asked for when none did. Read sums with sum(),
-- latency and first_chunk (microseconds) with quantilesTDigestIfMerge(0.5, 0.95, 0.99)(latency).
CREATE TABLE IF NOT EXISTS {database}.rollup_requests_hourly {on_cluster} (
    hour DateTime('UTC'),
    tenant_id LowCardinality(String),
    team_id LowCardinality(String),
    project_id LowCardinality(String),
    provider_id LowCardinality(String),
    model LowCardinality(String),
    currency LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64),
    completed SimpleAggregateFunction(sum, UInt64),
    failed SimpleAggregateFunction(sum, UInt64),
    refused SimpleAggregateFunction(sum, UInt64),
    input_tokens SimpleAggregateFunction(sum, Int64),
    cached_input_tokens SimpleAggregateFunction(sum, Int64),
    cache_write_tokens SimpleAggregateFunction(sum, Int64),
    output_tokens SimpleAggregateFunction(sum, Int64),
    reasoning_tokens SimpleAggregateFunction(sum, Int64),
    amount SimpleAggregateFunction(sum, Decimal(38, 9)),
    latency AggregateFunction(quantilesTDigestIf(0.5, 0.95, 0.99), Int64, UInt8),
    first_chunk AggregateFunction(quantilesTDigestIf(0.5, 0.95, 0.99), Int64, UInt8)
) ENGINE = {engine_prefix}AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant_id, hour, team_id, project_id, provider_id, model, currency)
SETTINGS {dedup_window};

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.rollup_requests_hourly_view {on_cluster}
TO {database}.rollup_requests_hourly AS
SELECT
    toStartOfHour(occurred_at, 'UTC') AS hour,
    tenant_id,
    team_id,
    project_id,
    provider_id,
    if(model_served != '', model_served, model_requested) AS model,
    currency,
    count() AS requests,
    countIf(kind = 'COMPLETED') AS completed,
    countIf(kind = 'FAILED') AS failed,
    countIf(kind = 'REFUSED') AS refused,
    sum(requests.input_tokens) AS input_tokens,
    sum(requests.cached_input_tokens) AS cached_input_tokens,
    sum(requests.cache_write_tokens) AS cache_write_tokens,
    sum(requests.output_tokens) AS output_tokens,
    sum(requests.reasoning_tokens) AS reasoning_tokens,
    sum(toDecimal128(requests.amount_nano, 9) / 1000000000) AS amount,
    quantilesTDigestIfState(0.5, 0.95, 0.99)(
        ifNull(duration_micros, 0), toUInt8(isNotNull(duration_micros))
    ) AS latency,
    quantilesTDigestIfState(0.5, 0.95, 0.99)(
        ifNull(first_chunk_micros, 0), toUInt8(isNotNull(first_chunk_micros))
    ) AS first_chunk
FROM {database}.requests
WHERE kind IN ('COMPLETED', 'FAILED', 'REFUSED')
GROUP BY hour, tenant_id, team_id, project_id, provider_id, model, currency;
