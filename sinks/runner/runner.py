"""The runner: a thread that consumes and decodes, an event loop that writes, one batch ahead of each other.

The thread owns the reader (which is not thread-safe and calls back from within `consume`) and the open batch; the loop
owns the sink. At most one batch is being written while the next one fills; a full next batch makes the thread wait, and
after a while pause its partitions, so memory stays bounded whatever the backlog. Where the store stands is asked of the
store alone (`claim`); Kafka's committed offset is a hint for lag tools.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random
from typing import Any, TypeVar

import structlog

from schemas.errors import FencedError, GapError, LogUnavailableError, StoreUnavailableError
from sinks.runner.assembler import Assembler, cursors_after
from sinks.runner.priority import Courtesy
from sinks.runner.reading import LOG_RETRY_SECONDS, METADATA_SECONDS, Reading, now_micros
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, Progress, QuarantineStore, Sink
from sinks.runner.tending import Tending
from sinks.runner.writer import Outcome, Writer
from streams.codec import Codec
from streams.log import GroupReader, Partition

log = structlog.get_logger()
T = TypeVar("T")

#: How long work under way may take to end on a revoke or a stop, seconds.
DRAIN_SECONDS = 20.0
#: How long a full batch waits for the write before it before fetching is paused, seconds.
PAUSE_AFTER_SECONDS = 3.0
#: How long a backlog may keep the sink's own watch and people's requests waiting, seconds.
BEAT_LATEST_SECONDS = 5.0
#: A partition that another owner fenced us from is claimed again after this, seconds, if the group still counts on us
#: for it: either a process that was frozen woke up and claimed once more, or we are that process.
RECLAIM_SECONDS = 1.0


async def run_sink(
    sink: Sink,
    reader: GroupReader,
    codec: Codec,
    progress: Progress,
    stop: asyncio.Event,
    random: Random,
    quarantine: QuarantineStore | None = None,
    courtesy: Courtesy | None = None,
) -> None:
    """Drive a sink until `stop` is set; then finish the batch, close the reader and the sink, and return.

    Without `courtesy` it never gives way to others, however far behind it is.

    Raises what can't be mended here (IntegrityError of the log, faults of the code): the process should end and be
    started again. Cancelling it abandons the batch, which is harmless: it is read again.
    """
    screen = Screen(codec, sink.projection, takes_everything=sink.policy.takes_everything)
    writer = Writer(sink, screen, progress, quarantine, random)
    runner = _Runner(sink, reader, screen, writer, progress, random, courtesy)
    await runner.run(stop)


class _Runner(Reading):
    """The consuming thread's half, and the run that holds both together."""

    def __init__(
        self,
        sink: Sink,
        reader: GroupReader,
        screen: Screen,
        writer: Writer,
        progress: Progress,
        random: Random,
        courtesy: Courtesy | None,
    ) -> None:
        tending = Tending(sink, writer, progress)
        super().__init__(sink, reader, Assembler(screen, sink.policy), tending, progress, random, courtesy)
        self._writer = writer
        self._topic_ids: Mapping[str, str] = {}
        self._writing: Future[Outcome] | None = None
        self._written_batch: Batch | None = None
        self._broken: dict[Partition, str] = {}
        #: When to claim again what we were fenced from, and where the store stood.
        self._reclaim: dict[Partition, tuple[float, int]] = {}
        self._beat_at = self._submitted_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"consume-{self._sink.projection}")
        stopper = asyncio.create_task(self._stop_when(stop))
        opening = asyncio.create_task(self._writer.retrying(self._sink.open))
        try:
            await asyncio.wait([opening, stopper], return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                await opening
                self._progress.running()
                await self._loop.run_in_executor(executor, self._consume_until_stopped)
        finally:
            self._stopping.set()
            for task in (opening, stopper):
                task.cancel()
            # The thread ends by itself now; its calls into this loop must still be answered meanwhile.
            await asyncio.shield(self._loop.run_in_executor(None, executor.shutdown))
            await self._sink.close()

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopping.set()

    # From here on: the consuming thread.

    def _consume_until_stopped(self) -> None:
        try:
            self._reader.subscribe(self._sink.topics, self._on_assign, self._on_revoke)
            while not self._stopping.is_set():
                self._step()
            self._drain(list(self._applied))
        except (StoreUnavailableError, LogUnavailableError):
            # Being told to stop while something is away is no fault.
            if not self._stopping.is_set():
                raise
        finally:
            self._abandon()
            self._tending.close()
            # Leaves the group, which revokes what is still owned.
            self._reader.close()
            self._release(list(self._applied))

    def _step(self) -> None:
        if self._collect() and self._courtesy is not None:
            self._stopping.wait(self._courtesy.rest_seconds(time.monotonic() - self._submitted_at))
        self._move()
        self._tell_in_time()
        self._assembler.policy = self._batch_policy()
        if self._assembler.full and self._writing is not None:
            # The next batch is decoded, and made ready to be written, while the one before it is written: on two cores.
            if self._courtesy is None or not self._courtesy.rests:
                self._screen()
                self._prepare()
            self._await_write()
            return
        if not self._assembler.waiting:
            self._take(self._sink.policy.poll_milliseconds / 1_000)
        self._assembler.place(time.monotonic())
        self._move()
        if not self._sink.policy.takes_columns:
            self._screen()
        if self._writing is None:
            self._submit_or_beat()

    def _prepare(self) -> None:
        if not self._sink.policy.takes_columns or self._assembler.unscreened:
            return
        try:
            self._sink.prepare(self._assembler.spans)
        except Exception as fault:  # noqa: BLE001 - about some record: the write meets it again, and finds out which
            log.debug("not_prepared", sink=self._sink.projection, fault=type(fault).__name__)

    def _await_write(self) -> None:
        """Back-pressure: wait a little, then pause so that our place in the group is kept while the store works."""
        writing = self._writing
        if writing is not None:
            concurrent.futures.wait([writing], PAUSE_AFTER_SECONDS)
            if not writing.done():
                self._hold(writing.done)

    def _submit_or_beat(self) -> None:
        now = time.monotonic()
        if self._assembler.due(now) and now < self._beat_at + BEAT_LATEST_SECONDS:
            self._screen()
            if self._writing is None and not self._assembler.unscreened:
                self._submit()
        elif now >= self._beat_at:
            self._beat_at = now + self._sink.policy.heartbeat_milliseconds / 1_000
            self._beat()

    def _submit(self) -> None:
        batch = self._assembler.cut(now_micros())
        cursors_after(batch)
        self._written_batch, self._submitted_at = batch, time.monotonic()
        self._writing = asyncio.run_coroutine_threadsafe(self._writer.write(batch), self._loop)

    def _collect(self) -> bool:
        """Take the outcome of a write, if one has ended: whether. Raises what the sink raised for no good reason."""
        if self._writing is None or not self._writing.done():
            return False
        outcome, self._writing, self._written_batch = self._writing.result(), None, None
        applied = {each: cursor for each, cursor in outcome.applied.items() if each in self._applied}
        self._applied.update(applied)
        if applied:
            self._reader.commit_hint(applied)
        for partition, cursor in outcome.seek.items():
            self._seek(partition, cursor)
        self._stand_aside({each: self._applied[each] for each in outcome.fenced if each in self._applied})
        self._break(outcome.broken)
        for partition, why in outcome.paused.items():
            self._stand_still(partition, why)
        return True

    def _seek(self, partition: Partition, cursor: int) -> None:
        if partition in self._applied:
            self._applied[partition] = cursor
            self._assembler.reread(partition, cursor)
            self._seeks[partition] = cursor

    def _give_up(self, partition: Partition) -> None:
        if self._applied.pop(partition, None) is not None:
            self._assembler.drop([partition])
            self._reader.pause([partition])

    def _break(self, broken: Mapping[Partition, str]) -> None:
        """Keep these but take nothing of them: two things disagree, and a person must look."""
        self._stuck |= {each: self._applied[each] for each in broken if each in self._applied}
        for partition, why in broken.items():
            self._give_up(partition)
            self._broken[partition] = why
        if broken:
            self._progress.broken(self._broken)

    def _stand_aside(self, cursors: Mapping[Partition, int]) -> None:
        """Another owner has these; in a while it is seen whose they are."""
        for partition, cursor in cursors.items():
            self._give_up(partition)
            self._reclaim[partition] = (time.monotonic() + RECLAIM_SECONDS, cursor)

    def _stand_still(self, partition: Partition, why: str) -> None:
        """Keep a partition but take nothing of it, until a person resumes it."""
        if partition in self._applied:
            self._tending.stop(partition, self._applied[partition], why)
            self._give_up(partition)

    def _beat(self) -> None:
        """Beside no write: lag, the sink's own watch, and partitions to claim again."""
        ends = self._tell()
        if ends is None:
            return
        self._watch(ends)
        due = [each for each, (at, _) in self._reclaim.items() if at <= time.monotonic()]
        if due:
            self._claim_again(due)
        self._tend()

    def _tend(self) -> None:
        """Do what people asked for: redrive what was set aside, resume what stands still."""
        calls = self._tending.ask(self._loop)
        try:
            for partition in calls.redrives:
                if partition in self._applied or partition in self._tending.still:
                    self._redrive(partition)
        except (StoreUnavailableError, LogUnavailableError) as error:
            log.info("redrive_waits", sink=self._sink.projection, error=str(error))
        resumed = [partition for partition in calls.resumed if partition in self._tending.still]
        if resumed:
            self._claim_again(resumed)

    def _redrive(self, partition: Partition) -> None:
        """Between two batches: what waits behind the redriven records is in the store by then, or not written yet."""
        try:
            self._call(self._writer.redrive(partition, (self._applied | self._tending.still)[partition]), None)
        except (FencedError, GapError) as error:
            log.warning("claiming_again", sink=self._sink.projection, error=str(error))
            self._claim_again([partition])

    def _watch(self, ends: Mapping[Partition, int]) -> None:
        try:
            self._call(self._sink.heartbeat(ends), METADATA_SECONDS)
        except (FencedError, GapError) as error:
            log.warning("claiming_again", sink=self._sink.projection, error=str(error))
            self._claim_again(list(self._applied))
        except StoreUnavailableError as error:
            self._trouble("store", str(error))
        else:
            self._fine("store")

    def _claim_again(self, partitions: Sequence[Partition]) -> None:
        """Claim what the group still gives us; whoever was frozen must not fence the one that took over meanwhile."""
        waiting = {each: cursor for each, (_, cursor) in self._reclaim.items()}
        stands = waiting | self._tending.still | self._applied
        asked = {each: stands[each] for each in partitions if each in stands}
        if not self._reader.confirm(asked):
            log.warning("claim_not_confirmed", sink=self._sink.projection, partitions=len(asked))
            self._stand_aside(asked)
            return
        cursors = self._claim(list(asked))
        self._stuck |= {each: cursor for each, cursor in asked.items() if each not in cursors}
        self._seeks.update({each: cursor for each, cursor in cursors.items() if each in self._applied})

    def _claim(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Own these from where the store stands; repeats while the store is away, gives up when we stop.

        Answers without those that two things disagree about: they are stopped.
        """
        topics = list(dict.fromkeys(partition.topic for partition in partitions))
        self._topic_ids = {**self._topic_ids, **self._ids_of(topics)}
        cursors, broken = self._call(self._writer.claim(partitions, self._topic_ids), None)
        standings = self._call(self._writer.stand(cursors), None)
        self._tending.forget(partitions)
        for partition in partitions:
            for known in (self._reclaim, self._stuck, self._broken):
                known.pop(partition, None)
        for partition, cursor in cursors.items():
            self._assembler.own(partition, self._topic_ids[partition.topic], cursor)
            self._applied[partition] = cursor
            paused = standings[partition].paused
            if paused is not None:
                self._stand_still(partition, paused)
        self._break(broken)
        log.info("partitions_claimed", sink=self._sink.projection, partitions=len(cursors))
        return cursors

    def _ids_of(self, topics: Sequence[str]) -> Mapping[str, str]:
        """The topics' UUIDs; repeats while the log is away."""
        while True:
            try:
                return self._reader.topic_ids(topics, METADATA_SECONDS)
            except LogUnavailableError as error:
                self._trouble("log", str(error))
                if self._stopping.wait(LOG_RETRY_SECONDS):
                    raise

    def _on_assign(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        # A partition given up earlier was paused, and a reader may remember that.
        self._given.update(partitions)
        cursors = self._claim(partitions) if partitions else {}
        return cursors | self._at_end([each for each in partitions if each not in cursors])

    def _on_revoke(self, partitions: Sequence[Partition]) -> None:
        """Drain first, fence second: what is under way ends, then the partitions leave."""
        self._drain(partitions)
        for partition in partitions:
            self._applied.pop(partition, None)
            self._reclaim.pop(partition, None)
            self._stuck.pop(partition, None)
            self._broken.pop(partition, None)
        self._tending.forget(partitions)
        self._assembler.drop(partitions)
        self._ages.forget(partitions)
        self._writer.forget(partitions)
        self._progress.broken(self._broken)
        self._release(partitions)
        log.info("partitions_released", sink=self._sink.projection, partitions=len(partitions))

    def _release(self, partitions: Sequence[Partition]) -> None:
        with contextlib.suppress(StoreUnavailableError):
            self._call(self._sink.release(partitions), DRAIN_SECONDS)

    def _drain(self, partitions: Sequence[Partition]) -> None:
        """End the write under way, then write what waits of these partitions; abandon what takes too long."""
        until = time.monotonic() + DRAIN_SECONDS
        self._finish_write(until)
        if self._assembler.has(partitions) and time.monotonic() < until and self._screened():
            self._submit()
            self._finish_write(until)

    def _screened(self) -> bool:
        """Decode the open batch if that needs nobody who is away: what is not decoded by then is read again."""
        try:
            self._assembler.screen(now_micros())
        except LogUnavailableError:
            return False
        return True

    def _finish_write(self, until: float) -> None:
        if self._writing is None:
            return
        concurrent.futures.wait([self._writing], max(0.0, until - time.monotonic()))
        if self._writing.done():
            self._collect()
        else:
            log.warning("drain_abandoned", sink=self._sink.projection)
            self._abandon()

    def _abandon(self) -> None:
        """Give up the write under way; its partitions are read again from where the store was last known to stand."""
        if self._writing is None or self._written_batch is None:
            return
        self._writing.cancel()
        for span in self._written_batch.spans:
            self._seek(span.partition, self._applied.get(span.partition, span.first_offset))
        self._writing = self._written_batch = None

    def _call(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float | None) -> T:
        """Run something on the loop and wait for it; raises what it raises, or StoreUnavailableError when we stop."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        until = time.monotonic() + (timeout_seconds if timeout_seconds is not None else float("inf"))
        while not future.done():
            concurrent.futures.wait([future], 0.1)
            if time.monotonic() > until or (timeout_seconds is None and self._stopping.is_set()):
                future.cancel()
                raise StoreUnavailableError("stopped while the store was away")
        return future.result()
