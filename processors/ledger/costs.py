"""Cost lines move expense and payable accounts; each line says everything itself."""

from __future__ import annotations

from collections.abc import Sequence

from processors.ledger.accounts import Accounts
from processors.ledger.transfers import transfer
from schemas.events import CostEvent, CostKind, LedgerEntry, TransferKind

CHARGED, BILLED = "charged", "billed"


def post_cost(cost: CostEvent) -> Sequence[LedgerEntry]:
    """What the tenant owes is an expense, what the provider asks is payable; nothing for an amount of nothing.

    In one currency that is one transfer. In two it is one in each, through the clearing account of the pair.
    """
    expense = Accounts.expense(cost.team_id, cost.key_id, cost.project_id)
    payable = Accounts.payable(cost.provider_id)
    if cost.currency == cost.provider_currency:
        return _direct(cost, CHARGED, expense, payable, cost.amount_nano, cost.currency)
    clearing = Accounts.clearing(cost.provider_currency, cost.currency)
    return (
        *_direct(cost, CHARGED, expense, clearing, cost.amount_nano, cost.currency),
        *_direct(cost, BILLED, clearing, payable, cost.provider_amount_nano, cost.provider_currency),
    )


def _direct(
    cost: CostEvent, leg: str, debit: str, credit: str, amount_nano: int, currency: str
) -> tuple[LedgerEntry, ...]:
    if not amount_nano:
        return ()
    memo = "correction" if cost.kind is CostKind.CORRECTION else "expense"
    entry = transfer(
        cost,
        TransferKind.DIRECT,
        leg,
        debit=debit,
        credit=credit,
        amount_nano=amount_nano,
        currency=currency,
        memo=memo,
    )
    return (entry,)
