"""What every store can say about itself at a barrier, so that stores can be compared with the log and each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

#: Hex digits of the MD5 of an event id that enter the digest: 60 bits, so that every store holds them in 64.
DIGEST_HEX_DIGITS = 15


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


def digest_of(event_id: str) -> int:
    """The first 15 hex digits of the MD5 of the id's text, as an integer (a checksum, nothing secret)."""
    return int(hashlib.md5(event_id.encode(), usedforsecurity=False).hexdigest()[:DIGEST_HEX_DIGITS], 16)


def totals_of(amounts_by_id: Iterable[tuple[str, int]]) -> StoreTotals:
    """The totals of distinct (event_id, amount_nano) pairs; repeated ids count once, with their first amount."""
    distinct: dict[str, int] = {}
    for event_id, amount_nano in amounts_by_id:
        distinct.setdefault(event_id, amount_nano)
    return StoreTotals(len(distinct), sum(map(digest_of, distinct)), sum(distinct.values()))
