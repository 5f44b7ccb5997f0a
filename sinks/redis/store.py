"""RedisHoldStore: the hold protocol on Redis or Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from schemas import limits
from schemas.errors import StoreUnavailableError
from schemas.ids import uuid7_millis
from schemas.topics import BUDGETS
from sinks.redis.client import RedisClient
from sinks.redis.connection import ReplyError, texts
from sinks.redis.fullness import Fullness
from sinks.redis.holds import (
    Closed,
    ClosedReason,
    Confirmation,
    Conflict,
    Extension,
    Gone,
    Placed,
    PlaceHold,
    Placement,
    Refused,
)
from sinks.redis.keys import SlotKeys, counter_text, gate_key, slot_keys
from sinks.redis.scripts import Script, script
from streams.partitioner import partition_of

GATE_SECONDS = 0.2
TENANTS_CACHED_MAX = 10_000
MILLIS_PER_SECOND = 1_000
MICROS_PER_MILLI = 1_000
REFUSAL_MILLIS = limits.REFUSAL_SECONDS * MILLIS_PER_SECOND

_CLOSED = {
    b"tenant": ClosedReason.UNKNOWN_TENANT,
    b"generation": ClosedReason.GENERATION,
    b"rebuilding": ClosedReason.REBUILDING,
    b"old": ClosedReason.TOO_OLD,
}
_CONFIRMATIONS = {
    b"K": Confirmation.CONFIRMED,
    b"G": Confirmation.GENERATION,
    b"D": Confirmation.DROPPED,
    b"R": Confirmation.RESOLVED,
    b"U": Confirmation.UNKNOWN,
}


class Gate(NamedTuple):
    """What is known of a budgets partition's gate, and when it was read (event loop's clock)."""

    generation: str
    is_open: bool
    age_seconds: float
    read_at: float


class _Tenant(NamedTuple):
    """What every call of a tenant needs, computed once."""

    partition: int
    keys: SlotKeys
    slot: tuple[str, str, str]


class RedisHoldStore:
    """A HoldStore over one pipelined connection; `place` and `confirm` are on the gateway's hot path.

    The gates are read every GATE_SECONDS by one task. A gate whose generation was made on another server run than the
    connection's is closed, whatever it says: that server has lost its tail, and its sink has not noticed yet.
    """

    def __init__(
        self,
        url: str,
        *,
        overlay_milliseconds: int = limits.OVERLAY_SECONDS * MILLIS_PER_SECOND,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
        lag_seconds_max: float = limits.BUDGET_LAG_SECONDS_MAX,
        call_timeout_seconds: float = 2.0,
        partitions: int = BUDGETS.partitions,
        now_micros: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """Connect nothing yet; `url` is redis://, rediss:// or unix://. Raises ConfigurationError on another."""
        self._client = RedisClient(url, call_timeout_seconds=call_timeout_seconds, name="quaestor-gateway")
        self._client.on_connect = self.refresh
        self._overlay_millis = str(overlay_milliseconds)
        self._tombstone_millis = str(tombstone_seconds * MILLIS_PER_SECOND)
        self._lag_seconds_max, self._now_micros = lag_seconds_max, now_micros
        self._gates: list[Gate | None] = [None] * partitions
        self._fullness = Fullness(0, 0)
        self._tenants: dict[str, _Tenant] = {}
        self._place = script("place")
        self._confirm = script("confirm")
        self._extend = script("extend")
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and learn the gates; returns also when Redis is away."""
        await self._client.open()
        self._task = asyncio.create_task(self._follow_gates(), name="budget-gates")

    async def close(self) -> None:
        """Let go of the connection and the task that follows the gates."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._client.close()

    async def refresh(self) -> None:
        """Read every gate now, and how full the server is; raises StoreUnavailableError."""
        self._fullness = await self._client.fullness()
        reads = [self._client.run("gate_read", (gate_key(number),)) for number in range(len(self._gates))]
        answers = await asyncio.gather(*reads)
        now = asyncio.get_running_loop().time()
        for number, answer in enumerate(answers):
            generation, is_open, age_millis = texts(answer)
            self._gates[number] = Gate(generation, is_open == "1", int(age_millis) / MILLIS_PER_SECOND, now)

    def closed_reason(self, tenant_id: str) -> ClosedReason | None:
        """Why `place` would refuse this tenant now; None when admission looks open."""
        known = self._tenants.get(tenant_id) or self._learn(tenant_id)
        gate = self._gates[known.partition]
        run_id = self._client.run_id
        if gate is None or not run_id:
            return ClosedReason.UNREACHABLE
        if self._fullness.is_full:
            return ClosedReason.FULL
        if not gate.is_open or not gate.generation.startswith(run_id):
            return ClosedReason.REBUILDING
        if gate.age_seconds + asyncio.get_running_loop().time() - gate.read_at > self._lag_seconds_max:
            return ClosedReason.LAGGING
        return None

    async def place(self, ask: PlaceHold) -> Placement:
        """Add the hold iff every leg fits."""
        if not ask.legs:
            return Placed("")
        age_millis = self._now_micros() // MICROS_PER_MILLI - uuid7_millis(ask.hold_id)
        answer = await self._asked(self._place, ask, str(REFUSAL_MILLIS), str(age_millis))
        return answer if isinstance(answer, Closed) else _placement(ask, *answer)

    async def extend(self, ask: PlaceHold) -> Extension:
        """Let a confirmed hold hold these amounts in all."""
        if not ask.legs:
            return Placed("")
        answer = await self._asked(self._extend, ask)
        if isinstance(answer, Closed):
            return answer
        return Gone() if answer[1][0] == b"N" else _placement(ask, *answer)

    async def confirm(self, tenant_id: str, hold_id: str, generation: str) -> Confirmation:
        """Pin the hold after its PLACED is acked."""
        if not generation:
            return Confirmation.CONFIRMED
        known = self._tenants.get(tenant_id) or self._learn(tenant_id)
        keys = (*known.slot, known.keys.done_of(hold_id))
        if not generation.startswith(self._client.run_id or "-"):
            return Confirmation.GENERATION if self._client.run_id else Confirmation.UNREACHABLE
        try:
            answer = await self._client.evaluate(self._confirm, keys, (generation, hold_id))
        except StoreUnavailableError:
            return Confirmation.UNREACHABLE
        return _CONFIRMATIONS[answer]

    async def _asked(
        self, program: Script, ask: PlaceHold, *more: str, again: bool = True
    ) -> tuple[str, list[bytes]] | Closed:
        """The generation asked under and what the script answers, where that is not Closed; `more` stands last."""
        reason = self.closed_reason(ask.tenant_id)
        if reason is not None:
            return Closed(reason)
        known = self._tenants[ask.tenant_id]
        gate = self._gates[known.partition]
        generation = gate.generation if gate else ""
        arguments: list[str] = [
            generation,
            ask.hold_id,
            self._overlay_millis,
            self._tombstone_millis,
            str(len(ask.legs)),
        ]
        for leg, limit_nano in zip(ask.legs, ask.limits_nano, strict=True):
            arguments += (counter_text(leg), str(leg.amount_nano), str(limit_nano))
        keys = (*known.slot, known.keys.placed, known.keys.done_of(ask.hold_id), known.keys.refused_of(ask.hold_id))
        try:
            answer = await self._client.evaluate(program, keys, (*arguments, *more))
            if answer[0] != b"C":
                return generation, answer
            closed = Closed(_CLOSED[answer[1]])
            if closed.reason is not ClosedReason.GENERATION or not again:
                return closed
            # The gate known here is old; the new one may be open already.
            await self.refresh()
        except StoreUnavailableError as error:
            is_full = isinstance(error, ReplyError) and str(error).startswith("OOM")
            return Closed(ClosedReason.FULL if is_full else ClosedReason.UNREACHABLE)
        return await self._asked(program, ask, *more, again=False)

    def _learn(self, tenant_id: str) -> _Tenant:
        if len(self._tenants) >= TENANTS_CACHED_MAX:
            self._tenants.clear()
        keys = slot_keys(tenant_id)
        partition = partition_of(tenant_id.encode(), len(self._gates))
        known = self._tenants[tenant_id] = _Tenant(partition, keys, keys[:3])
        return known

    async def _follow_gates(self) -> None:
        while True:
            await asyncio.sleep(GATE_SECONDS)
            try:
                await self.refresh()
            except StoreUnavailableError:
                continue


def _placement(ask: PlaceHold, generation: str, answer: list[bytes]) -> Placement:
    if answer[0] == b"P":
        return Placed(generation)
    if answer[0] == b"X":
        return Conflict(answer[1].decode())
    index = int(answer[1]) - 1
    return Refused(ask.legs[index].limit_id, int(answer[2]), ask.limits_nano[index])
