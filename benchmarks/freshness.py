"""Freshness from outside: how old each event is when its row can be read in each store.

A reader follows the log and remembers when each record was made (its Kafka timestamp, set by the producer before the
acknowledgement); each store's own cursors, which move in the same step as the rows, say when it has them. Looking every
50 ms makes the figures up to that much too large, never too small. Nothing is asked of the sinks themselves. Where the
machine is full, whoever watches takes from what is watched: it may look less often then, at one record in so many.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from types import TracebackType
from typing import Protocol, Self

from api.settings import Settings
from benchmarks.measure import percentile
from schemas.topics import BUDGETS, HEALTH, TOPICS
from sinks.audit.layout import AUDITED_TOPICS
from sinks.clickhouse.tables import TABLES as CLICKHOUSE_TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.plans import PostgresPlanStore
from sinks.postgres.reads import PostgresReads
from sinks.redis.reads import RedisReads
from streams.kafka import KafkaReader
from streams.log import Partition

LOOK_SECONDS = 0.05
SETTLE_SECONDS_MAX = 60.0
METADATA_SECONDS = 10.0
RECORDS_MAX = 5_000
CLICKHOUSE_PROJECTION = "clickhouse@v1"


class Cursors(Protocol):
    """What is asked of a store."""

    async def cursors(self) -> Mapping[Partition, int]:
        """Where it stands."""


class _PlanCursors:
    """ClickHouse's cursors, which live beside its plans."""

    def __init__(self, plans: PostgresPlanStore) -> None:
        self._plans = plans

    async def cursors(self) -> Mapping[Partition, int]:
        return await self._plans.cursors(CLICKHOUSE_PROJECTION)


@dataclass
class Store:
    """One store under watch."""

    name: str
    topics: frozenset[str]
    cursors: Cursors
    waiting: dict[Partition, deque[tuple[int, int]]] = field(default_factory=dict)
    ages_seconds: list[float] = field(default_factory=list)

    def take(self, partition: Partition, offset: int, made_millis: int) -> None:
        """A record that this store is to apply."""
        if partition.topic in self.topics:
            self.waiting.setdefault(partition, deque()).append((offset, made_millis))

    async def look(self) -> None:
        """Note the age of everything that can be read by now."""
        standing = await self.cursors.cursors()
        now = time.time()
        for partition, records in self.waiting.items():
            cursor = standing.get(partition, 0)
            while records and records[0][0] < cursor:
                self.ages_seconds.append(now - records.popleft()[1] / 1_000)

    @property
    def behind(self) -> int:
        """Records not yet seen in the store."""
        return sum(len(records) for records in self.waiting.values())


@dataclass(frozen=True)
class Freshness:
    """Ages at which events became readable in one store."""

    store: str
    events: int
    p50_seconds: float
    p99_seconds: float
    max_seconds: float
    #: Events that never became readable while watched.
    missing: int


class FreshnessWatch:
    """Watches every store from `enter` to `exit`, from a thread of its own; `results` afterwards."""

    def __init__(self, settings: Settings, look_seconds: float = LOOK_SECONDS, one_in: int = 1) -> None:
        """Connects when entered; looks that often, at one in so many of the records that came together."""
        self._settings, self._look_seconds, self._one_in = settings, look_seconds, one_in
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="freshness")
        self._watching: Future[list[Freshness]] | None = None
        self.results: list[Freshness] = []

    def __enter__(self) -> Self:
        """Begin at the log's end."""
        self._watching = self._threads.submit(asyncio.run, self._watch())
        self._watching.add_done_callback(lambda _: self._ready.set())
        if not self._ready.wait(SETTLE_SECONDS_MAX):
            raise TimeoutError("the stores and the log can't be watched")
        if self._watching.done():
            self._watching.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following the log, and wait until the stores have what was seen; raises what ended the watch."""
        self._stop.set()
        if self._watching is not None and kind is None:
            self.results = self._watching.result(2 * SETTLE_SECONDS_MAX)
        self._threads.shutdown(wait=False)

    async def _watch(self) -> list[Freshness]:
        dsn = self._settings.postgres_dsn
        postgres, redis = PostgresReads(dsn), RedisReads(self._settings.redis_url)
        plans, audit = PostgresPlanStore(dsn, "benchmark"), PostgresAuditStore(dsn, self._settings.audit_log)
        stores = [
            Store("postgres", frozenset(topic.name for topic in TOPICS), postgres),
            Store("clickhouse", frozenset(CLICKHOUSE_TABLES), _PlanCursors(plans)),
            Store("redis", frozenset((BUDGETS.name, HEALTH.name)), redis),
            Store("audit", frozenset(AUDITED_TOPICS), audit),
        ]
        reader = KafkaReader(self._settings.kafka_bootstrap, "quaestor-benchmark")
        try:
            await plans.open()
            await audit.open()
            await redis.open()
            await self._follow(reader, stores)
        finally:
            reader.close()
            for store in (postgres, redis, plans, audit):
                await store.close()
        return [_result(store) for store in stores]

    async def _follow(self, reader: KafkaReader, stores: list[Store]) -> None:
        partitions = reader.partitions([topic.name for topic in TOPICS], METADATA_SECONDS)
        reader.assign(reader.end_offsets(partitions, METADATA_SECONDS))
        self._ready.set()
        until = float("inf")
        while time.monotonic() < until and (not self._stop.is_set() or any(store.behind for store in stores)):
            if self._stop.is_set() and until == float("inf"):
                until = time.monotonic() + SETTLE_SECONDS_MAX
            looked = time.monotonic()
            runs = await asyncio.to_thread(reader.consume_runs, RECORDS_MAX, 0.01)
            for record in chain.from_iterable(run[:: self._one_in] for run in runs):
                for store in stores:
                    store.take(Partition(record.topic, record.partition), record.offset, record.timestamp_millis)
            for store in stores:
                await store.look()
            await asyncio.sleep(max(0.0, self._look_seconds - (time.monotonic() - looked)))


def _result(store: Store) -> Freshness:
    ages = sorted(store.ages_seconds)
    p50, p99, longest = (percentile(ages, share) for share in (0.5, 0.99, 1.0))
    return Freshness(store.name, len(ages), p50, p99, longest, store.behind)
