"""Freshness from outside: how long after an event is in the log its row can be read in each store.

Each look asks the log where its partitions end, and each store for its own cursors, which move in the same step as the
rows. What came to the log since the look before is taken to have come right after that look was begun, and to be in a
store when all of it is: so the figures are up to two looks too large, never too small. Nothing is asked of the sinks
themselves, and no record is read: whoever watches takes from what is watched.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from types import TracebackType
from typing import NamedTuple, Protocol, Self

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


class Span(NamedTuple):
    """What came to a partition between two looks."""

    #: The offset after its last record.
    end: int
    records: int
    #: time.monotonic() before its first record came.
    since: float


@dataclass
class Store:
    """One store under watch."""

    name: str
    topics: frozenset[str]
    cursors: Cursors
    waiting: dict[Partition, deque[Span]] = field(default_factory=dict)
    ages_seconds: list[float] = field(default_factory=list)

    def take(self, partition: Partition, span: Span) -> None:
        """Records that this store is to apply, if they are for it."""
        if partition.topic in self.topics:
            self.waiting.setdefault(partition, deque()).append(span)

    async def look(self) -> None:
        """Note the age of everything that can be read by now."""
        standing = await self.cursors.cursors()
        now = time.monotonic()
        for partition, spans in self.waiting.items():
            cursor = standing.get(partition, 0)
            while spans and spans[0].end <= cursor:
                span = spans.popleft()
                self.ages_seconds.extend(repeat(now - span.since, span.records))

    @property
    def behind(self) -> int:
        """Records not yet seen in the store."""
        return sum(span.records for spans in self.waiting.values() for span in spans)


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

    def __init__(self, settings: Settings, look_seconds: float = LOOK_SECONDS) -> None:
        """Connects when entered; looks that often."""
        self._settings, self._look_seconds = settings, look_seconds
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
        since, ends = time.monotonic(), reader.end_offsets(partitions, METADATA_SECONDS)
        self._ready.set()
        until = float("inf")
        while time.monotonic() < until and (not self._stop.is_set() or any(store.behind for store in stores)):
            if self._stop.is_set() and until == float("inf"):
                until = time.monotonic() + SETTLE_SECONDS_MAX
            looked = time.monotonic()
            found = await asyncio.to_thread(reader.end_offsets, partitions, METADATA_SECONDS)
            for partition, end in found.items():
                if end > ends[partition]:
                    for store in stores:
                        store.take(partition, Span(end, end - ends[partition], since))
            since, ends = looked, found
            for store in stores:
                await store.look()
            await asyncio.sleep(max(0.0, self._look_seconds - (time.monotonic() - looked)))


def _result(store: Store) -> Freshness:
    ages = sorted(store.ages_seconds)
    p50, p99, longest = (percentile(ages, share) for share in (0.5, 0.99, 1.0))
    return Freshness(store.name, len(ages), p50, p99, longest, store.behind)
