-- A day of the ledger and of events, found among years of them.
--
-- Rows come in nearly the order of their time, so an index of one entry per megabyte leads to a day's. Requests have a
-- finer one, since 0002.
DO $days$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['decision', 'attempt', 'cost', 'budget_event', 'transfer'] LOOP
        EXECUTE format(
            'CREATE INDEX %I ON quaestor_v1.%I USING brin (occurred_at) WITH (autosummarize = on)',
            name || '_day', name);
    END LOOP;
END
$days$;

-- What each transfer of a span of time does to accounts: the rule of 0005, which is the same for a day and for ever.
-- Pending transfers that they resolve are looked for from `pending_since` on. Written into the query that asks.
CREATE FUNCTION quaestor_v1.transfer_sides(since timestamptz, until timestamptz, pending_since timestamptz)
RETURNS TABLE (
    tenant_id text,
    account text,
    currency text,
    is_debit boolean,
    pending_nano bigint,
    posted_nano bigint,
    event_id uuid,
    kind text,
    occurred_at timestamptz,
    memo text,
    source_event_id uuid,
    request_id text
)
LANGUAGE sql STABLE PARALLEL SAFE AS $sides$
SELECT
    transfer.tenant_id,
    side.account,
    transfer.currency,
    side.is_debit,
    side.pending_nano,
    side.posted_nano,
    transfer.event_id,
    transfer.kind,
    transfer.occurred_at,
    transfer.memo,
    transfer.source_event_id,
    transfer.request_id
FROM quaestor_v1.transfer
LEFT JOIN quaestor_v1.transfer AS pending
    ON pending.tenant_id = transfer.tenant_id
    AND pending.event_id = transfer.pending_id
    AND pending.kind = 'PENDING'
    AND pending.occurred_at >= pending_since
    AND pending.occurred_at < until
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN transfer.kind = 'PENDING' THEN transfer.amount_nano
            WHEN transfer.kind IN ('POST', 'VOID') THEN -transfer.amount_nano
            ELSE 0
        END AS reserved,
        CASE WHEN transfer.kind = 'POST' THEN transfer.amount_nano ELSE 0 END AS settled,
        CASE
            WHEN transfer.kind = 'DIRECT' THEN transfer.amount_nano
            WHEN transfer.kind = 'POST'
                AND (pending.debit_account, pending.credit_account) <> (transfer.debit_account, transfer.credit_account)
                THEN transfer.amount_nano
            ELSE 0
        END AS moved
) AS effect
CROSS JOIN LATERAL (
    VALUES
        (coalesce(pending.debit_account, transfer.debit_account), true, effect.reserved, effect.settled),
        (coalesce(pending.credit_account, transfer.credit_account), false, effect.reserved, effect.settled),
        (transfer.debit_account, true, 0, effect.moved),
        (transfer.credit_account, false, 0, effect.moved)
) AS side (account, is_debit, pending_nano, posted_nano)
WHERE transfer.occurred_at >= since AND transfer.occurred_at < until
    AND (side.pending_nano <> 0 OR side.posted_nano <> 0)
$sides$;
ALTER FUNCTION quaestor_v1.transfer_sides(timestamptz, timestamptz, timestamptz) OWNER TO quaestor_owner;

DROP VIEW quaestor_v1.transfer_side;
CREATE VIEW quaestor_v1.transfer_side AS
SELECT * FROM quaestor_v1.transfer_sides('-infinity', 'infinity', '-infinity');
ALTER VIEW quaestor_v1.transfer_side OWNER TO quaestor_owner;
GRANT SELECT ON quaestor_v1.transfer_side TO quaestor_app, quaestor_reader;
