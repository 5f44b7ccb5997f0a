"""What new transfers do to their accounts, netted per account: pure, and the same rule as the view transfer_side."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from schemas.topics import LEDGER
from sinks.postgres.tables import TABLES, Row

#: tenant_id, account, currency.
Account = tuple[str, str, str]
#: debits pending, debits posted, credits pending, credits posted; nano-units.
Sums = list[int]

_TRANSFER = itemgetter(
    *map(
        TABLES[LEDGER.name].columns.index,
        ("tenant_id", "kind", "debit_account", "credit_account", "amount_nano", "currency"),
    )
)


def net_of(rows: Iterable[Row]) -> dict[Account, Sums]:
    """The net change of every account these transfer rows touch, all of them new."""
    net: dict[Account, Sums] = {}
    for row in rows:
        tenant_id, kind, debit_account, credit_account, amount_nano, currency = _TRANSFER(row)
        pending, posted = effect(kind, amount_nano)
        debits = net.setdefault((tenant_id, debit_account, currency), [0, 0, 0, 0])
        debits[0] += pending
        debits[1] += posted
        credits_ = net.setdefault((tenant_id, credit_account, currency), [0, 0, 0, 0])
        credits_[2] += pending
        credits_[3] += posted
    return net


def effect(kind: str, amount_nano: int) -> tuple[int, int]:
    """What a transfer adds to pending and to posted on both of its sides."""
    match kind:
        case "PENDING":
            return amount_nano, 0
        case "POST":
            return -amount_nano, amount_nano
        case "VOID":
            return -amount_nano, 0
        case "DIRECT":
            return 0, amount_nano
    return 0, 0
