"""What every store can say about itself at a barrier, so that stores can be compared with the log and each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from processors.parity.totals import digest_of


@dataclass(frozen=True)
class StoreTotals:
    """The totals of one topic in one store, over rows below the barrier."""

    #: Distinct event ids.
    records: int
    #: Sum over distinct event ids of `digest_of(event_id)`; order-free.
    id_digest: int
    #: Sum over distinct event ids of amount_nano; 0 for topics without amounts.
    amount_nano: int


NO_TOTALS = StoreTotals(0, 0, 0)


def totals_of(amounts_by_id: Iterable[tuple[str, int]]) -> StoreTotals:
    """The totals of distinct (event_id, amount_nano) pairs; repeated ids count once, with their first amount."""
    distinct: dict[str, int] = {}
    for event_id, amount_nano in amounts_by_id:
        distinct.setdefault(event_id, amount_nano)
    return StoreTotals(len(distinct), sum(map(digest_of, distinct)), sum(distinct.values()))


__all__ = ["NO_TOTALS", "StoreTotals", "digest_of", "totals_of"]
