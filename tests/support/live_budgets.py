"""A log, a Valkey, a sink and a hold store that run together, for tests of live budgets."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from random import Random

from schemas import limits
from schemas.events import ControlAction, ControlEvent, EntityKind, Event
from schemas.ids import uuid7
from schemas.topics import BUDGETS, TOPICS
from sinks.redis.apart import Folder
from sinks.redis.check import check_budgets, read_states
from sinks.redis.holds import Placed, Refused
from sinks.redis.reads import RedisReads
from sinks.redis.run import run_on
from sinks.redis.sink import RedisSink
from sinks.redis.snapshots import SnapshotStore
from sinks.redis.store import RedisHoldStore
from streams.codec import Codec, LocalSchemas
from streams.kafka import KafkaGroupReader, KafkaPublisher, KafkaReader, ensure_topics
from streams.log import GroupReader, LogReader, Partition, Publisher
from streams.memory import MemoryLog
from streams.monitor import Monitor
from streams.partitioner import partition_of
from streams.recorder import Recorder
from tests.budget_world import TENANT, Events, ask
from tests.valkey import Valkey

LIMIT = 150
DEADLINE_SECONDS = 30.0
SNAPSHOT_SECONDS = 0.05
CODEC = Codec(LocalSchemas())
PARTITION = partition_of(TENANT.encode(), BUDGETS.partitions)


def now_micros() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition; fails with its name after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {DEADLINE_SECONDS} s")
        await asyncio.sleep(0.02)


class Log:
    """One log, in memory or on Kafka, and what a test opens on it."""

    def __init__(self, bootstrap: str | None, memory: MemoryLog | None = None) -> None:
        """None keeps the log in memory: a new one, or `memory`."""
        self._bootstrap = bootstrap
        self.memory = memory or MemoryLog()
        if bootstrap:
            ensure_topics(bootstrap, TOPICS)
        self.publisher: Publisher = KafkaPublisher(bootstrap) if bootstrap else self.memory.publisher()

    def reader(self) -> LogReader:
        """A reader."""
        return KafkaReader(self._bootstrap) if self._bootstrap else self.memory.reader()

    def group_reader(self) -> GroupReader:
        """A member of the sink's group."""
        group = "sink-redis"
        return KafkaGroupReader(self._bootstrap, group) if self._bootstrap else self.memory.group_reader(group)


class SinkProcess:
    """One run of the sink."""

    def __init__(
        self,
        log: Log,
        url: str,
        snapshots: SnapshotStore | None = None,
        *,
        entries_max: int = limits.REBUILD_ENTRIES_MAX,
        folder: Folder | None = None,
    ) -> None:
        """Start it; with a store it takes snapshots, as often as can be, and with a folder it has every log folded."""
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(
            run_on(
                RedisSink(url, entries_max=entries_max),
                reader=log.group_reader(),
                make_reader=log.reader,
                codec=CODEC,
                monitor=Monitor("sink-redis"),
                stop=self._stop,
                random=Random(1),
                folder=folder,
                apart_records_min=1,
                snapshots=snapshots,
                snapshot_seconds=SNAPSHOT_SECONDS,
            )
        )

    async def stop(self) -> None:
        """End it as SIGTERM does."""
        self._stop.set()
        await self._task


class World:
    """A log, a Valkey, a sink, a hold store and a reader of the live state."""

    def __init__(
        self,
        log: Log,
        valkey: Valkey,
        snapshots: SnapshotStore | None = None,
        folder: Folder | None = None,
        now_micros: Callable[[], int] = now_micros,
    ) -> None:
        """Start nothing yet; `now_micros` is the clock of who places holds."""
        self.snapshots, self.folder = snapshots, folder
        self.log, self.valkey, self._now_micros = log, valkey, now_micros
        self.recorder = Recorder(log.publisher, CODEC)
        self.store = RedisHoldStore(valkey.url, now_micros=now_micros)
        self.reads = RedisReads(valkey.url)
        self.events = Events()
        self._ids = itertools.count()

    async def start(self) -> None:
        """Start sink and store."""
        self.sink = SinkProcess(self.log, self.valkey.url, self.snapshots, folder=self.folder)
        await self.store.open()
        await self.reads.open()

    async def stop(self) -> None:
        """Stop everything but the servers."""
        await self.sink.stop()
        await self.store.close()
        await self.reads.close()
        self.log.publisher.close()

    def hold(self) -> str:
        """A fresh id."""
        return uuid7(self._now_micros(), next(self._ids).to_bytes(10, "big"))

    async def record(self, *events: Event) -> None:
        """Return when they are acknowledged."""
        await self.recorder.record(events)

    async def name_tenant(self, tenant_id: str) -> None:
        """A key is created for the tenant."""
        event = ControlEvent(
            event_id=self.hold(),
            occurred_at=now_micros(),
            tenant_id=tenant_id,
            actor="cli/0",
            entity_kind=EntityKind.KEY,
            entity_id="key_1",
            action=ControlAction.CREATED,
            after="{}",
        )
        await self.record(event)
        await until(lambda: self.admits(tenant_id), f"admission for {tenant_id}")

    async def admits(self, tenant_id: str = TENANT) -> bool:
        """Whether a hold of nothing is placed."""
        return isinstance(await self.store.place(ask(self.hold(), 0, LIMIT, tenant_id)), Placed)

    async def generation(self) -> str:
        """The tenant's generation, empty without one."""
        return (await self.reads.tenant_state(TENANT)).generation or ""

    async def left(self) -> int:
        """What the limit has left now."""
        answer = await self.store.place(ask(self.hold(), LIMIT + 1, LIMIT))
        return answer.remaining_nano if isinstance(answer, Refused) else -1

    async def settled(self) -> None:
        """Wait until the sink has applied the log's end and admission is open."""
        partition = Partition(BUDGETS.name, PARTITION)
        end = (await asyncio.to_thread(self.ends, partition))[partition]

        async def reached() -> bool:
            return (await self.reads.cursors()).get(partition, 0) >= end and await self.admits()

        await until(reached, "the sink at the end of the log")

    def ends(self, partition: Partition) -> dict[Partition, int]:
        """End offsets, by a reader of its own."""
        reader = self.log.reader()
        try:
            return reader.end_offsets([partition], 10)
        finally:
            reader.close()

    async def differences(self) -> list[str]:
        """Where the live state differs from the fold of the log."""
        applied = await self.reads.cursors()
        states = await read_states(self.reads)
        reader = self.log.reader()
        try:
            found = await asyncio.to_thread(check_budgets, states, reader, CODEC, applied=applied)
            return [str(item) for item in found.differences]
        finally:
            reader.close()
