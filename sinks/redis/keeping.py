"""Beside the Redis sink: takes snapshots now and then, and tells the monitor about them and about rebuilds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from schemas.errors import FencedError, IntegrityError, LogUnavailableError, StoreUnavailableError
from sinks.redis.apart import EndsOf
from sinks.redis.owned import Applied, Rebuild
from sinks.redis.snapshotter import Snapshotter
from streams.log import LogReader, Partition
from streams.monitor import Monitor

log = structlog.get_logger()

METADATA_SECONDS = 10.0


async def keep_snapshots(
    snapshotter: Snapshotter, applied: Callable[[], Sequence[Applied]], monitor: Monitor, every_seconds: float
) -> None:
    """Take one of every open partition, again and again; cancel it to stop. What can't be taken now waits."""
    while True:
        await asyncio.sleep(every_seconds)
        owned = applied()
        snapshotter.own([each.partition for each in owned])
        for each in owned:
            await _keep_one(snapshotter, each, monitor)


async def _keep_one(snapshotter: Snapshotter, applied: Applied, monitor: Monitor) -> None:
    outcomes = monitor.metrics.counter("quaestor_budget_snapshots_total")
    try:
        taken = await snapshotter.take(applied, time.time_ns() // 1_000)
    except (StoreUnavailableError, LogUnavailableError, FencedError, IntegrityError) as error:
        outcomes.labels("failed").inc()
        log.warning("snapshot_not_taken", partition=applied.partition, detail=str(error))
        return
    if taken is not None:
        outcomes.labels("kept").inc()
        monitor.metrics.histogram("quaestor_budget_snapshot_seconds").observe(taken.seconds)
        log.info("snapshot_kept", **taken._asdict())


def tell_rebuilds(monitor: Monitor) -> Callable[[Sequence[Rebuild], Sequence[int]], None]:
    """What a sink calls to have its rebuilds shown."""
    told: set[int] = set()

    def tell(closed: Sequence[Rebuild], opened: Sequence[int]) -> None:
        monitor.set(rebuilds=[_shown(each) for each in closed])
        gauge = monitor.metrics.gauge("quaestor_admission_open")
        open_words = dict.fromkeys((each.partition for each in closed), 0) | dict.fromkeys(opened, 1)
        for partition in told - open_words.keys():
            gauge.remove(str(partition))
        told.clear()
        told.update(open_words)
        for partition, is_open in open_words.items():
            gauge.labels(str(partition)).set(is_open)

    return tell


def _shown(rebuild: Rebuild) -> dict[str, int | str | None]:
    return {
        "partition": rebuild.partition,
        "source": rebuild.source,
        "detail": rebuild.detail,
        "from": rebuild.first_offset,
        "at": rebuild.offset,
        "barrier": rebuild.barrier,
        "per_cent": rebuild.per_cent,
    }


def end_offsets(
    make_reader: Callable[[], LogReader],
) -> EndsOf:
    """Asks the log where partitions end, by a reader made for the question."""

    def ask(partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        reader = make_reader()
        try:
            return reader.end_offsets(partitions, METADATA_SECONDS)
        except LogUnavailableError as error:
            raise StoreUnavailableError(f"the log is away: {error}") from error
        finally:
            reader.close()

    async def ends_of(partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return await asyncio.to_thread(ask, partitions)

    return ends_of


def end_offset(
    ends_of: EndsOf,
) -> Callable[[Partition], Awaitable[int]]:
    """The same for one partition at a time."""

    async def end_of(partition: Partition) -> int:
        return (await ends_of([partition]))[partition]

    return end_of
