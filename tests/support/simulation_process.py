"""One sink process of a simulation: the runner's decisions over the real Screen, Assembler and Writer, step by step.

`sinks.runner.runner` does the same with a thread and a clock; here the simulation says when a process reads, writes,
beats, loses its partitions or dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from schemas.errors import FencedError, GapError, QuaestorError, StoreUnavailableError
from schemas.events import QuarantinedRecord
from sinks.runner.assembler import Assembler, cursors_after
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, Progress, QuarantineStore, Sink
from sinks.runner.writer import Outcome, Writer
from streams.log import Partition
from streams.runs import runs_of
from tests.support.simulation_log import CODEC, SimulatedLog
from tests.support.simulation_loop import VirtualLoop


class Silent(Progress):
    """Tells nobody."""

    def running(self) -> None:
        """As the seam says."""

    def waiting(self, detail: str) -> None:
        """As the seam says."""

    def broken(self, partitions: Mapping[Partition, str]) -> None:
        """As the seam says."""

    def lag(self, lag_events: Mapping[Partition, int], freshness_seconds: float) -> None:
        """As the seam says."""

    def batch(self, records: int, write_seconds: float, steps: Mapping[str, float]) -> None:
        """As the seam says."""

    def retry(self) -> None:
        """As the seam says."""

    def quarantined(self, records: Sequence[QuarantinedRecord]) -> None:
        """As the seam says."""

    def paused(self, partitions: Mapping[Partition, str]) -> None:
        """As the seam says."""

    def redriven(self, applied: int, failed: int) -> None:
        """As the seam says."""


class Process:
    """A process of a sink."""

    writer_type: type[Writer] = Writer
    assembler_type: type[Assembler] = Assembler

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        log: SimulatedLog,
        make_sink: Callable[[str], Sink],
        quarantine: QuarantineStore | None,
    ) -> None:
        """It owns nothing yet."""
        self.name = name
        self.alive = True
        self._loop = loop
        self._log = log
        self.sink = make_sink(name)
        screen = Screen(CODEC, self.sink.projection, takes_everything=self.sink.policy.takes_everything)
        self.writer = self.writer_type(self.sink, screen, Silent(), quarantine, Random(0))
        self.assembler = self.assembler_type(screen, self.sink.policy)
        #: Owned partitions and where the store stands, as far as is known here.
        self.applied: dict[Partition, int] = {}
        #: Where the reader stands.
        self.reads: dict[Partition, int] = {}
        self.broken: dict[Partition, str] = {}
        self._wanted: set[Partition] = set()
        self._claiming: asyncio.Task[Mapping[Partition, int]] | None = None
        self._writing: asyncio.Task[Outcome] | None = None
        self._batch: Batch | None = None
        self._beating: asyncio.Task[None] | None = None
        self._mistakes: set[tuple[Partition, int | None]] = set()
        self._retired: list[asyncio.Task[Any]] = []

    @property
    def idle(self) -> bool:
        """Whether nothing of this process is under way."""
        return self._claiming is None and self._writing is None and self._beating is None

    @property
    def is_writing(self) -> bool:
        """Whether a batch is under way."""
        return self._writing is not None

    def claim(self, partitions: Sequence[Partition]) -> None:
        """Become the owner of these too, once nothing else is under way."""
        self._wanted.update(partitions)
        self.go_on()

    def go_on(self) -> None:
        """Take what has ended, and begin a claim that waits."""
        self._collect_claim()
        self._collect_write()
        self._collect_beat()
        if self._wanted and self.idle and self.alive:
            partitions, self._wanted = sorted(self._wanted), set()
            topic_ids = {each.topic: self._log.topic_id(each.topic) for each in partitions}
            self._claiming = self._loop.create_task(self._claim(partitions, topic_ids))
            self._loop.settle()

    def take(self, records_max: int) -> None:
        """Read from the log, once what was read before is placed, and decode; partitions in turn, each in order."""
        for partition in sorted(self.applied) if not self.assembler.waiting else ():
            records = self._log.read(partition, self.reads[partition], records_max)
            if records:
                self.reads[partition] = records[-1].offset + 1
                self.assembler.enqueue(runs_of(records))
        self._decode()

    def skip(self, partition: Partition, offset: int) -> None:
        """A reader's mistake: it gives out a later record than the next one; it never makes the same one again."""
        mistake = (partition, self.assembler.owned.get(partition))
        if partition in self.applied and mistake not in self._mistakes:
            self._mistakes.add(mistake)
            self.reads[partition] = max(self.reads[partition], offset)

    def submit(self) -> None:
        """Begin to write what waits."""
        if self.idle and self.assembler.has(list(self.applied)):
            batch = self.assembler.cut(1)
            cursors_after(batch)
            self._batch = batch
            self._writing = self._loop.create_task(self.writer.write(batch))
            self._loop.settle()

    def beat(self) -> None:
        """The heartbeat, beside no write."""
        if self.idle and self.applied:
            ends = {each: self._log.end(each) for each in self.applied}
            self._beating = self._loop.create_task(self.sink.heartbeat(ends))  # type: ignore[arg-type]
            self._loop.settle()

    def tend(self) -> None:
        """Do what people asked for, beside no write."""
        if self.idle and self.applied:
            self._beating = self._loop.create_task(self._redrive(dict(self.applied)))
            self._loop.settle()

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """These leave: what is under way is given up, which is what is left when draining takes too long."""
        self.abandon()
        for partition in partitions:
            self._give_up(partition)
            self._wanted.discard(partition)
        self.writer.forget(partitions)
        self._loop.create_task(self._release(list(partitions)))
        self._loop.settle()

    def abandon(self) -> None:
        """Cancel the write under way; its partitions are read again from where the store was last known to stand."""
        if self._writing is None or self._batch is None:
            return
        self._writing.cancel()
        self._retired.append(self._writing)
        for span in self._batch.spans:
            self._seek(span.partition, self.applied.get(span.partition, span.first_offset))
        self._writing = self._batch = None
        self._loop.settle()

    def die(self) -> list[asyncio.Task[Any]]:
        """Nothing of this process runs any more; its tasks, to be cancelled when the simulation is over."""
        self.alive = False
        self.applied.clear()
        self._wanted.clear()
        under_way = [task for task in (self._claiming, self._writing, self._beating) if task is not None]
        self._claiming = self._writing = self._beating = None
        return under_way + self._retired

    async def _release(self, partitions: Sequence[Partition]) -> None:
        with suppress(StoreUnavailableError):
            await self.sink.release(partitions)

    async def _claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        cursors = await self.writer.retrying(lambda: self.sink.claim(partitions, topic_ids))
        await self.writer.stand(cursors)
        return cursors

    async def _redrive(self, cursors: Mapping[Partition, int]) -> None:
        for partition in (await self.writer.calls()).redrives:
            if partition in cursors:
                await self.writer.redrive(partition, cursors[partition])

    def _decode(self) -> None:
        self.assembler.place(0.0)
        self.assembler.screen(1)
        for partition, cursor in self.assembler.rereads.items():
            self.reads[partition] = cursor
        self.assembler.rereads.clear()

    def _collect_claim(self) -> None:
        if self._claiming is None or not self._claiming.done():
            return
        task, self._claiming = self._claiming, None
        try:
            cursors = task.result()
        except FencedError:
            # Claimed away again while it was claiming: the coordinator's next word decides.
            return
        for partition, cursor in cursors.items():
            self.assembler.own(partition, self._log.topic_id(partition.topic), cursor)
            self.applied[partition] = self.reads[partition] = cursor

    def _collect_write(self) -> None:
        if self._writing is None or not self._writing.done():
            return
        outcome, self._writing, self._batch = self._writing.result(), None, None
        self.applied.update({each: cursor for each, cursor in outcome.applied.items() if each in self.applied})
        for partition, cursor in outcome.seek.items():
            self._seek(partition, cursor)
        for partition in outcome.fenced:
            self._give_up(partition)
        for partition, why in (outcome.broken | outcome.paused).items():
            self._give_up(partition)
            self.broken[partition] = why

    def _collect_beat(self) -> None:
        if self._beating is None or not self._beating.done():
            return
        task, self._beating = self._beating, None
        try:
            task.result()
        except StoreUnavailableError:
            return
        except (FencedError, GapError):
            self._wanted.update(self.applied)
        except QuaestorError as error:
            self.broken.update(dict.fromkeys(self.applied, str(error)))

    def _seek(self, partition: Partition, cursor: int) -> None:
        if partition in self.applied:
            self.applied[partition] = self.reads[partition] = cursor
            self.assembler.reread(partition, cursor)

    def _give_up(self, partition: Partition) -> None:
        if self.applied.pop(partition, None) is not None:
            self.assembler.drop([partition])
            self.reads.pop(partition, None)
