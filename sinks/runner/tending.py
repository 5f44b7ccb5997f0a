"""What people asked of a sink, and the partitions that stand still until a person resumes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import Future

import structlog

from schemas.errors import StoreUnavailableError
from sinks.runner.seam import Calls, Progress, Sink
from sinks.runner.writer import Writer
from streams.log import Partition

log = structlog.get_logger()


class Tending:
    """Used by the consuming thread; asks the quarantine on the event loop and waits for nobody."""

    def __init__(self, sink: Sink, writer: Writer, progress: Progress) -> None:
        """Nothing stands still, nothing was asked."""
        self._sink = sink
        self._writer = writer
        self._progress = progress
        #: Owned partitions that stand still, and where the store stands.
        self.still: dict[Partition, int] = {}
        #: Those of them that the reader must still be told about.
        self.silent: set[Partition] = set()
        self._reasons: dict[Partition, str] = {}
        self._asking: Future[Calls] | None = None
        self._ask_at = 0.0

    def stop(self, partition: Partition, cursor: int, why: str) -> None:
        """Keep a partition but take nothing of it."""
        self.still[partition] = cursor
        self.silent.add(partition)
        self._reasons[partition] = why
        self._progress.paused(self._reasons)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These go on, or are not ours any more."""
        for partition in partitions:
            self.still.pop(partition, None)
            self.silent.discard(partition)
            if self._reasons.pop(partition, None) is not None:
                self._progress.paused(self._reasons)

    def ask(self, loop: asyncio.AbstractEventLoop) -> Calls:
        """What people asked for as far as an answer is there; begins to ask again when it is time."""
        calls = Calls()
        if self._asking is not None and self._asking.done():
            asked, self._asking = self._asking, None
            try:
                calls = asked.result()
            except StoreUnavailableError as error:
                log.info("tending_waits", sink=self._sink.projection, error=str(error))
        if self._asking is None and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + self._sink.policy.tend_milliseconds / 1_000
            self._asking = asyncio.run_coroutine_threadsafe(self._writer.calls(), loop)
        return calls

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
