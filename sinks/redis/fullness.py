"""How full Redis is: what it uses of the memory that it may use, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import structlog

from schemas.errors import StoreUnavailableError
from schemas.limits import REDIS_FULL_PER_CENT, REDIS_WARNING_PER_CENT
from streams.monitor import Monitor

log = structlog.get_logger(__name__)

WATCH_SECONDS = 5.0


class Fullness(NamedTuple):
    """What a server that evicts nothing uses, and up to where it writes."""

    used_bytes: int
    #: 0 when it has no bound.
    ceiling_bytes: int

    @property
    def per_cent(self) -> int:
        """Rounded down; 0 without a bound."""
        return 100 * self.used_bytes // self.ceiling_bytes if self.ceiling_bytes else 0

    @property
    def is_high(self) -> bool:
        """Whether somebody should give it more."""
        return self.per_cent >= REDIS_WARNING_PER_CENT

    @property
    def is_full(self) -> bool:
        """Whether admission has ended: the rest is left to what the log has yet to bring."""
        return self.per_cent >= REDIS_FULL_PER_CENT


def fullness_of(facts: Mapping[str, str]) -> Fullness:
    """What the memory section of INFO says; what eviction would not count is not used."""
    used = int(facts.get("used_memory", 0)) - int(facts.get("mem_not_counted_for_evict", 0))
    return Fullness(used, int(facts.get("maxmemory", 0)))


async def watch_fullness(read: Callable[[], Awaitable[Fullness]], monitor: Monitor) -> None:
    """Tell how full the server is, again and again; cancel it to stop. That it is away is told by others."""
    was_high = False
    while True:
        try:
            found = await read()
        except StoreUnavailableError:
            pass
        else:
            _tell(found, monitor)
            if found.is_high and not was_high:
                log.warning("redis_nearly_full", **found._asdict(), per_cent=found.per_cent)
            was_high = found.is_high
        await asyncio.sleep(WATCH_SECONDS)


def _tell(found: Fullness, monitor: Monitor) -> None:
    monitor.metrics.gauge("quaestor_redis_memory_used_bytes").set(found.used_bytes)
    monitor.metrics.gauge("quaestor_redis_memory_ceiling_bytes").set(found.ceiling_bytes)
    monitor.set(redis_memory={**found._asdict(), "per_cent": found.per_cent})
