"""A Redis sink whose batches end only when they are on disk: `WAITAOF` after the last script of each.

A short count is an absence of the store: the runner repeats the batch, every slot passes over what it has, and the gate
is written again, so that the wait of the repeat covers all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas import limits
from schemas.errors import ConfigurationError, StoreUnavailableError
from sinks.redis.client import RedisClient
from sinks.redis.connection import ReplyError
from sinks.redis.keys import PROJECTION
from sinks.redis.movements import of_budgets
from sinks.redis.sink import RedisSink
from sinks.runner.seam import Batch, Span

MILLIS_PER_SECOND = 1_000
#: What a server answers that will never be able to.
NEVER = ("appendonly is disabled", "unknown command")


class Disks:
    """Asks one server whether what was written over its client is in its appended file and in those of its replicas."""

    def __init__(self, client: RedisClient, replicas: int, wait_seconds: float = limits.WAITAOF_SECONDS) -> None:
        """`replicas`: how many of them must have it, beside the server itself."""
        self._client = client
        self._replicas = replicas
        self._wait_millis = round(wait_seconds * MILLIS_PER_SECOND)

    async def check(self) -> None:
        """Raise ConfigurationError when the server could never say yes; StoreUnavailableError while it is away."""
        try:
            await self._client.call("WAITAOF", 1, 0, 1)
        except ReplyError as error:
            if any(words in str(error) for words in NEVER):
                raise ConfigurationError(
                    f"redis_waitaof_replicas: Redis says {error}; "
                    "it needs `appendonly yes` and version 7.2 or newer (every Valkey has it)"
                ) from error
            raise

    async def wait(self, connection_number: int) -> None:
        """Return when the writes over this connection are on those disks; else raise StoreUnavailableError.

        On another connection the server would answer for what was written over that one: for nothing.
        """
        if self._client.connection_number != connection_number:
            raise StoreUnavailableError("the connection to Redis ended before the batch was known to be on disk")
        local, replicas = await self._client.call("WAITAOF", 1, self._replicas, self._wait_millis)
        if local < 1 or replicas < self._replicas:
            raise StoreUnavailableError(
                f"Redis has the batch on disk {'itself' if local else 'not yet'}, "
                f"and on {replicas} of {self._replicas} replicas, after {self._wait_millis} ms"
            )


class DurableRedisSink(RedisSink):
    """RedisSink, and what it said it wrote is on disk. What a rebuild writes is guarded by its generation instead."""

    def __init__(
        self,
        url: str,
        *,
        replicas: int,
        wait_seconds: float = limits.WAITAOF_SECONDS,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
        projection: str = PROJECTION,
    ) -> None:
        """Connect nothing yet; `replicas` and `wait_seconds` as for Disks, the rest as for RedisSink."""
        super().__init__(url, tombstone_seconds=tombstone_seconds, projection=projection)
        self._disks = Disks(self._client, replicas, wait_seconds)

    async def open(self) -> None:
        """As RedisSink's; raises ConfigurationError too when the server keeps no appended file."""
        await super().open()
        await self._disks.check()

    async def write(self, batch: Batch) -> None:
        """As RedisSink's, and wait for the disks; raises StoreUnavailableError when too few have it in time."""
        connection_number = self._client.connection_number
        await super().write(batch)
        if not self._is_in_memory(batch.spans):
            await self._disks.wait(connection_number)

    async def redrive(self, span: Span) -> None:
        """As RedisSink's, and wait for the disks: nobody reads these records again once the quarantine is told."""
        connection_number = self._client.connection_number
        await super().redrive(span)
        await self._disks.wait(connection_number)

    def _is_in_memory(self, spans: Sequence[Span]) -> bool:
        """Whether Redis was given nothing yet: all of it is in folds that are written out later."""
        owned = [self._owned.get(each.partition.number) for each in of_budgets(spans)]
        return len(owned) == len(spans) and all(each is not None and each.fold is not None for each in owned)
