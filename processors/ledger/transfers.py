"""Transfers from their source: ids are functions of the source event, the kind and the leg; times are the source's."""

from __future__ import annotations

from functools import lru_cache

from schemas.events import BudgetEvent, CostEvent, LedgerEntry, TransferKind
from schemas.ids import derived_id
from schemas.topics import topic_of

LEDGER = "ledger"
#: Holds placed and not resolved yet, at a few thousand requests under way.
PENDING_CACHED_MAX = 8_192


def entry_id(source_event_id: str, kind: TransferKind, leg: str) -> str:
    """The id of a transfer; `leg` says which of the source's transfers of this kind it is."""
    if kind is TransferKind.PENDING:
        return _pending_id(source_event_id, leg)
    return derived_id(LEDGER, source_event_id, kind.value, leg)


@lru_cache(maxsize=PENDING_CACHED_MAX)
def _pending_id(source_event_id: str, leg: str) -> str:
    """Asked for once when a hold is placed, and by every transfer that resolves it."""
    return derived_id(LEDGER, source_event_id, TransferKind.PENDING.value, leg)


def transfer(
    source: BudgetEvent | CostEvent,
    kind: TransferKind,
    leg: str,
    *,
    debit: str,
    credit: str,
    amount_nano: int,
    currency: str,
    memo: str,
    pending_id: str | None = None,
    window_start: int | None = None,
) -> LedgerEntry:
    """One transfer; a negative amount is the positive one the other way."""
    if amount_nano < 0:
        debit, credit, amount_nano = credit, debit, -amount_nano
    return LedgerEntry(
        event_id=entry_id(source.event_id, kind, leg),
        occurred_at=source.occurred_at,
        tenant_id=source.tenant_id,
        request_id=source.request_id,
        causation_id=source.event_id,
        actor=LEDGER,
        kind=kind,
        debit_account=debit,
        credit_account=credit,
        amount_nano=amount_nano,
        currency=currency,
        pending_id=pending_id,
        source_topic=topic_of(source).name,
        source_event_id=source.event_id,
        attempt_id=source.hold_id if isinstance(source, BudgetEvent) else source.attempt_id,
        window_start=window_start,
        memo=memo,
    )
