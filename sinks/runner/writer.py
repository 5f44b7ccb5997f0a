"""Writes one batch into a sink: repeats it while the store is away, and finds out what a fault is about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import structlog

from schemas.errors import FencedError, GapError, IntegrityError, RejectedError, StoreUnavailableError
from sinks.runner.backoff import Backoff
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, Progress, QuarantineStore, Sink
from streams.log import Partition

log = structlog.get_logger()
T = TypeVar("T")


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
    #: Timestamp of the newest applied record, milliseconds; 0 when nothing was.
    newest_millis: int = 0


class Writer:
    """The event loop's half of the runner."""

    def __init__(
        self, sink: Sink, screen: Screen, progress: Progress, quarantine: QuarantineStore | None, random: Random
    ) -> None:
        """`quarantine` takes poison first, for sinks that do not keep it themselves."""
        self._sink = sink
        self._screen = screen
        self._progress = progress
        self._quarantine = quarantine
        self._random = random
        #: A cancelled write may still be letting go of its connection when the next one comes.
        self._one_at_a_time = asyncio.Lock()

    async def write(self, batch: Batch) -> Outcome:
        """Apply the batch; ends only when every span is applied, or known to be lost, misplaced or broken."""
        outcome = Outcome()
        async with self._one_at_a_time:
            await self._settle(batch, outcome)
        return outcome

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

    async def _settle(self, batch: Batch, outcome: Outcome) -> None:
        try:
            await self._apply(batch, outcome)
        except (FencedError, GapError, IntegrityError) as error:
            if len(batch.spans) == 1:
                self._note(batch, error, outcome)
                return
            for single in batch.each():
                await self._settle(single, outcome)

    async def _apply(self, batch: Batch, outcome: Outcome) -> None:
        started = time.monotonic()
        while True:
            try:
                await self.retrying(lambda: self._once(batch))  # noqa: B023 - awaited before `batch` changes
                break
            except RejectedError as error:
                remaining = sum(len(span.records) for span in batch.spans)
                batch = self._screen.reject(batch, error.rejections)
                if sum(len(span.records) for span in batch.spans) >= remaining:
                    raise IntegrityError(f"the store refuses records that are not in the batch: {error}") from error
        self._progress.batch(batch.record_count, time.monotonic() - started)
        self._note_applied(batch, outcome)

    async def _once(self, batch: Batch) -> None:
        if self._quarantine is not None and not self._sink.policy.keeps_poison:
            poison = batch.quarantined()
            if poison:
                await self._quarantine.put(poison)
        await self._sink.write(batch)

    def _note_applied(self, batch: Batch, outcome: Outcome) -> None:
        for span in batch.spans:
            outcome.applied[span.partition] = span.next_offset
            if span.records:
                outcome.newest_millis = max(outcome.newest_millis, span.records[-1].record.timestamp_millis)
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
