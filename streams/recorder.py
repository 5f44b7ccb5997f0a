"""Recorder: the asyncio face of a Publisher; the gateway has one of its own (streams/kafka/loop_recorder.py).

One encoding per event, one acknowledgement callback per group, one wake-up of the loop for all groups that finished
since the last one. No task, no lock and no timer per call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial

from schemas.errors import LogError, LogUnavailableError
from schemas.events import Event
from schemas.limits import DELIVERY_TIMEOUT_SECONDS
from streams.codec import Codec
from streams.log import Publisher
from streams.records import outgoing

#: How long a group may stay unanswered: the delivery timeout, and the seconds in which librdkafka finds overdue ones.
WAIT_SECONDS_MAX = DELIVERY_TIMEOUT_SECONDS + 2
SWEEP_SECONDS = 1.0


class Recorder:
    """Records groups of events. Owned by one event loop; the publisher stays its maker's to close.

    The order of two groups is that of their calls only when the second waits for the first.
    """

    def __init__(self, publisher: Publisher, codec: Codec, wait_seconds_max: float = WAIT_SECONDS_MAX) -> None:
        """`wait_seconds_max` bounds a call even when the publisher breaks its word."""
        self._publisher, self._codec, self._wait_seconds_max = publisher, codec, wait_seconds_max
        self._finished: deque[tuple[asyncio.Future[None], LogError | None]] = deque()
        self._waiting: dict[asyncio.Future[None], float] = {}
        self._waking = False
        self._sweeper: asyncio.TimerHandle | None = None

    async def record(self, events: Sequence[Event], traceparent: bytes | None = None) -> None:
        """Return when every event of the group is acknowledged with acks=all.

        Raises LogUnavailableError or RecordRefusedError when one is not, and CodecError when one does not fit its
        schema: then nothing of the group was handed over. A cancelled call stops waiting; what was handed over may
        still be recorded.
        """
        codec = self._codec
        records = [outgoing(codec, event, traceparent) for event in events]
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = loop.time() + self._wait_seconds_max
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep, loop)
        try:
            self._publisher.publish(records, partial(self._done, loop, future))
            await future
        finally:
            del self._waiting[future]

    def _done(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], fault: LogError | None) -> None:
        """Keep the outcome, from whichever thread; wake the loop unless it is about to look anyway."""
        self._finished.append((future, fault))
        if not self._waking:
            self._waking = True
            try:
                loop.call_soon_threadsafe(self._resolve)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                self._finished.clear()

    def _resolve(self) -> None:
        self._waking = False
        while self._finished:
            future, fault = self._finished.popleft()
            if not future.done():
                _settle(future, fault)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail what is overdue; looks again as long as somebody waits."""
        now = loop.time()
        for future, deadline in list(self._waiting.items()):
            if deadline > now:
                break
            if not future.done():
                _settle(future, LogUnavailableError("Kafka did not acknowledge in time"))
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._waiting else None


def _settle(future: asyncio.Future[None], fault: LogError | None) -> None:
    if fault is None:
        future.set_result(None)
    else:
        future.set_exception(fault)
