"""A LoopPublisher on a loop and thread of its own, as the Publisher that tests of any publisher ask for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import uvloop

from streams.kafka import LoopPublisher
from streams.log import Done, OutgoingRecord

SECONDS = 30.0


class ThreadedPublisher:
    """Publisher, from whichever thread."""

    def __init__(self, bootstrap: str, **given: Any) -> None:
        """Return when the publisher is made."""
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop-publisher", daemon=True)
        self._thread.start()
        self.inner: LoopPublisher = self._wait(self._make(bootstrap, given))

    def publish(self, records: Sequence[OutgoingRecord], done: Done) -> None:
        """As the seam says."""
        self._loop.call_soon_threadsafe(self.inner.publish, records, done)

    def flush(self, timeout_seconds: float) -> int:
        """As the seam says."""
        return int(self._wait(self.inner.flush(timeout_seconds)))

    def close(self) -> None:
        """As the seam says."""
        self._wait(self.inner.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()

    async def _make(self, bootstrap: str, given: dict[str, Any]) -> LoopPublisher:
        return LoopPublisher(bootstrap, **given)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)
