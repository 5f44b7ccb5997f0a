"""Movements of holds move the accounts of their limits.

    what happened                      transfers per limit
    PLACED                             PENDING available → held
    EXTENDED                           VOID of the pending, PENDING of the new amount
    COMMITTED, EXPIRED on an open hold POST held → spent, VOID of the rest, DIRECT overage → spent above the hold
    RELEASED on an open hold           VOID held → available
    COMMITTED on an expired hold       DIRECT of the difference, memo correction

Which of these an event is was decided by `processors.budgets.effect`, the one rule every consumer of budgets follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from processors.budgets import ClosedHold, Counter, OpenHold, counter_of
from processors.ledger.accounts import Accounts
from processors.ledger.transfers import entry_id, transfer
from schemas.events import BudgetEvent, LedgerEntry, TransferKind

OVERAGE = "overage"


def post_placed(placed: BudgetEvent, after: OpenHold) -> Iterator[LedgerEntry]:
    """The hold's pending transfers."""
    for counter, amount in after.held:
        if amount:
            yield _pending(placed, counter, amount)


def post_extended(extended: BudgetEvent, source_id: str, before: OpenHold, after: OpenHold) -> Iterator[LedgerEntry]:
    """Every pending transfer gives way to one of the new amount, so that each is resolved once."""
    for counter, amount in before.held:
        if amount:
            yield _void(extended, source_id, counter, amount, "hold")
    yield from post_placed(extended, after)


def post_charged(event: BudgetEvent, source_id: str, before: OpenHold) -> Iterator[LedgerEntry]:
    """A hold was charged: posts what it covers, frees the rest, books the overage."""
    charged = charges_of(event)
    held = dict(before.held)
    for counter in dict.fromkeys((*held, *charged)):
        covered, over = _split(charged.get(counter, 0), held.get(counter, 0))
        rest = held.get(counter, 0) - covered
        if covered:
            yield _resolve(event, TransferKind.POST, source_id, counter, Accounts.spent, covered, "spend")
        if rest:
            yield _void(event, source_id, counter, rest, "release")
        if over:
            yield _direct(event, counter, OVERAGE, over, OVERAGE)


def post_released(event: BudgetEvent, source_id: str, before: OpenHold) -> Iterator[LedgerEntry]:
    """A hold was let go."""
    for counter, amount in before.held:
        if amount:
            yield _void(event, source_id, counter, amount, "release")


def post_late(event: BudgetEvent, before: ClosedHold) -> Iterator[LedgerEntry]:
    """A commit came after the hold expired: the difference to what EXPIRED charged, of both sources of money."""
    if before.expired is None:
        return
    estimated, charged = charges_of(before.expired), charges_of(event)
    held = {counter_of(leg): leg.held_nano for leg in before.expired.legs}
    for counter in dict.fromkeys((*estimated, *charged)):
        old_covered, old_over = _split(estimated.get(counter, 0), held.get(counter, 0))
        covered, over = _split(charged.get(counter, 0), held.get(counter, 0))
        if covered != old_covered:
            yield _direct(event, counter, "available", covered - old_covered, "correction")
        if over != old_over:
            yield _direct(event, counter, OVERAGE, over - old_over, "correction")


def charges_of(event: BudgetEvent) -> Mapping[Counter, int]:
    """What an event charges per counter."""
    return {counter_of(leg): leg.amount_nano for leg in event.legs}


def _split(charged_nano: int, held_nano: int) -> tuple[int, int]:
    """What a hold covers of a charge, and what is above it."""
    covered = min(charged_nano, held_nano)
    return covered, charged_nano - covered


def _pending(source: BudgetEvent, counter: Counter, amount_nano: int) -> LedgerEntry:
    return transfer(
        source,
        TransferKind.PENDING,
        str(counter),
        debit=Accounts.available(counter.limit_id),
        credit=Accounts.held(counter.limit_id),
        amount_nano=amount_nano,
        currency=counter.currency,
        memo="hold",
        window_start=counter.window_start,
    )


def _void(source: BudgetEvent, source_id: str, counter: Counter, amount_nano: int, memo: str) -> LedgerEntry:
    return _resolve(source, TransferKind.VOID, source_id, counter, Accounts.available, amount_nano, memo)


def _resolve(
    source: BudgetEvent,
    kind: TransferKind,
    source_id: str,
    counter: Counter,
    credit: Callable[[str], str],
    amount_nano: int,
    memo: str,
) -> LedgerEntry:
    return transfer(
        source,
        kind,
        str(counter),
        debit=Accounts.held(counter.limit_id),
        credit=credit(counter.limit_id),
        amount_nano=amount_nano,
        currency=counter.currency,
        memo=memo,
        pending_id=entry_id(source_id, TransferKind.PENDING, str(counter)),
        window_start=counter.window_start,
    )


def _direct(source: BudgetEvent, counter: Counter, origin: str, amount_nano: int, memo: str) -> LedgerEntry:
    accounts = {"available": Accounts.available, OVERAGE: Accounts.overage}
    return transfer(
        source,
        TransferKind.DIRECT,
        f"{origin}|{counter}",
        debit=accounts[origin](counter.limit_id),
        credit=Accounts.spent(counter.limit_id),
        amount_nano=amount_nano,
        currency=counter.currency,
        memo=memo,
        window_start=counter.window_start,
    )
