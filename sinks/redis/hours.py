"""The seam to what limits had charged at the end of each hour, for projections: kept for some weeks.

Redis serves them (`RedisHours`), Postgres keeps them (`sinks.postgres.hours.PostgresHours`): either may be lost.
`MemoryHours` is the fake of both; tests/contract/test_hour_store.py is their suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Protocol

from processors.guardrails.hours import HOURS_PER_DAY, Standing
from schemas.errors import StoreUnavailableError
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts

KEPT_DAYS = 35
KEPT_HOURS = KEPT_DAYS * HOURS_PER_DAY
SECONDS_PER_HOUR = 3_600


class HourStore(Protocol):
    """Standings of limits; every method raises StoreUnavailableError."""

    async def put(self, tenant_id: str, limit_id: str, standings: Mapping[int, Standing]) -> None:
        """Keep what a limit had charged at the end of hours, one at least; the same again changes nothing.

        What is older than the newest of them by five weeks falls away.
        """

    async def standings(self, tenant_id: str, limit_id: str) -> dict[int, Standing]:
        """What is known of a limit, by hour."""


class ServedHours(HourStore, Protocol):
    """Those that others read, who must find all of them."""

    async def count(self, tenant_id: str, limit_id: str) -> int:
        """How many hours are known of a limit."""


def still_kept(standings: Mapping[int, Standing], newest_hour: int) -> dict[int, Standing]:
    """Those of the five weeks up to an hour."""
    return {hour: standing for hour, standing in standings.items() if hour > newest_hour - KEPT_HOURS}


class MemoryHours:
    """A ServedHours in this process: every seam ships its fake."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._kept: dict[tuple[str, str], dict[int, Standing]] = {}
        #: Set to make every call find the store away.
        self.away = False

    def lose(self) -> None:
        """Everything."""
        self._kept.clear()

    async def put(self, tenant_id: str, limit_id: str, standings: Mapping[int, Standing]) -> None:
        """As the seam says."""
        known = await self.standings(tenant_id, limit_id)
        self._kept[tenant_id, limit_id] = still_kept({**known, **standings}, max(standings))

    async def standings(self, tenant_id: str, limit_id: str) -> dict[int, Standing]:
        """As the seam says."""
        if self.away:
            raise StoreUnavailableError
        return dict(self._kept.get((tenant_id, limit_id), {}))

    async def count(self, tenant_id: str, limit_id: str) -> int:
        """As the seam says."""
        return len(await self.standings(tenant_id, limit_id))


class RedisHours:
    """A ServedHours in Redis: one hash per limit, hour to `<window start> <posted>`."""

    def __init__(self, client: RedisClient) -> None:
        """Over a connection that its maker opens and closes."""
        self._client = client

    async def put(self, tenant_id: str, limit_id: str, standings: Mapping[int, Standing]) -> None:
        """As the seam says."""
        key, oldest = _key(tenant_id, limit_id), max(standings) - KEPT_HOURS
        pairs = ((str(hour), f"{start} {posted}") for hour, (start, posted) in standings.items())
        await self._client.call("HSET", key, *chain.from_iterable(pairs))
        # Hours may have been missed: more than one may be due. The hash expires before any is older than these.
        await self._client.call("HDEL", key, *map(str, range(oldest - KEPT_HOURS, oldest + 1)))
        await self._client.call("EXPIRE", key, str(KEPT_HOURS * SECONDS_PER_HOUR))

    async def standings(self, tenant_id: str, limit_id: str) -> dict[int, Standing]:
        """As the seam says."""
        words = texts(await self._client.call("HGETALL", _key(tenant_id, limit_id)))
        return {int(hour): _standing(value) for hour, value in zip(words[::2], words[1::2], strict=True)}

    async def count(self, tenant_id: str, limit_id: str) -> int:
        """As the seam says."""
        return int(await self._client.call("HLEN", _key(tenant_id, limit_id)))


def _key(tenant_id: str, limit_id: str) -> str:
    return f"guardrails@v1:{{{tenant_id}}}:hours:{limit_id}"


def _standing(text: str) -> Standing:
    start, posted = text.split()
    return Standing(int(start), int(posted))
