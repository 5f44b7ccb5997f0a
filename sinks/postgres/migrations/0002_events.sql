-- One append-only table per topic, one row per event, partitioned by month of occurred_at.
--
-- log_partition and log_offset say where the row came from; content_hash is the first 16 bytes of the BLAKE2b hash of
-- the record's body, so that the same id with other bytes is noticed. A unique key on a partitioned table needs the
-- partition column; a derived event copies occurred_at from its source, so that its repetition meets the same key.

CREATE TABLE quaestor_v1.request_event (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    kind text NOT NULL,
    run_id text,
    key_id text,
    team_id text,
    project_id text,
    operation text NOT NULL,
    model_requested text,
    stream boolean NOT NULL,
    subject_handle text,
    subject_state text NOT NULL,
    tags jsonb NOT NULL,
    sealed bytea,
    body_commitment bytea,
    body_bytes bigint NOT NULL,
    status_code integer,
    error_code text,
    error_detail text,
    provider_id text,
    model_served text,
    attempt_count integer NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    usage_source text NOT NULL,
    amount_nano bigint NOT NULL,
    currency text,
    finish_reason text,
    started_at timestamptz,
    duration_micros bigint,
    first_chunk_micros bigint,
    client_disconnected boolean NOT NULL,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.decision (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    run_id text,
    key_id text,
    team_id text,
    project_id text,
    model_requested text NOT NULL,
    policy text NOT NULL,
    policy_version text NOT NULL,
    candidates jsonb NOT NULL,
    chosen_provider_id text,
    chosen_model text,
    probability double precision NOT NULL,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.attempt (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    run_id text,
    key_id text,
    team_id text,
    project_id text,
    attempt_id uuid NOT NULL,
    attempt_number integer NOT NULL,
    operation text NOT NULL,
    provider_id text NOT NULL,
    model text NOT NULL,
    provider_response_id text,
    outcome text NOT NULL,
    status_code integer,
    error_detail text,
    stream boolean NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    usage_source text NOT NULL,
    finish_reason text,
    started_at timestamptz NOT NULL,
    duration_micros bigint NOT NULL,
    first_chunk_micros bigint,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.cost (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    run_id text,
    key_id text,
    team_id text,
    project_id text,
    kind text NOT NULL,
    attempt_id uuid NOT NULL,
    provider_id text NOT NULL,
    model text NOT NULL,
    meter text NOT NULL,
    quantity bigint NOT NULL,
    unit_price_pico bigint NOT NULL,
    price_id text NOT NULL,
    price_version text NOT NULL,
    provider_amount_nano bigint NOT NULL,
    provider_currency text NOT NULL,
    amount_nano bigint NOT NULL,
    currency text NOT NULL,
    exchange_rate_id text,
    estimated boolean NOT NULL,
    corrects_event_id uuid,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.budget_event (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    run_id text,
    key_id text,
    team_id text,
    project_id text,
    kind text NOT NULL,
    hold_id uuid NOT NULL,
    legs jsonb NOT NULL,
    amount_nano bigint NOT NULL,
    currency text NOT NULL,
    provider_id text NOT NULL,
    model text NOT NULL,
    price_version text,
    exchange_rate_id text,
    lease_until timestamptz,
    generation text,
    attempt_number integer NOT NULL,
    estimated boolean NOT NULL,
    late boolean NOT NULL,
    reason text,
    refused_by_limit_id text,
    remaining_nano bigint,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.transfer (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    kind text NOT NULL,
    debit_account text NOT NULL,
    credit_account text NOT NULL,
    amount_nano bigint NOT NULL,
    currency text NOT NULL,
    pending_id uuid,
    source_topic text NOT NULL,
    source_event_id uuid NOT NULL,
    attempt_id uuid,
    window_start timestamptz,
    memo text NOT NULL,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.control_event (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    entity_kind text NOT NULL,
    entity_id text NOT NULL,
    action text NOT NULL,
    before text,
    after text,
    reason text,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.health (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    provider_id text NOT NULL,
    model text NOT NULL,
    region text NOT NULL,
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    attempts bigint NOT NULL,
    errors bigint NOT NULL,
    timeouts bigint NOT NULL,
    latency_p50_micros bigint NOT NULL,
    latency_p95_micros bigint NOT NULL,
    first_chunk_p50_micros bigint,
    state text NOT NULL,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.alert (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    kind text NOT NULL,
    severity text NOT NULL,
    subject text NOT NULL,
    title text NOT NULL,
    detail text NOT NULL,
    window_start timestamptz,
    threshold text,
    delivery_state text,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE quaestor_v1.quarantine (
    log_partition integer NOT NULL,
    log_offset bigint NOT NULL,
    content_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id text NOT NULL,
    request_id text,
    causation_id uuid,
    actor text NOT NULL,
    schema_version integer NOT NULL,
    sink text NOT NULL,
    source_topic text NOT NULL,
    source_topic_id text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    fingerprint text NOT NULL,
    key_bytes bytea,
    value_bytes bytea,
    headers jsonb NOT NULL,
    schema_id integer,
    first_seen_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    UNIQUE (tenant_id, event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

-- What `quaestor why` and the ledger's checks look up.
CREATE INDEX request_event_request ON quaestor_v1.request_event (request_id);
CREATE INDEX decision_request ON quaestor_v1.decision (request_id);
CREATE INDEX attempt_request ON quaestor_v1.attempt (request_id);
CREATE INDEX cost_request ON quaestor_v1.cost (request_id);
CREATE INDEX budget_event_request ON quaestor_v1.budget_event (request_id);
CREATE INDEX transfer_request ON quaestor_v1.transfer (request_id);
CREATE INDEX request_event_recent ON quaestor_v1.request_event (occurred_at);

-- Nothing in these tables is ever changed, whoever asks; dropping a month is retention's business. A TRUNCATE trigger on
-- the parent does not fire for a partition, so that one is put on every partition (ensure_month).
CREATE FUNCTION quaestor.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: events are append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
ALTER FUNCTION quaestor.refuse_change() OWNER TO quaestor_owner;

DO $guard$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT relname FROM pg_class WHERE relnamespace = 'quaestor_v1'::regnamespace AND relkind = 'p' ORDER BY 1
    LOOP
        EXECUTE format('ALTER TABLE quaestor_v1.%I OWNER TO quaestor_owner', name);
        EXECUTE format(
            'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON quaestor_v1.%I '
            'FOR EACH ROW EXECUTE FUNCTION quaestor.refuse_change()', name);
        -- Also under session_replication_role = replica.
        EXECUTE format('ALTER TABLE quaestor_v1.%I ENABLE ALWAYS TRIGGER append_only', name);
        EXECUTE format('GRANT SELECT, INSERT ON quaestor_v1.%I TO quaestor_app', name);
        EXECUTE format('GRANT SELECT ON quaestor_v1.%I TO quaestor_reader', name);
    END LOOP;
END
$guard$;

-- Makes the partition of one month (UTC) of one event table; a no-op when it is there. The app role may call it and
-- nothing else that changes tables.
CREATE FUNCTION quaestor.ensure_month(event_table text, month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first_day date := date_trunc('month', month);
    next_month date := first_day + interval '1 month';
    child text := event_table || to_char(first_day, '_YYYY_MM');
BEGIN
    IF first_day < DATE '2020-01-01' OR first_day >= DATE '2100-01-01' THEN
        RAISE EXCEPTION 'no partition is made for %', first_day USING ERRCODE = 'datetime_field_overflow';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = 'quaestor_v1'::regnamespace AND relkind = 'p' AND relname = event_table
    ) THEN
        RAISE EXCEPTION 'there is no event table %', event_table USING ERRCODE = 'undefined_table';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('quaestor.ensure_month'));
    IF to_regclass(format('quaestor_v1.%I', child)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Attached, not created in place: readers of the parent are not kept out.
    EXECUTE format('CREATE TABLE quaestor_v1.%I (LIKE quaestor_v1.%I INCLUDING DEFAULTS)', child, event_table);
    EXECUTE format(
        'ALTER TABLE quaestor_v1.%I ATTACH PARTITION quaestor_v1.%I FOR VALUES FROM (%L) TO (%L)',
        event_table, child, first_day::text || ' 00:00:00+00', next_month::text || ' 00:00:00+00');
    EXECUTE format(
        'CREATE TRIGGER no_truncate BEFORE TRUNCATE ON quaestor_v1.%I '
        'FOR EACH STATEMENT EXECUTE FUNCTION quaestor.refuse_change()', child);
    EXECUTE format('ALTER TABLE quaestor_v1.%I ENABLE ALWAYS TRIGGER no_truncate', child);
    EXECUTE format('GRANT SELECT ON quaestor_v1.%I TO quaestor_reader', child);
END
$$;
ALTER FUNCTION quaestor.ensure_month(text, date) OWNER TO quaestor_owner;
REVOKE ALL ON FUNCTION quaestor.ensure_month(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quaestor.ensure_month(text, date) TO quaestor_app;
