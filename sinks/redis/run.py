"""`quaestor sink redis`: the sink on the runner; beside it, what follows quaestor.control and what takes snapshots."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from random import Random

import structlog

from schemas import limits
from schemas.errors import LogUnavailableError
from schemas.ids import is_name
from schemas.topics import CONTROL
from sinks.projections import redis_group
from sinks.redis.apart import Aparts, Folder
from sinks.redis.durable import DurableRedisSink
from sinks.redis.fullness import watch_fullness
from sinks.redis.keeping import end_offset, end_offsets, keep_snapshots, tell_rebuilds
from sinks.redis.keys import PROJECTION
from sinks.redis.processes import ProcessFolder
from sinks.redis.reads import RedisReads
from sinks.redis.recall import Recall
from sinks.redis.sink import RedisSink
from sinks.redis.snapshots import SnapshotStore
from sinks.redis.snapshotter import Snapshotter
from sinks.runner.beside import run_beside
from sinks.runner.process import prepare_process
from sinks.runner.progress import MonitorProgress
from sinks.runner.runner import run_sink
from sinks.runner.seam import QuarantineStore
from streams.codec import Codec
from streams.kafka import KafkaGroupReader, KafkaReader
from streams.log import GroupReader, LogReader, Membership
from streams.monitor import Monitor
from streams.registry import RegistrySchemas

log = structlog.get_logger()

FOLLOW_SECONDS = 0.2
METADATA_SECONDS = 10.0
RETRY_SECONDS = 1.0


async def run(
    *,
    bootstrap: str,
    redis_url: str,
    registry_url: str,
    processes_max: int,
    monitor: Monitor,
    stop: asyncio.Event,
    random: Random,
    quarantine: QuarantineStore | None = None,
    tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
    membership: Membership | None = None,
    snapshots: SnapshotStore | None = None,
    snapshot_seconds: float = limits.SNAPSHOT_SECONDS,
    waitaof_replicas: int | None = None,
    projection: str = PROJECTION,
) -> None:
    """Project budgets and health into Redis until `stop`; raises what run_sink raises.

    `processes_max`: how many processes may fold a long log at a time. `waitaof_replicas`: on how many replicas' disks a
    batch must be, beside the server's own; None waits for no disk. `snapshots` are of the same version.
    """
    prepare_process()
    sink = _sink(redis_url, tombstone_seconds, waitaof_replicas, projection)
    async with _watched(redis_url, monitor):
        await run_on(
            sink,
            reader=KafkaGroupReader(bootstrap, redis_group(projection), f"sink-{sink.projection}", membership),
            make_reader=lambda: KafkaReader(bootstrap, "quaestor-sink-redis-beside"),
            codec=Codec(RegistrySchemas(registry_url)),
            monitor=monitor,
            stop=stop,
            random=random,
            quarantine=quarantine,
            folder=ProcessFolder(bootstrap, registry_url, sink.projection, processes_max, limits.REBUILD_ENTRIES_MAX),
            snapshots=snapshots,
            snapshot_seconds=snapshot_seconds,
            tombstone_seconds=tombstone_seconds,
        )


@asynccontextmanager
async def _watched(redis_url: str, monitor: Monitor) -> AsyncIterator[None]:
    """While it lasts, the monitor is told how full Redis is."""
    reads = RedisReads(redis_url)
    await reads.connect()
    watching = asyncio.create_task(watch_fullness(reads.fullness, monitor), name="redis-fullness")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await reads.close()


async def run_on(
    sink: RedisSink,
    *,
    reader: GroupReader,
    make_reader: Callable[[], LogReader],
    codec: Codec,
    monitor: Monitor,
    stop: asyncio.Event,
    random: Random,
    quarantine: QuarantineStore | None = None,
    folder: Folder | None = None,
    apart_records_min: int = limits.REBUILD_APART_RECORDS_MIN,
    snapshots: SnapshotStore | None = None,
    snapshot_seconds: float = limits.SNAPSHOT_SECONDS,
    tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
) -> None:
    """`run` over any log; `make_reader` makes readers beside the group's: of quaestor.control, and for snapshots."""
    loop = asyncio.get_running_loop()
    ended = threading.Event()
    executor = ThreadPoolExecutor(1, thread_name_prefix="follow-control")

    def name(tenants: set[str]) -> None:
        loop.call_soon_threadsafe(sink.name_tenants, tenants)

    following = loop.run_in_executor(executor, _follow_control, make_reader, name, ended)
    sink.on_rebuild = tell_rebuilds(monitor)
    ends_of = end_offsets(make_reader)
    if folder is not None:
        sink.aparts = Aparts(folder, ends_of, quarantine, sink.projection, apart_records_min)
    beside, keeping = [following], None
    if snapshots is not None:
        sink.recall = Recall(snapshots, end_offset(ends_of), quarantine, sink.projection)
        snapshotter = Snapshotter(
            snapshots, sink.recall, make_reader, codec, sink.projection, tombstone_seconds=tombstone_seconds
        )
        keeping = asyncio.create_task(_keep(snapshotter, sink, monitor, snapshot_seconds), name="snapshots")
        beside.append(keeping)
    driven = run_sink(sink, reader, codec, MonitorProgress(monitor, sink.projection), stop, random, quarantine)
    try:
        await run_beside(driven, beside, monitor, stop)
    finally:
        ended.set()
        if folder is not None:
            await folder.close()
        if keeping is not None:
            keeping.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        executor.shutdown(wait=False)


def _sink(url: str, tombstone_seconds: int, waitaof_replicas: int | None, projection: str) -> RedisSink:
    if waitaof_replicas is None:
        return RedisSink(url, tombstone_seconds=tombstone_seconds, projection=projection)
    return DurableRedisSink(url, replicas=waitaof_replicas, tombstone_seconds=tombstone_seconds, projection=projection)


async def _keep(snapshotter: Snapshotter, sink: RedisSink, monitor: Monitor, every_seconds: float) -> None:
    try:
        await keep_snapshots(snapshotter, sink.applied, monitor, every_seconds)
    finally:
        await snapshotter.close()


def _follow_control(make: Callable[[], LogReader], name: Callable[[set[str]], None], ended: threading.Event) -> None:
    """Tell every tenant that control names, from its first record on; every sink process reads all of it."""
    known: set[str] = set()
    reader = make()
    try:
        while not ended.is_set() and not _assigned(reader, ended):
            ended.wait(RETRY_SECONDS)
        while not ended.is_set():
            _follow_once(reader, known, name, ended)
    finally:
        reader.close()


def _assigned(reader: LogReader, ended: threading.Event) -> bool:
    try:
        partitions = reader.partitions([CONTROL.name], METADATA_SECONDS)
        reader.assign(reader.begin_offsets(partitions, METADATA_SECONDS))
    except LogUnavailableError as error:
        if not ended.is_set():
            log.info("control_away", detail=str(error))
        return False
    return bool(partitions)


def tenants_of(keys: Iterable[bytes | None]) -> set[str]:
    """The tenants whom records of control concern: the key is <tenant>/<entity>, and a name has no slash.

    A key that is none of ours names nobody: anybody may have written it.
    """
    names = {key.split(b"/", 1)[0].decode("utf-8", "replace") for key in keys if key}
    return {name for name in names if is_name(name)}


def _follow_once(reader: LogReader, known: set[str], name: Callable[[set[str]], None], ended: threading.Event) -> None:
    try:
        records = reader.consume(limits.CONSUME_BATCH_RECORDS, FOLLOW_SECONDS)
    except LogUnavailableError as error:
        log.info("control_away", detail=str(error))
        ended.wait(RETRY_SECONDS)
        return
    found = tenants_of(record.key for record in records) - known
    if found:
        known |= found
        name(found)
