"""The seam to what limits have charged by now, for those who watch them.

`RedisReads` (reads.py) and `MemorySums` implement it; tests/contract/test_posted_sums.py is their suite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from processors.budgets import Counter
from schemas.errors import StoreUnavailableError


class PostedSums(NamedTuple):
    """What counters of one tenant have charged, at one moment."""

    #: Every budgets event of the tenant below this offset is in it.
    cursor: int
    #: Whether the tenant's live state is whole: not missing, and not being rebuilt.
    is_open: bool
    #: Nano-units of each counter's currency; one that was never charged is left out.
    posted_nano: Mapping[Counter, int]


class SumsReader(Protocol):
    """Reads applied sums; every method raises StoreUnavailableError."""

    async def posted(self, tenant_id: str, counters: Sequence[Counter]) -> PostedSums:
        """These counters of a tenant. A tenant without any state has cursor 0, is not open, and has no sums."""

    async def all_posted(self, tenant_id: str) -> PostedSums:
        """Every counter of a tenant."""


class MemorySums:
    """A SumsReader that is told: every seam ships its fake."""

    def __init__(self) -> None:
        """No tenant has anything."""
        self.tenants: dict[str, PostedSums] = {}
        #: Set to make every call find the store away.
        self.away = False

    def put(self, tenant_id: str, cursor: int, posted_nano: Mapping[Counter, int], *, is_open: bool = True) -> None:
        """Say what a tenant has from now on."""
        self.tenants[tenant_id] = PostedSums(cursor, is_open, dict(posted_nano))

    async def posted(self, tenant_id: str, counters: Sequence[Counter]) -> PostedSums:
        """As the seam says."""
        found = await self.all_posted(tenant_id)
        return found._replace(posted_nano={one: found.posted_nano[one] for one in counters if one in found.posted_nano})

    async def all_posted(self, tenant_id: str) -> PostedSums:
        """As the seam says."""
        if self.away:
            raise StoreUnavailableError
        return self.tenants.get(tenant_id, PostedSums(0, False, {}))
