"""One run of `quaestor report`: what must have caught up catches up, then Postgres is read on one snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from api.settings import Settings
from api.verify.log_scan import take_barrier
from api.verify.parity import CATCH_UP_SECONDS, Follower, reach
from processors.calendar import MICROS_PER_SECOND
from processors.ledger import LedgerPoster
from processors.reaper import Reaper
from processors.report.build import build
from processors.report.day import Day, Span
from processors.report.figures import Report, Standing
from sinks.postgres.reads import PostgresReads
from sinks.postgres.report_reads import CLAIMS, read_day
from streams.kafka import KafkaGroupReader, KafkaReader
from streams.log import GroupReader, LogReader, Partition

CLIENT = "quaestor-report"
ASK_SECONDS_MAX = 10.0
#: Told what is being done, how far it is and how far it goes.
OnProgress = Callable[[str, int, int], None]


class StreamFollower:
    """A stream, by what its group committed: everything decided from records below that is in the log."""

    def __init__(self, reader: GroupReader, partitions: Sequence[Partition]) -> None:
        """`reader` belongs to the stream's group and never joins it."""
        self._reader, self._partitions = reader, partitions

    async def cursors(self) -> Mapping[Partition, int]:
        """As the seam says."""
        return await asyncio.to_thread(self._reader.committed, self._partitions, ASK_SECONDS_MAX)


async def make_report(settings: Settings, day: Day, tenant: str | None, now: int, on_progress: OnProgress) -> Report:
    """The report of a day, made at `now`; raises LogUnavailableError and StoreUnavailableError."""
    span = Span(day, margin_micros(settings), now, settings.hold_tombstone_seconds * MICROS_PER_SECOND)
    lacking = await _catch_up(settings, on_progress)
    read = await read_day(settings.postgres_dsn, span, tenant, on_progress)
    return build(span, tenant, Standing(offsets_of(read.cursors), lacking), CLAIMS, read.figures)


def margin_micros(settings: Settings) -> int:
    """How long after its first event a request's last one may stand in the log."""
    return int(settings.story_seconds * MICROS_PER_SECOND)


def offsets_of(cursors: Mapping[Partition, int]) -> dict[str, dict[str, int]]:
    """Cursors as the report has them."""
    found: dict[str, dict[str, int]] = {}
    for partition in sorted(cursors):
        found.setdefault(partition.topic, {})[str(partition.number)] = cursors[partition]
    return found


async def _catch_up(settings: Settings, on_progress: OnProgress) -> tuple[str, ...]:
    def group(name: str) -> GroupReader:
        return KafkaGroupReader(settings.kafka_bootstrap, name, CLIENT)

    log, postgres = KafkaReader(settings.kafka_bootstrap, CLIENT), PostgresReads(settings.postgres_dsn)
    try:
        return await catch_up(log, group, postgres, on_progress)
    finally:
        await postgres.close()
        log.close()


async def catch_up(
    log: LogReader,
    group: Callable[[str], GroupReader],
    postgres: Follower,
    on_progress: OnProgress,
    seconds: float = CATCH_UP_SECONDS,
) -> tuple[str, ...]:
    """Wait for the streams, one after the other since each writes what the next reads, then for Postgres.

    Each for `seconds` at most. Answers what did not get there, in words; raises as the log's and the store's reads do.
    """
    lacking = []
    for stream in (Reaper(), LedgerPoster()):
        barrier = await asyncio.to_thread(take_barrier, log, stream.topics)
        reader = group(f"stream-{stream.name}")
        try:
            follower = StreamFollower(reader, list(barrier))
            lacking += await _reach(f"stream-{stream.name}", follower, barrier, on_progress, seconds)
        finally:
            await asyncio.to_thread(reader.close)
    barrier = await asyncio.to_thread(take_barrier, log)
    lacking += await _reach("sink-postgres", postgres, barrier, on_progress, seconds)
    return tuple(lacking)


async def _reach(
    name: str, follower: Follower, barrier: Mapping[Partition, int], on_progress: OnProgress, seconds: float
) -> list[str]:
    lags = await reach(name, follower, barrier, lambda what, left: on_progress(f"{what} lags", 0, left), seconds)
    return [] if lags is None else [f"{name}: {lags.first_difference}"]
