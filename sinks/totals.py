"""What every store can say about itself at a barrier, so that stores can be compared with the log and each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from processors.parity.totals import digest_of


@dataclass(frozen=True)
class StoreTotals:
    """The totals of one topic in one store, over rows below the barrier."""

    #: Distinct events, by tenant and id.
    records: int
    #: Sum over distinct events of `digest_of(tenant_id, event_id)`; order-free.
    id_digest: int
    #: Sum over distinct events of amount_nano; 0 for topics without amounts.
    amount_nano: int


NO_TOTALS = StoreTotals(0, 0, 0)


def totals_of(events: Iterable[tuple[str, str, int]]) -> StoreTotals:
    """The totals of (tenant_id, event_id, amount_nano); a repeated event counts once, with its first amount."""
    distinct: dict[tuple[str, str], int] = {}
    for tenant_id, event_id, amount_nano in events:
        distinct.setdefault((tenant_id, event_id), amount_nano)
    return StoreTotals(len(distinct), sum(digest_of(*name) for name in distinct), sum(distinct.values()))


__all__ = ["NO_TOTALS", "StoreTotals", "digest_of", "totals_of"]
