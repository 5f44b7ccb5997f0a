-- Raw facts: one table per topic, one row per event, columns as the record's fields.
--
-- _topic, _part, _off and _topic_id say which record a row came from: they are how a store is audited. Texts that are
-- null in the log are empty here; other nulls stay. Amounts are integers of nano-units, with a Decimal beside each that
-- is computed on reading. What is encrypted or hashed for other purposes (sealed, body_commitment) stays out. Rows are
-- kept for ever. The window of deduplication stands on every table that an insert reaches: see
-- docs/decisions/0021-plan-insert-settle.md.

-- Steps in the life of a request.
CREATE TABLE IF NOT EXISTS {database}.requests {on_cluster} (
    _topic LowCardinality(String),
    _topic_id LowCardinality(String),
    _part Int32,
    _off Int64,
    event_id UUID,
    occurred_at DateTime64(6, 'UTC'),
    tenant_id LowCardinality(String),
    request_id String,
    causation_id Nullable(UUID),
    actor LowCardinality(String),
    schema_version Int32,
    kind LowCardinality(String),
    run_id String,
    key_id LowCardinality(String),
    team_id LowCardinality(String),
    project_id LowCardinality(String),
    operation LowCardinality(String),
    model_requested LowCardinality(String),
    stream Bool,
    subject_handle String,
    subject_state LowCardinality(String),
    tags Map(LowCardinality(String), String),
    body_bytes Int64,
    status_code Nullable(Int32),
    error_code LowCardinality(String),
    error_detail String,
    provider_id LowCardinality(String),
    model_served LowCardinality(String),
    attempt_count Int32,
    input_tokens Int64,
    cached_input_tokens Int64,
    cache_write_tokens Int64,
    output_tokens Int64,
    reasoning_tokens Int64,
    usage_source LowCardinality(String),
    amount_nano Int64,
    currency LowCardinality(String),
    finish_reason LowCardinality(String),
    started_at Nullable(DateTime64(6, 'UTC')),
    duration_micros Nullable(Int64),
    first_chunk_micros Nullable(Int64),
    client_disconnected Bool,
    amount Decimal(38, 9) ALIAS toDecimal128(amount_nano, 9) / 1000000000,
    INDEX request_id_filter request_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX position _off TYPE minmax GRANULARITY 4
) ENGINE = {engine_prefix}MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, toStartOfHour(occurred_at), kind, request_id)
SETTINGS {dedup_window};

-- Which provider and model were chosen, among which.
CREATE TABLE IF NOT EXISTS {database}.decisions {on_cluster} (
    _topic LowCardinality(String),
    _topic_id LowCardinality(String),
    _part Int32,
    _off Int64,
    event_id UUID,
    occurred_at DateTime64(6, 'UTC'),
    tenant_id LowCardinality(String),
    request_id String,
    causation_id Nullable(UUID),
    actor LowCardinality(String),
    schema_version Int32,
    run_id String,
    key_id LowCardinality(String),
    team_id LowCardinality(String),
    project_id LowCardinality(String),
    model_requested LowCardinality(String),
    policy LowCardinality(String),
    policy_version LowCardinality(String),
    `candidates.provider_id` Array(LowCardinality(String)),
    `candidates.model` Array(LowCardinality(String)),
    `candidates.eligible` Array(Bool),
    `candidates.ruled_out_by` Array(String),
    `candidates.score` Array(Nullable(Float64)),
    `candidates.price_id` Array(LowCardinality(String)),
    chosen_provider_id LowCardinality(String),
    chosen_model LowCardinality(String),
    probability Float64,
    INDEX request_id_filter request_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX position _off TYPE minmax GRANULARITY 4
) ENGINE = {engine_prefix}MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, toStartOfHour(occurred_at), request_id)
SETTINGS {dedup_window};

-- Physical calls to providers.
CREATE TABLE IF NOT EXISTS {database}.attempts {on_cluster} (
    _topic LowCardinality(String),
    _topic_id LowCardinality(String),
    _part Int32,
    _off Int64,
    event_id UUID,
    occurred_at DateTime64(6, 'UTC'),
    tenant_id LowCardinality(String),
    request_id String,
    causation_id Nullable(UUID),
    actor LowCardinality(String),
    schema_version Int32,
    run_id String,
    key_id LowCardinality(String),
    team_id LowCardinality(String),
    project_id LowCardinality(String),
    attempt_id UUID,
    attempt_number Int32,
    operation LowCardinality(String),
    provider_id LowCardinality(String),
    model LowCardinality(String),
    provider_response_id String,
    outcome LowCardinality(String),
    status_code Nullable(Int32),
    error_detail String,
    stream Bool,
    input_tokens Int64,
    cached_input_tokens Int64,
    cache_write_tokens Int64,
    output_tokens Int64,
    reasoning_tokens Int64,
    usage_source LowCardinality(String),
    finish_reason LowCardinality(String),
    started_at DateTime64(6, 'UTC'),
    duration_micros Int64,
    first_chunk_micros Nullable(Int64),
    INDEX request_id_filter request_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX position _off TYPE minmax GRANULARITY 4
) ENGINE = {engine_prefix}MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, toStartOfHour(occurred_at), provider_id, model, request_id)
SETTINGS {dedup_window};

-- Charges per attempt and meter, and their corrections.
CREATE TABLE IF NOT EXISTS {database}.costs {on_cluster} (
    _topic LowCardinality(String),
    _topic_id LowCardinality(String),
    _part Int32,
    _off Int64,
    event_id UUID,
    occurred_at DateTime64(6, 'UTC'),
    tenant_id LowCardinality(String),
    request_id String,
    causation_id Nullable(UUID),
    actor LowCardinality(String),
    schema_version Int32,
    run_id String,
    key_id LowCardinality(String),
    team_id LowCardinality(String),
    project_id LowCardinality(String),
    kind LowCardinality(String),
    attempt_id UUID,
    provider_id LowCardinality(String),
    model LowCardinality(String),
    meter LowCardinality(String),
    quantity Int64,
    unit_price_pico Int64,
    price_id LowCardinality(String),
    price_version LowCardinality(String),
    provider_amount_nano Int64,
    provider_currency LowCardinality(String),
    amount_nano Int64,
    currency LowCardinality(String),
    exchange_rate_id LowCardinality(String),
    estimated Bool,
    corrects_event_id Nullable(UUID),
    unit_price Decimal(38, 12) ALIAS toDecimal128(unit_price_pico, 12) / 1000000000000,
    provider_amount Decimal(38, 9) ALIAS toDecimal128(provider_amount_nano, 9) / 1000000000,
    amount Decimal(38, 9) ALIAS toDecimal128(amount_nano, 9) / 1000000000,
    INDEX request_id_filter request_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX position _off TYPE minmax GRANULARITY 4
) ENGINE = {engine_prefix}MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, toStartOfHour(occurred_at), team_id, model, request_id)
SETTINGS {dedup_window};

-- Movements of holds.
CREATE TABLE IF NOT EXISTS {database}.budgets {on_cluster} (
    _topic LowCardinality(String),
    _topic_id LowCardinality(String),
    _part Int32,
    _off Int64,
    event_id UUID,
    occurred_at DateTime64(6, 'UTC'),
    tenant_id LowCardinality(String),
    request_id String,
    causation_id Nullable(UUID),
    actor LowCardinality(String),
    schema_version Int32,
    run_id String,
    key_id LowCardinality(String),
    team_id LowCardinality(String),
    project_id LowCardinality(String),
    kind LowCardinality(String),
    hold_id UUID,
    `legs.limit_id` Array(LowCardinality(String)),
    `legs.amount_nano` Array(Int64),
    `legs.held_nano` Array(Int64),
    `legs.currency` Array(LowCardinality(String)),
    `legs.window_start` Array(DateTime64(6, 'UTC')),
    `legs.window_end` Array(DateTime64(6, 'UTC')),
    amount_nano Int64,
    currency LowCardinality(String),
    provider_id LowCardinality(String),
    model LowCardinality(String),
    price_version LowCardinality(String),
    exchange_rate_id LowCardinality(String),
    lease_until Nullable(DateTime64(6, 'UTC')),
    generation LowCardinality(String),
    attempt_number Int32,
    estimated Bool,
    late Bool,
    reason String,
    refused_by_limit_id LowCardinality(String),
    remaining_nano Nullable(Int64),
    amount Decimal(38, 9) ALIAS toDecimal128(amount_nano, 9) / 1000000000,
    remaining Nullable(Decimal(38, 9)) ALIAS toDecimal128(remaining_nano, 9) / 1000000000,
    INDEX request_id_filter request_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX position _off TYPE minmax GRANULARITY 4
) ENGINE = {engine_prefix}MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, toStartOfHour(occurred_at), kind, hold_id)
SETTINGS {dedup_window};

-- Double-entry transfers.
CREATE TABLE IF NOT EXISTS {database}.ledger {on_cluster} (
    _topic LowCardinality(String),
    _topic_id LowCardinality(String),
    _part Int32,
    _off Int64,
    event_id UUID,
    occurred_at DateTime64(6, 'UTC'),
    tenant_id LowCardinality(String),
    request_id String,
    causation_id Nullable(UUID),
    actor LowCardinality(String),
    schema_version Int32,
    kind LowCardinality(String),
    debit_account String,
    credit_account String,
    amount_nano Int64,
    currency LowCardinality(String),
    pending_id Nullable(UUID),
    source_topic LowCardinality(String),
    source_event_id UUID,
    attempt_id Nullable(UUID),
    window_start Nullable(DateTime64(6, 'UTC')),
    memo LowCardinality(String),
    amount Decimal(38, 9) ALIAS toDecimal128(amount_nano, 9) / 1000000000,
    INDEX request_id_filter request_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX position _off TYPE minmax GRANULARITY 4
) ENGINE = {engine_prefix}MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, toStartOfHour(occurred_at), debit_account, credit_account)
SETTINGS {dedup_window};

-- Provider health per closed window.
CREATE TABLE IF NOT EXISTS {database}.health {on_cluster} (
    _topic LowCardinality(String),
    _topic_id LowCardinality(String),
    _part Int32,
    _off Int64,
    event_id UUID,
    occurred_at DateTime64(6, 'UTC'),
    tenant_id LowCardinality(String),
    request_id String,
    causation_id Nullable(UUID),
    actor LowCardinality(String),
    schema_version Int32,
    provider_id LowCardinality(String),
    model LowCardinality(String),
    region LowCardinality(String),
    window_start DateTime64(6, 'UTC'),
    window_end DateTime64(6, 'UTC'),
    attempts Int64,
    errors Int64,
    timeouts Int64,
    latency_p50_micros Int64,
    latency_p95_micros Int64,
    first_chunk_p50_micros Nullable(Int64),
    state LowCardinality(String),
    INDEX position _off TYPE minmax GRANULARITY 4
) ENGINE = {engine_prefix}MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (provider_id, model, region, window_start)
SETTINGS {dedup_window};
