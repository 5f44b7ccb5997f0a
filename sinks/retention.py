"""The seam of retention to stores that keep events by month: `sinks.postgres.retention` and ClickHouse's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import NamedTuple, Protocol

from schemas import topics

#: What the class `events` has; everything else in these stores is books, or small.
RETAINED_TOPICS: tuple[str, ...] = tuple(
    topic.name for topic in (topics.REQUESTS, topics.DECISIONS, topics.ATTEMPTS, topics.HEALTH)
)


class StoredMonth(NamedTuple):
    """One month of one table."""

    store: str
    table: str
    #: Its first day, UTC.
    month: date
    rows: int
    bytes: int


class MonthStore(Protocol):
    """A store's months of what retention may cut. Every call raises StoreUnavailableError when the store is away."""

    @property
    def name(self) -> str:
        """The store's, as its months have it."""

    async def months(self, before: date) -> list[StoredMonth]:
        """Those that begin before a day, by table and month."""

    async def drop(self, month: StoredMonth) -> None:
        """Drop one; one that is gone already is no fault. Raises IntegrityError for what may not go."""

    async def close(self) -> None:
        """Let go of the connection."""


def _pass(point: str) -> None:
    """Let every step pass."""


class MemoryMonthStore:
    """A MonthStore in this process, for tests."""

    def __init__(self, name: str, kept: Iterable[StoredMonth] = (), probe: Callable[[str], None] = _pass) -> None:
        """Hold these months; `probe` is called before and after each one goes."""
        self.name = name
        self.kept = list(kept)
        self._probe = probe

    async def months(self, before: date) -> list[StoredMonth]:
        """As the seam says."""
        return sorted(each for each in self.kept if each.month < before)

    async def drop(self, month: StoredMonth) -> None:
        """As the seam says."""
        self._probe("drop month")
        self.kept = [each for each in self.kept if each[:3] != month[:3]]
        self._probe("dropped month")

    async def close(self) -> None:
        """Nothing to let go."""
