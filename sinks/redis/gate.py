"""The gates of the budgets partitions, from the sink's side: epochs, generations, and how far each is applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas.errors import FencedError, GapError
from sinks.redis.client import RedisClient
from sinks.redis.connection import text, texts
from sinks.redis.keys import FIRST, Names


class GateState(NamedTuple):
    """What a gate said when it was claimed."""

    #: Ours from now on.
    epoch: int
    #: Empty when there is none.
    generation: str
    is_open: bool
    #: None when there is none.
    cursor: int | None
    topic_id: str
    #: Whether an owner died while it made the slots anew: what they say counts for nothing.
    is_rebuilding: bool
    #: Next offset of every tenant that has had events.
    tenants: dict[str, int]


class Gates:
    """Writes gates of one server. Raises StoreUnavailableError and FencedError."""

    def __init__(self, client: RedisClient, names: Names = FIRST) -> None:
        """Share the sink's connection."""
        self._client = client
        self._names = names

    async def claim(self, partition: int) -> GateState:
        """Take the partition: every earlier epoch is fenced."""
        answer = await self._client.run("gate_claim", self._keys(partition))
        epoch, generation, is_open, cursor, topic_id, rebuilding = texts(answer[:6])
        names = texts(answer[6])
        tenants = {name: int(at) for name, at in zip(names[::2], names[1::2], strict=True)}
        stands = int(cursor) if cursor else None
        return GateState(int(epoch), generation, is_open == "1", stands, topic_id, rebuilding == "1", tenants)

    async def begin(self, partition: int, epoch: int, cursor: int, topic_id: str, *, rebuilding: bool = False) -> str:
        """Begin a generation, closed, applied up to `cursor`; answers its name.

        `rebuilding` says that slots are made anew: until `write` ends that, any later owner begins another generation.
        """
        arguments = (str(epoch), self._client.run_id, str(cursor), topic_id, "1" if rebuilding else "")
        answer = texts(await self._client.run("gate_generation", self._keys(partition), *arguments))
        if answer[0] == "F":
            raise FencedError(f"gate {partition}", epoch)
        return answer[1]

    async def write(
        self,
        partition: int,
        epoch: int,
        generation: str,
        cursor: int,
        end_offset: int,
        *,
        open_word: str = "",
        applied_at_millis: int | None = None,
        moved: Mapping[str, int] | None = None,
        rebuilding: bool = False,
        read: int | None = None,
    ) -> int:
        """Tell how far the partition is applied and which tenants moved; answers the server's time, milliseconds.

        `read` is the next offset to read, where a fold in memory is ahead of the cursor.

        Raises GapError when the gate is of another generation, gone, or ahead: the server is not the one we wrote to.
        """
        arguments = [str(epoch), generation, str(cursor), open_word]
        arguments += ["" if applied_at_millis is None else str(applied_at_millis), str(end_offset)]
        arguments += ["1" if rebuilding else "", str(cursor if read is None else read)]
        for tenant_id, at in (moved or {}).items():
            arguments += (tenant_id, str(at))
        answer = await self._client.run("gate_write", self._keys(partition), *arguments)
        if answer[0] == b"F":
            raise FencedError(f"gate {partition}", epoch)
        if answer[0] == b"N":
            raise GapError(f"gate {partition} of generation {text(answer[1])!r}", 0, cursor)
        return int(answer[1])

    def _keys(self, partition: int) -> tuple[str, str]:
        return self._names.gate(partition), self._names.tenants(partition)
