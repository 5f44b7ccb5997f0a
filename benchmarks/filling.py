"""Filling a log for benchmarks: what the gateway and the ledger stream record, and what every store must say then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.settings import Settings
from benchmarks.events import EventMaker
from schemas.events import BudgetEvent, Event, ProviderHealth
from schemas.topics import HEALTH, TOPICS, topic_of
from sinks.totals import StoreTotals, totals_of
from streams.codec import Codec
from streams.kafka import KafkaPublisher, KafkaReader
from streams.log import Partition
from streams.records import outgoing
from streams.registry import RegistrySchemas

EVENTS_PER_REQUEST = 14
EVENTS_WITHOUT_LEDGER = 8
#: Placed and committed.
MOVEMENTS_PER_REQUEST = 2
BEGUN_MICROS_AGO = 3_600_000_000
#: One window of provider health per so many other events: far more than there are, to measure their path.
EVENTS_PER_WINDOW = 50
UNDER_WAY_MAX = 20_000
METADATA_SECONDS = 20.0
TOPIC_NAMES = tuple(topic.name for topic in TOPICS)
Windows = dict[str, ProviderHealth]


def settings_of(data: Path, found: Mapping[str, Any]) -> Settings:
    """Settings for a data folder, by which clients find these servers."""
    return Settings(**{**found, "data": data})


@dataclass(frozen=True)
class Filled:
    """What stands in the log."""

    ends: dict[Partition, int]
    #: What every store must say of each topic.
    totals: dict[str, StoreTotals]
    #: The window that ended last of each <provider>/<model>/<region>.
    windows: Windows

    def of(self, topics: frozenset[str]) -> dict[Partition, int]:
        """End offsets of some topics."""
        return {partition: end for partition, end in self.ends.items() if partition.topic in topics}


def fill(settings: Settings, records: int, *, ledger: bool = True) -> Filled:
    """Record about that many events and provider health; answers what every store must say of them."""
    amounts: dict[str, list[tuple[str, str, int]]] = {}
    filler = Filler(settings)
    maker = EventMaker(time.time_ns() // 1_000 - BEGUN_MICROS_AGO, ledger=ledger)
    for made in maker.requests(records // (EVENTS_PER_REQUEST if ledger else EVENTS_WITHOUT_LEDGER)):
        filler.publish(made)
        for event in made:
            amount_nano = getattr(event, "amount_nano", 0)
            amounts.setdefault(topic_of(event).name, []).append((event.tenant_id, event.event_id, amount_nano))
    windows = list(maker.health(records // EVENTS_PER_WINDOW))
    filler.publish(windows)
    filler.close()
    totals = {topic: totals_of(found) for topic, found in amounts.items()}
    totals[HEALTH.name] = totals_of((each.tenant_id, each.event_id, 0) for each in windows)
    return Filled(log_ends(settings), totals, last_windows(windows))


def fill_budgets(settings: Settings, records: int) -> None:
    """Record about that many movements of holds, later than all before."""
    filler = Filler(settings)
    maker = EventMaker(time.time_ns() // 1_000, seed=3, ledger=False)
    for made in maker.requests(records // MOVEMENTS_PER_REQUEST):
        filler.publish([event for event in made if isinstance(event, BudgetEvent)])
    filler.close()


def fill_health(settings: Settings, records: int) -> Windows:
    """Record that many windows of provider health, later than all before; the last ones."""
    filler = Filler(settings)
    maker = EventMaker(time.time_ns() // 1_000, seed=2)
    windows = list(maker.health(records))
    filler.publish(windows)
    filler.close()
    return last_windows(windows)


def last_windows(windows: Iterable[ProviderHealth]) -> Windows:
    """Of windows in the order of their ends, the last of each name."""
    return {f"{each.provider_id}/{each.model}/{each.region}": each for each in windows}


class Filler:
    """Publishes events, a bounded number at a time."""

    def __init__(self, settings: Settings) -> None:
        """Connects in the background; close it."""
        self._codec = Codec(RegistrySchemas(settings.registry_url))
        self._publisher = KafkaPublisher(settings.kafka_bootstrap, linger_milliseconds=20.0)
        self._room = threading.Semaphore(UNDER_WAY_MAX)
        self._faults: list[BaseException] = []

    def publish(self, made: Sequence[Event]) -> None:
        """Hand events over; waits while too many are under way."""
        records = [outgoing(self._codec, event) for event in made]
        # Not all at once: a group may be larger than what may be under way.
        for record in records:
            self._room.acquire()
            self._publisher.publish([record], self._done)

    def _done(self, fault: BaseException | None) -> None:
        self._room.release()
        if fault is not None:
            self._faults.append(fault)

    def close(self) -> None:
        """Wait until all are recorded; raises what one of them met."""
        self._publisher.flush(60.0)
        self._publisher.close()
        if self._faults:
            raise self._faults[0]


def log_ends(settings: Settings, topics: Sequence[str] = TOPIC_NAMES) -> dict[Partition, int]:
    """Where partitions end that have records."""
    reader = KafkaReader(settings.kafka_bootstrap, "benchmark")
    try:
        partitions = reader.partitions(topics, METADATA_SECONDS)
        ends = reader.end_offsets(partitions, METADATA_SECONDS)
    finally:
        reader.close()
    return {partition: end for partition, end in ends.items() if end}
