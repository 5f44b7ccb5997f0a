-- Latest states, kept by the same transaction that inserts their events.

-- Four sums per account and currency (TigerBeetle's shape). They move by the net of a batch's new transfers and are
-- checked against the fold of all transfers by `quaestor verify ledger`.
CREATE TABLE quaestor_v1.account_balance (
    tenant_id text NOT NULL,
    account text NOT NULL,
    currency text NOT NULL,
    -- Nano-units; numeric, because a sum may outgrow 64 bits where an amount may not.
    debits_pending_nano numeric(38, 0) NOT NULL DEFAULT 0,
    debits_posted_nano numeric(38, 0) NOT NULL DEFAULT 0,
    credits_pending_nano numeric(38, 0) NOT NULL DEFAULT 0,
    credits_posted_nano numeric(38, 0) NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, account, currency)
) WITH (fillfactor = 50);
ALTER TABLE quaestor_v1.account_balance OWNER TO quaestor_owner;
GRANT SELECT, INSERT, UPDATE ON quaestor_v1.account_balance TO quaestor_app;
GRANT SELECT ON quaestor_v1.account_balance TO quaestor_reader;

-- An account's name is class/owner/name.
CREATE VIEW quaestor_v1.account AS
SELECT
    tenant_id,
    account,
    currency,
    split_part(account, '/', 1) AS class,
    split_part(account, '/', 2) AS owner_id,
    split_part(account, '/', 3) AS name
FROM quaestor_v1.account_balance;

-- What each transfer does to each of its two accounts; the one place that says so.
CREATE VIEW quaestor_v1.transfer_side AS
SELECT
    transfer.tenant_id,
    side.account,
    transfer.currency,
    side.is_debit,
    CASE transfer.kind
        WHEN 'PENDING' THEN transfer.amount_nano
        WHEN 'POST' THEN -transfer.amount_nano
        WHEN 'VOID' THEN -transfer.amount_nano
        ELSE 0
    END AS pending_nano,
    CASE WHEN transfer.kind IN ('POST', 'DIRECT') THEN transfer.amount_nano ELSE 0 END AS posted_nano,
    transfer.event_id,
    transfer.kind,
    transfer.occurred_at,
    transfer.memo,
    transfer.source_event_id,
    transfer.request_id
FROM quaestor_v1.transfer
CROSS JOIN LATERAL (
    VALUES (transfer.debit_account, true), (transfer.credit_account, false)
) AS side (account, is_debit);

-- The last word on every key, provider, route, price book, limit and tenant.
CREATE TABLE quaestor_v1.control_entity (
    tenant_id text NOT NULL,
    entity_kind text NOT NULL,
    entity_id text NOT NULL,
    -- The whole entity; null once it is removed, `last_state` then says what it was.
    state jsonb,
    last_state jsonb,
    removed boolean NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    event_id uuid NOT NULL,
    log_offset bigint NOT NULL,
    PRIMARY KEY (tenant_id, entity_kind, entity_id)
);
ALTER TABLE quaestor_v1.control_entity OWNER TO quaestor_owner;
GRANT SELECT, INSERT, UPDATE ON quaestor_v1.control_entity TO quaestor_app;
GRANT SELECT ON quaestor_v1.control_entity TO quaestor_reader;

CREATE VIEW quaestor_v1.virtual_key AS
SELECT
    tenant_id,
    entity_id AS key_id,
    coalesce(state, last_state) ->> 'team_id' AS team_id,
    coalesce(state, last_state) ->> 'project_id' AS project_id,
    coalesce(state, last_state) -> 'models' AS models,
    removed AS revoked,
    changed_at,
    changed_by
FROM quaestor_v1.control_entity
WHERE entity_kind = 'KEY';

CREATE VIEW quaestor_v1.provider AS
SELECT
    entity_id AS provider_id,
    state ->> 'base_url' AS base_url,
    state,
    changed_at,
    changed_by
FROM quaestor_v1.control_entity
WHERE entity_kind = 'PROVIDER' AND NOT removed;

CREATE VIEW quaestor_v1.route AS
SELECT tenant_id, entity_id AS alias, state -> 'candidates' AS candidates, state, changed_at, changed_by
FROM quaestor_v1.control_entity
WHERE entity_kind = 'ROUTE' AND NOT removed;

CREATE VIEW quaestor_v1.price_book AS
SELECT tenant_id, entity_id AS price_book_id, state, changed_at, changed_by
FROM quaestor_v1.control_entity
WHERE entity_kind = 'PRICE_BOOK' AND NOT removed;

CREATE VIEW quaestor_v1.budget_limit AS
SELECT
    tenant_id,
    entity_id AS limit_id,
    state ->> 'scope' AS scope,
    state ->> 'scope_id' AS scope_id,
    (state ->> 'amount_nano')::bigint AS amount_nano,
    state ->> 'currency' AS currency,
    state ->> 'window' AS budget_window,
    coalesce((state ->> 'hard')::boolean, true) AS hard,
    changed_at,
    changed_by
FROM quaestor_v1.control_entity
WHERE entity_kind = 'LIMIT' AND NOT removed;

-- Latest state per request: its end where there is one, else that it was received. A view, so that it can't disagree
-- with the events; the index on request_id makes one request cheap.
CREATE VIEW quaestor_v1.request AS
SELECT DISTINCT ON (request_id, tenant_id)
    request_id,
    tenant_id,
    kind AS state,
    coalesce(started_at, occurred_at) AS received_at,
    CASE WHEN kind = 'RECEIVED' THEN NULL ELSE occurred_at END AS ended_at,
    run_id,
    key_id,
    team_id,
    project_id,
    operation,
    model_requested,
    provider_id,
    model_served,
    stream,
    status_code,
    error_code,
    attempt_count,
    input_tokens,
    output_tokens,
    amount_nano,
    currency,
    duration_micros
FROM quaestor_v1.request_event
ORDER BY request_id, tenant_id, (kind = 'RECEIVED'), log_offset;

DO $views$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'quaestor_v1'::regnamespace AND relkind = 'v' LOOP
        EXECUTE format('ALTER VIEW quaestor_v1.%I OWNER TO quaestor_owner', name);
        EXECUTE format('GRANT SELECT ON quaestor_v1.%I TO quaestor_app, quaestor_reader', name);
    END LOOP;
END
$views$;
