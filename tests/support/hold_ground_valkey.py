"""The real store, sink, snapshots and scripts on a real Valkey, stepped from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from processors.budgets.live import LiveFold
from schemas.errors import GapError, StoreUnavailableError
from schemas.events import BudgetEvent
from schemas.topics import BUDGETS
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.holds import HoldStore
from sinks.redis.keys import slot_keys
from sinks.redis.reads import RedisReads
from sinks.redis.recall import Recall
from sinks.redis.sink import RedisSink
from sinks.redis.slot_event import slot_event
from sinks.redis.snapshots import MemorySnapshots
from sinks.redis.snapshotter import Draft
from sinks.redis.store import RedisHoldStore
from sinks.runner.seam import Batch, Decoded, Span
from streams.log import LogRecord, Partition
from streams.partitioner import partition_of
from tests.budget_world import fields_of
from tests.support.hold_auditor import View
from tests.support.hold_grounds import Logs
from tests.valkey import Valkey

TOPIC_ID = "topic"
GATEWAYS = 2
#: Nobody is too far behind: the machine's steps take as long as they take.
LAG_SECONDS = 1e12
WAIT_SECONDS = 10.0
ONCE_MORE = 3


class ValkeyGround:
    """One server, emptied; the sink has no runner: it is given spans, and asked where it stands when it refuses one."""

    def __init__(self, valkey: Valkey) -> None:
        """Connect nothing yet."""
        self.now_micros = time.time_ns() // 1_000
        self._valkey = valkey
        self._stores = [RedisHoldStore(valkey.url, lag_seconds_max=LAG_SECONDS) for _ in range(GATEWAYS)]
        self._reads, self._client = RedisReads(valkey.url), RedisClient(valkey.url)
        self._snapshots, self._epochs = MemorySnapshots(), 0
        self._logs: Logs = {}
        self._places: dict[str, Partition] = {}
        #: Where the sink's reader stands.
        self._reading: dict[str, int] = {}

    def store(self, gateway: int) -> HoldStore:
        """As the protocol says."""
        return self._stores[gateway]

    async def start(self, logs: Logs) -> None:
        """As the protocol says."""
        self._valkey.command("FLUSHALL")
        self._valkey.forget()
        self._logs = logs
        numbers = {name: partition_of(name.encode(), BUDGETS.partitions) for name in logs}
        self._places = {name: Partition(BUDGETS.name, number) for name, number in numbers.items()}
        assert len(set(numbers.values())) == len(logs)
        for each in (*self._stores, self._reads, self._client):
            await each.open()
        self._sink = await self._new_sink()
        for tenant_id in logs:
            await self._settle(tenant_id)
        for gateway in range(GATEWAYS):
            await self.learn(gateway)

    async def stop(self) -> None:
        """As the protocol says."""
        for each in (*self._stores, self._reads, self._client, self._sink):
            await each.close()

    async def view(self, tenant_id: str) -> View:
        """As the protocol says; what waits adds up."""
        state = await self._reads.tenant_state(tenant_id)
        added: dict[str, int] = {}
        for counter, amount in (pair for body in state.unconfirmed.values() for pair in body):
            added[str(counter)] = added.get(str(counter), 0) + amount
        waiting = {str(counter): amount for counter, amount in state.unconfirmed_sums.items()}
        assert {name: amount for name, amount in added.items() if amount} == waiting
        return View(
            state.generation,
            state.is_open,
            state.cursor,
            {str(counter): sums.posted_nano for counter, sums in state.sums.items()},
            {str(counter): sums.held_nano for counter, sums in state.sums.items()},
            frozenset(name.rstrip("+") for name in state.unconfirmed),
        )

    async def learn(self, gateway: int) -> None:
        """As the protocol says."""
        await self._stores[gateway].refresh()

    async def apply(self, tenant_id: str, events: int) -> None:
        """As the protocol says."""
        first, log = self._reading[tenant_id], self._logs[tenant_id]
        await self._write(tenant_id, first, min(first + events, len(log)))

    async def beat(self, tenant_id: str) -> None:
        """As the protocol says."""
        place = self._places[tenant_id]
        try:
            await self._sink.heartbeat({place: len(self._logs[tenant_id])})
        except GapError:
            self._reading |= await self._claimed(self._sink)

    async def replace_sink(self, tenant_id: str, *, in_the_middle: bool) -> None:
        """As the protocol says."""
        if in_the_middle:
            await self._die_before_the_gate(tenant_id)
        await self._sink.close()
        self._sink = await self._new_sink()

    async def keep(self) -> None:
        """As the protocol says."""
        self._valkey.command("SAVE")
        for applied in self._sink.applied():
            tenant_id = next(name for name, place in self._places.items() if place.number == applied.partition)
            fold = LiveFold()
            moves = _moves(self._logs[tenant_id][: applied.cursor])
            fold.apply(tenant_id, moves, applied.cursor)
            draft = Draft(TOPIC_ID, (), fold, cursor=applied.cursor)
            self._epochs += 1
            await self._snapshots.put(*_with_epoch(draft, applied.partition, self._epochs))

    async def lose(self) -> None:
        """As the protocol says."""
        await self._client.call("FLUSHALL")

    async def fail_over(self) -> None:
        """As the protocol says: another run of the server, with what was saved."""
        self._valkey.kill()
        self._valkey.start()
        deadline = time.monotonic() + WAIT_SECONDS
        clients = [*(each._client for each in self._stores), self._reads._client, self._client, self._sink._client]
        runs = texts(self._valkey.command("INFO", "server").split(b"\r\n"))
        run_id = next(line.partition(":")[2] for line in runs if line.startswith("run_id:"))
        while any(client.run_id != run_id for client in clients):
            assert time.monotonic() < deadline, "the server did not come back"
            await asyncio.sleep(0.005)

    async def pass_overlay_time(self) -> None:
        """As the protocol says: whatever is open is dated back."""
        for tenant_id in self._logs:
            overlay = slot_keys(tenant_id).overlay
            names = texts(await self._client.call("HGETALL", overlay))
            for name, value in zip(names[::2], names[1::2], strict=True):
                if value[0] == "o":
                    await self._client.call("HSET", overlay, name, f"o1 {value.partition(' ')[2]}")

    async def _new_sink(self) -> RedisSink:
        sink = RedisSink(self._valkey.url)
        sink.recall = Recall(self._snapshots, self._end_of, None, sink.projection)
        sink.name_tenants(self._logs)
        await sink.open()
        self._reading |= await self._claimed(sink)
        return sink

    async def _claimed(self, sink: RedisSink) -> dict[str, int]:
        cursors = await sink.claim(list(self._places.values()), {BUDGETS.name: TOPIC_ID})
        return {tenant_id: cursors[place] for tenant_id, place in self._places.items()}

    async def _end_of(self, place: Partition) -> int:
        return next(len(self._logs[name]) for name, each in self._places.items() if each == place)

    async def _settle(self, tenant_id: str) -> None:
        for _ in range(ONCE_MORE):
            await self.beat(tenant_id)

    async def _write(self, tenant_id: str, first: int, following: int) -> None:
        place, log = self._places[tenant_id], self._logs[tenant_id]
        now_millis = time.time_ns() // 1_000_000
        records = [
            Decoded(at, fields_of(log[at]), LogRecord(place.topic, place.number, at, now_millis, None, None, ()))
            for at in range(first, following)
        ]
        try:
            await self._sink.write(Batch([Span(place, TOPIC_ID, first, following, records)], self.now_micros))
        except GapError as error:
            self._reading[tenant_id] = error.cursor
        else:
            self._reading[tenant_id] = following

    async def _die_before_the_gate(self, tenant_id: str) -> None:
        """Slots are written, the gate is not: who comes next reads again what they have."""

        async def never(*_: object, **__: object) -> int:
            raise StoreUnavailableError("dead")

        self._sink._gates.write = never  # type: ignore[method-assign]  # it ends here
        try:
            await self.apply(tenant_id, len(self._logs[tenant_id]))
        except StoreUnavailableError:
            return


def _moves(events: Sequence[BudgetEvent]) -> list[tuple[int, str, str, list[str]]]:
    found = (slot_event(offset, fields_of(event)) for offset, event in enumerate(events))
    return [move for move in found if move is not None]


def _with_epoch(draft: Draft, partition: int, epoch: int) -> tuple[object, int, dict[str, bytes]]:
    snapshot, chunks = draft.packed(partition, 1)
    return snapshot, epoch, chunks
