"""Writes one batch into a sink: repeats it while the store is away, and finds out what a fault is about.

A fault of the store's own choosing names its records or partitions. Any other is about some record until shown
otherwise: the batch is halved, the halves written in order, until the record stands alone and is quarantined.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, TypeVar

import structlog

from schemas.errors import (
    FencedError,
    GapError,
    IntegrityError,
    QuaestorError,
    RejectedError,
    StoreUnavailableError,
)
from schemas.events import Alert, AlertKind, QuarantineReason, Severity
from schemas.ids import derived_id
from schemas.topics import SYSTEM_TENANT
from sinks.runner.aside import Shelf
from sinks.runner.backoff import Backoff
from sinks.runner.redrive import Redriver
from sinks.runner.screen import Screen, place_of
from sinks.runner.seam import Batch, Calls, Progress, QuarantineStore, Sink, Span, Standing
from sinks.runner.watch import Pause
from streams.log import Partition

log = structlog.get_logger()
T = TypeVar("T")

#: A record is called the cause only after so many writes with it failed, the last of them with it alone.
TRIES_MIN = 2
#: The step before a write: from when a batch's oldest record was made to when the batch was cut.
WAIT = "wait"
#: Longest stretch of redriving before other work goes on, seconds: well below what a group allows between two polls.
REDRIVE_SECONDS = 30.0


class _BlamedError(Exception):
    """A write failed for no reason that is known to be about anything but a record."""

    def __init__(self, reason: QuarantineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass
class Outcome:
    """What became of a batch, partition by partition."""

    #: Next offsets of what was applied.
    applied: dict[Partition, int] = field(default_factory=dict)
    #: Where the store stands instead; read again from there.
    seek: dict[Partition, int] = field(default_factory=dict)
    #: Owned by someone else now.
    fenced: list[Partition] = field(default_factory=list)
    #: Must be looked at by a person, and why.
    broken: dict[Partition, str] = field(default_factory=dict)
    #: Stand still because too much of them is poison, and why.
    paused: dict[Partition, str] = field(default_factory=dict)
    #: Timestamp of the newest applied record, milliseconds; 0 when nothing was.
    newest_millis: int = 0

    def goes_on(self, partition: Partition) -> bool:
        """Whether later records of a partition may be written."""
        stopped = (self.seek, self.fenced, self.broken, self.paused)
        return not any(partition in each for each in stopped)


class _Fault(NamedTuple):
    """A span that could not be written, and how often it was tried."""

    span: Span
    now_micros: int
    error: _BlamedError
    tries: int


class Writer:
    """The event loop's half of the runner."""

    def __init__(
        self, sink: Sink, screen: Screen, progress: Progress, quarantine: QuarantineStore | None, random: Random
    ) -> None:
        """`quarantine` takes poison first, for sinks that do not keep it themselves, and remembers it for all."""
        self._sink = sink
        self._screen = screen
        self._progress = progress
        self._quarantine = quarantine
        self._random = random
        self._shelf = Shelf(screen)
        #: A cancelled write may still be letting go of its connection when the next one comes.
        self._one_at_a_time = asyncio.Lock()

    async def write(self, batch: Batch) -> Outcome:
        """Apply the batch; ends only when every span is applied, or known to be lost, misplaced, broken or paused."""
        outcome = Outcome()
        async with self._one_at_a_time:
            await self._settle(batch, outcome, 0)
            if outcome.seek:
                # The store went back: what was set aside there before this process came is set aside again.
                await self.stand(outcome.seek)
        return outcome

    async def claim(
        self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]
    ) -> tuple[dict[Partition, int], dict[Partition, str]]:
        """Claim these: where the store stands, and, of those that two things disagree about, why. Repeats as `stand`.

        Where a claim of all of them fails, one by one: a fault goes with its partition, whoever is given that next.
        """
        try:
            return dict(await self.retrying(lambda: self._sink.claim(partitions, topic_ids))), {}
        except IntegrityError as error:
            why = str(error)
        if len(partitions) == 1:
            log.error("claim_refused", sink=self._sink.projection, partition=str(partitions[0]), error=why)
            return {}, {partitions[0]: why}
        cursors: dict[Partition, int] = {}
        broken: dict[Partition, str] = {}
        for partition in partitions:
            stands, stops = await self.claim([partition], topic_ids)
            cursors |= stands
            broken |= stops
        return cursors, broken

    async def stand(self, cursors: Mapping[Partition, int]) -> dict[Partition, Standing]:
        """Learn what is set aside in partitions just claimed; answers it. Repeats while the store is away."""
        quarantine = self._quarantine
        if quarantine is None or self._sink.policy.takes_everything:
            standings = {partition: Standing() for partition in cursors}
        else:
            standings = await self.retrying(lambda: quarantine.standings(self._sink.projection, cursors))
        self._shelf.stand(standings)
        return standings

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These are not ours any more."""
        self._shelf.forget(partitions)

    async def calls(self) -> Calls:
        """What people asked for; raises StoreUnavailableError."""
        if self._quarantine is None or self._sink.policy.takes_everything:
            return Calls()
        return await self._quarantine.calls(self._sink.projection)

    async def redrive(self, partition: Partition, cursor: int) -> None:
        """Apply what people asked for, and learn what is set aside then; nothing may be under way of this partition.

        Raises StoreUnavailableError, LogUnavailableError, FencedError and GapError; what was applied by then is known
        as such. Ends after a while; what is left is still asked for.
        """
        quarantine = self._quarantine
        if quarantine is None:
            return
        redriver = Redriver(self._sink, self._screen, self._progress, quarantine)
        until = time.monotonic() + REDRIVE_SECONDS
        async with self._one_at_a_time:
            try:
                while time.monotonic() < until and await redriver.redrive(partition, cursor):
                    pass
            finally:
                self._shelf.stand(await quarantine.standings(self._sink.projection, {partition: cursor}))

    async def retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call`, repeated while the store is away; cancel it to stop."""
        backoff = Backoff(self._random)
        while True:
            try:
                result = await call()
            except StoreUnavailableError as error:
                delay_seconds = backoff.next_seconds()
                self._progress.retry()
                self._progress.waiting(str(error))
                log.warning("store_unavailable", sink=self._sink.projection, error=str(error), retry_in=delay_seconds)
                await asyncio.sleep(delay_seconds)
            else:
                if backoff.failures:
                    self._progress.running()
                return result

    async def _settle(self, batch: Batch, outcome: Outcome, tries: int) -> None:
        """Write a batch of which `tries` writes failed before."""
        try:
            await self._apply(batch, outcome, tries)
        except (FencedError, GapError, IntegrityError) as error:
            if len(batch.spans) == 1:
                self._note(batch, error, outcome)
                return
            for single in batch.each():
                await self._settle(single, outcome, tries)
        except _BlamedError as error:
            if len(batch.spans) == 1:
                await self._bisect(_Fault(batch.spans[0], batch.now_micros, error, tries + 1), outcome)
                return
            for single in batch.each():
                await self._settle(single, outcome, tries + 1)

    async def _bisect(self, fault: _Fault, outcome: Outcome) -> None:
        """Write a span's halves in order, or quarantine its one record."""
        span, now_micros, error, tries = fault
        if not span.records:
            outcome.broken[span.partition] = str(error)
            log.error("span_fails_without_records", sink=self._sink.projection, partition=str(span.partition))
        elif len(span.records) > 1:
            cut = span.records[len(span.records) // 2].offset
            for half in (span.before(cut), span.after(cut)):
                if outcome.goes_on(span.partition):
                    await self._settle(Batch([half], now_micros), outcome, tries)
        elif tries < TRIES_MIN:
            await self._settle(Batch([span], now_micros), outcome, tries)
        else:
            log.error("record_blamed", sink=self._sink.projection, partition=str(span.partition), detail=error.detail)
            blamed = self._screen.blame(span, error.reason, error.detail, now_micros, tries)
            await self._settle(Batch([blamed], now_micros), outcome, tries)

    async def _apply(self, batch: Batch, outcome: Outcome, tries: int) -> None:
        started = time.monotonic()
        while True:
            arranged, pauses = self._arranged(batch)
            try:
                await self.retrying(lambda: self._once(arranged))  # noqa: B023 - awaited before `arranged` changes
                break
            except RejectedError as error:
                tries += 1
                known = batch.poison_count
                batch = self._screen.reject(batch, error.rejections, tries)
                if batch.poison_count == known:
                    detail = f"{type(error).__name__} without a record of the batch"
                    raise _BlamedError(QuarantineReason.SINK_REJECT, detail) from error
            except QuaestorError:
                raise
            except Exception as fault:
                if self._sink.policy.takes_everything:
                    raise  # what it enters must be what the log says: no record of it is called poison
                # Not the fault's text or its frames: both may hold what the records say.
                detail = place_of(fault)
                log.error("write_failed", sink=self._sink.projection, records=arranged.record_count, detail=detail)  # noqa: TRY400
                raise _BlamedError(QuarantineReason.BUG, detail) from fault
        if arranged.spans:
            steps = {WAIT: _waited_seconds(arranged), **self._sink.steps}
            self._progress.batch(arranged.record_count, time.monotonic() - started, steps)
            self._note_applied(arranged, outcome)
        for partition, pause in pauses.items():
            await self._pause(partition, pause, batch)
            outcome.paused[partition] = pause.reason

    def _arranged(self, batch: Batch) -> tuple[Batch, dict[Partition, Pause]]:
        if self._sink.policy.takes_everything:
            return batch, {}
        return self._shelf.arrange(batch)

    async def _once(self, batch: Batch) -> None:
        if not batch.spans:
            return
        if self._quarantine is not None and not self._sink.policy.keeps_poison:
            poison = batch.quarantined()
            if poison:
                await self._quarantine.put(poison)
        await self._sink.write(batch)

    async def _pause(self, partition: Partition, pause: Pause, batch: Batch) -> None:
        """Keep that the partition stands still, with the alert; repeats while the store is away."""
        log.error("partition_paused", sink=self._sink.projection, partition=str(partition), reason=pause.reason)
        quarantine = self._quarantine
        if quarantine is None:
            return
        projection = self._sink.projection
        topic_id = next(span.topic_id for span in batch.spans if span.partition == partition)
        source = f"{topic_id}/{partition.number}/{pause.offset}/{batch.now_micros}"
        alert = Alert(
            event_id=derived_id("pause", source, AlertKind.PARTITION_PAUSED.value, projection),
            occurred_at=batch.now_micros,
            tenant_id=SYSTEM_TENANT,
            actor=f"sink/{projection}",
            kind=AlertKind.PARTITION_PAUSED,
            severity=Severity.CRITICAL,
            subject=f"{projection} {partition}",
            title=f"{projection} stands still at {partition}, offset {pause.offset}",
            detail=f"{pause.reason}. Nothing is lost; see `quaestor dlq list`, then `quaestor dlq resume`.",
        )
        await self.retrying(lambda: quarantine.pause(projection, partition, topic_id, pause.offset, alert))

    def _note_applied(self, batch: Batch, outcome: Outcome) -> None:
        for span in batch.spans:
            outcome.applied[span.partition] = span.next_offset
            if span.records:
                outcome.newest_millis = max(outcome.newest_millis, span.records[-1].record.timestamp_millis)
        if not self._sink.policy.takes_everything:
            self._shelf.applied(batch)
        poison = batch.quarantined()
        if poison:
            self._progress.quarantined(poison)
            log.warning("records_quarantined", sink=self._sink.projection, records=len(poison))

    def _note(self, batch: Batch, error: FencedError | GapError | IntegrityError, outcome: Outcome) -> None:
        partition = batch.spans[0].partition
        log.error("span_refused", sink=self._sink.projection, partition=str(partition), error=str(error))
        if isinstance(error, FencedError):
            outcome.fenced.append(partition)
        elif isinstance(error, GapError):
            outcome.seek[partition] = error.cursor
        else:
            outcome.broken[partition] = str(error)


def _waited_seconds(batch: Batch) -> float:
    """How old the oldest record of a batch was when the batch was cut."""
    oldest_millis = min((span.records[0].record.timestamp_millis for span in batch.spans if span.records), default=None)
    return 0.0 if oldest_millis is None else max(0.0, batch.now_micros / 1e6 - oldest_millis / 1e3)
