-- What each transfer does to accounts, when a POST moves on from where its PENDING put the money.
--
-- PENDING available → held reserves: pending on both. POST held → spent of it turns that part of the pending into posted
-- on available and held, and moves it on from held to spent. VOID held → available takes the part back from pending.
-- The sink's own rule (sinks/postgres/balances.py) is this one; a check compares the fold of this view with the balances.
DROP VIEW quaestor_v1.transfer_side;
CREATE VIEW quaestor_v1.transfer_side AS
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
WHERE side.pending_nano <> 0 OR side.posted_nano <> 0;

ALTER VIEW quaestor_v1.transfer_side OWNER TO quaestor_owner;
GRANT SELECT ON quaestor_v1.transfer_side TO quaestor_app, quaestor_reader;
