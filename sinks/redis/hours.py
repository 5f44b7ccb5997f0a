"""The seam to what limits had charged at the end of each hour, for projections: kept for some weeks, and replaceable.

`RedisHours` and `MemoryHours` implement it; tests/contract/test_hour_store.py is their suite.
"""

from __future__ import annotations

from typing import Protocol

from processors.guardrails.hours import HOURS_PER_DAY, Standing
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts

KEPT_DAYS = 35
KEPT_HOURS = KEPT_DAYS * HOURS_PER_DAY
SECONDS_PER_HOUR = 3_600


class HourStore(Protocol):
    """Standings of limits; every method raises StoreUnavailableError."""

    async def put(self, tenant_id: str, limit_id: str, hour: int, standing: Standing) -> None:
        """Keep what a limit had charged at the end of an hour; the same again changes nothing. Old ones fall away."""

    async def standings(self, tenant_id: str, limit_id: str) -> dict[int, Standing]:
        """What is known of a limit, by hour."""


class MemoryHours:
    """An HourStore in this process: every seam ships its fake."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._kept: dict[tuple[str, str], dict[int, Standing]] = {}

    async def put(self, tenant_id: str, limit_id: str, hour: int, standing: Standing) -> None:
        """As the seam says."""
        kept = self._kept.setdefault((tenant_id, limit_id), {})
        kept[hour] = standing
        kept.pop(hour - KEPT_HOURS, None)

    async def standings(self, tenant_id: str, limit_id: str) -> dict[int, Standing]:
        """As the seam says."""
        return dict(self._kept.get((tenant_id, limit_id), {}))


class RedisHours:
    """An HourStore in Redis: one hash per limit, hour to `<window start> <posted>`."""

    def __init__(self, client: RedisClient) -> None:
        """Over a connection that its maker opens and closes."""
        self._client = client

    async def put(self, tenant_id: str, limit_id: str, hour: int, standing: Standing) -> None:
        """As the seam says."""
        key = _key(tenant_id, limit_id)
        await self._client.call("HSET", key, str(hour), f"{standing.window_start} {standing.posted_nano}")
        await self._client.call("HDEL", key, str(hour - KEPT_HOURS))
        await self._client.call("EXPIRE", key, str(KEPT_HOURS * SECONDS_PER_HOUR))

    async def standings(self, tenant_id: str, limit_id: str) -> dict[int, Standing]:
        """As the seam says."""
        words = texts(await self._client.call("HGETALL", _key(tenant_id, limit_id)))
        return {int(hour): _standing(value) for hour, value in zip(words[::2], words[1::2], strict=True)}


def _key(tenant_id: str, limit_id: str) -> str:
    return f"guardrails@v1:{{{tenant_id}}}:hours:{limit_id}"


def _standing(text: str) -> Standing:
    start, posted = text.split()
    return Standing(int(start), int(posted))
