"""The audit sink: sequences what the runner hands over, and keeps tiles and checkpoint up with it in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

import structlog

from processors.audit.commitment import Salts
from schemas import limits
from schemas.errors import ConfigurationError, FencedError, IntegrityError, QuaestorError, StoreUnavailableError
from sinks.audit.layout import AUDITED_TOPICS
from sinks.audit.publisher import Publisher
from sinks.audit.sequencer import Sequencer
from sinks.audit.store import AuditStore
from sinks.runner.seam import Batch, BatchPolicy, Sink, Span
from streams.log import Partition

log = structlog.get_logger(__name__)
PERIOD_SECONDS = limits.AUDIT_INTEGRATE_MILLISECONDS / 1_000


class AuditSink(Sink):
    """One log's sink, in the runner's seam. One sequencer per log: the newest claim wins, the others are fenced."""

    projection = "audit@v1"
    topics = AUDITED_TOPICS
    policy = BatchPolicy(
        age_milliseconds=limits.AUDIT_BATCH_AGE_MILLISECONDS,
        keeps_poison=True,
        takes_everything=True,
        takes_columns=True,
    )

    def __init__(self, store: AuditStore, publisher: Publisher, salts: Salts, owner: str) -> None:
        """`owner` names this process in the log's row."""
        self._store = store
        self._publisher = publisher
        self._sequencer = Sequencer(store, salts, owner, publisher.offer)
        self._background: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._room = asyncio.Event()
        self._fault: QuaestorError | None = None

    async def open(self) -> None:
        """Connect, and refuse a rolled-back database at once; raises as `Publisher.open` does."""
        await self._store.open()
        await self._publisher.check(await self._store.state())

    async def close(self) -> None:
        """Publish what is sequenced, as far as that works, and let go."""
        began = self._background is not None
        await self._stop_background()
        if began and self._fault is None:
            with contextlib.suppress(QuaestorError):  # the next start finishes what fails here
                await self._keep_up()
        await self._store.close()

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Fence earlier sequencers, check the log, start publishing; raises as the seam says."""
        with self._remembering_faults():
            return await self._claim(partitions, topic_ids)

    async def _claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        await self._stop_background()
        self._fault = None
        state = await self._sequencer.claim({partition: topic_ids[partition.topic] for partition in partitions})
        await self._publisher.open(state)
        await self._sequencer.end_with_heads()
        cursors = await self._sequencer.cursors()
        self._background = asyncio.create_task(self._publish_until_stopped(), name="audit-publisher")
        return {partition: cursors.get(partition, 0) for partition in partitions}

    async def write(self, batch: Batch) -> None:
        """Sequence the batch; waits while publication is too far behind; raises as the seam says."""
        await self._wait_for_room()
        with self._remembering_faults():
            await self._sequencer.append(batch.spans)

    def prepare(self, spans: Sequence[Span]) -> None:
        """Nothing: what an entry says is found in the write, where its chain is."""

    async def redrive(self, span: Span) -> None:
        """Never asked: this sink takes every record as it comes, and sets none aside."""

    async def heartbeat(self, end_offsets: Mapping[Partition, int]) -> None:
        """Nothing to look after: the publisher does it in the background."""

    async def release(self, partitions: Sequence[Partition]) -> None:
        """Nothing to forget: cursors are the log's, and a newer owner fences us."""

    async def drained(self) -> None:
        """Return when everything sequenced is in a published checkpoint; raises what stopped publication."""
        while self._publisher.published_size < self._sequencer.next_seq:
            self._raise_failure()
            await asyncio.sleep(PERIOD_SECONDS / 4)

    async def failure(self) -> None:
        """Return never, but raise what ends this sequencer: a newer owner, or things that disagree."""
        while True:
            self._raise_failure()
            await asyncio.sleep(PERIOD_SECONDS)

    async def _wait_for_room(self) -> None:
        self._raise_failure()
        while self._sequencer.next_seq - self._publisher.size > limits.AUDIT_UNINTEGRATED_ENTRIES_MAX:
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), PERIOD_SECONDS)
            self._raise_failure()

    @contextlib.contextmanager
    def _remembering_faults(self) -> Iterator[None]:
        """What ends a sequencer's life whatever the runner makes of it: a newer owner, or things that disagree."""
        try:
            yield
        except (FencedError, IntegrityError, ConfigurationError) as error:
            self._fault = error
            raise

    def _raise_failure(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._background is not None and self._background.done() and not self._background.cancelled():
            failure = self._background.exception()
            if failure is not None:
                raise failure

    async def _stop_background(self) -> None:
        """Let the step under way end: a thread that writes files can't be called back."""
        task, self._background = self._background, None
        if task is not None:
            self._stop.set()
            await asyncio.wait([task])
            self._stop.clear()

    async def _publish_until_stopped(self) -> None:
        while not self._stop.is_set():
            try:
                await self._keep_up()
            except StoreUnavailableError as error:
                log.warning("audit_publication_retried", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), PERIOD_SECONDS)

    async def _keep_up(self) -> None:
        """Integrate in steps until what is sequenced is in tiles, then publish."""
        while self._publisher.size < self._sequencer.next_seq and await self._publisher.integrate():
            self._room.set()
        while await self._publisher.publish():
            pass  # a checkpoint that waited was published first
