"""What new transfers do to their accounts, netted per account: pure, and the same rule as the view transfer_side.

PENDING reserves on both of its accounts. POST turns a part of a pending transfer into posted, on that transfer's
accounts; where its own accounts are others (held → spent after available → held), it also moves the amount on between
them. VOID takes a part back. DIRECT posts at once. Zero transfers touch nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from processors.ledger.accounts import Accounts
from schemas.topics import LEDGER
from sinks.postgres.tables import TABLES, Row

FIELDS = (
    "tenant_id",
    "event_id",
    "kind",
    "debit_account",
    "credit_account",
    "amount_nano",
    "currency",
    "pending_id",
)


class Transfer(NamedTuple):
    """The fields of a transfer that move balances; ids are text."""

    tenant_id: str
    event_id: str
    kind: str
    debit_account: str
    credit_account: str
    amount_nano: int
    currency: str
    pending_id: str | None


class Pair(NamedTuple):
    """The accounts of a pending transfer."""

    debit_account: str
    credit_account: str


#: tenant_id, event_id.
PendingId = tuple[str, str]
_transfer_of = itemgetter(*map(TABLES[LEDGER.name].columns.index, FIELDS))


def transfers_of(rows: Iterable[Row]) -> list[Transfer]:
    """The transfers in rows of the transfer table."""
    return [Transfer._make(_transfer_of(row)) for row in rows]


def pendings_of(transfers: Iterable[Transfer]) -> dict[PendingId, Pair]:
    """The pending transfers among these, by id."""
    return {
        (each.tenant_id, each.event_id): Pair(each.debit_account, each.credit_account)
        for each in transfers
        if each.kind == "PENDING"
    }


def pendings_needed(transfers: Iterable[Transfer], known: Mapping[PendingId, Pair]) -> list[PendingId]:
    """Pending transfers that these resolve and that must be looked up."""
    wanted = {(each.tenant_id, each.pending_id) for each in transfers if each.pending_id is not None}
    return sorted(wanted - known.keys())


@dataclass
class Net:
    """Net changes per tenant, account and currency: debits pending, posted, credits pending, posted; nano-units."""

    changes: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)

    def add(self, transfer: Transfer, pendings: Mapping[PendingId, Pair]) -> None:
        """Add what one new transfer does."""
        own = Pair(transfer.debit_account, transfer.credit_account)
        amount = transfer.amount_nano
        match transfer.kind:
            case "PENDING":
                self._move(transfer, own, amount, 0)
            case "DIRECT":
                self._move(transfer, own, 0, amount)
            case "POST" | "VOID":
                reserved = pendings.get((transfer.tenant_id, transfer.pending_id or "")) or _unseen(own)
                is_post = transfer.kind == "POST"
                self._move(transfer, reserved, -amount, amount if is_post else 0)
                if is_post and reserved != own:
                    self._move(transfer, own, 0, amount)

    def _move(self, transfer: Transfer, pair: Pair, pending_nano: int, posted_nano: int) -> None:
        if not pending_nano and not posted_nano:
            return
        for account, first in ((pair.debit_account, 0), (pair.credit_account, 2)):
            sums = self.changes.setdefault((transfer.tenant_id, account, transfer.currency), [0, 0, 0, 0])
            sums[first] += pending_nano
            sums[first + 1] += posted_nano


def _unseen(own: Pair) -> Pair:
    """The accounts of a pending transfer that stands behind its resolution in the log.

    It does after a time-out of the log: the first of two records was not taken, the second was, and both came again.
    """
    known = Accounts.reserved_from(own.debit_account)
    return Pair(*known) if known is not None else own
