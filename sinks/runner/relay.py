"""Relays the quarantine outbox to quaestor.quarantine and .alerts: at least once; ids make a repeat harmless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import msgspec
import structlog

from schemas.errors import CodecError, LogError, RecordRefusedError, StoreUnavailableError
from schemas.events import Event, QuarantinedRecord
from sinks.runner.backoff import Backoff
from sinks.runner.seam import QuarantineStore, Unreadable

log = structlog.get_logger()

EVENTS_MAX = 200
IDLE_SECONDS = 1.0
#: What can't be published is tried again after so long: an operator or a new release may have mended it.
AGAIN_SECONDS = 600.0


class Records(Protocol):
    """What the relay needs of streams.recorder.Recorder."""

    async def record(self, events: Sequence[Event]) -> None:
        """Return when every event is acknowledged; raises LogUnavailableError, RecordRefusedError."""


async def relay_quarantine(store: QuarantineStore, recorder: Records, stop: asyncio.Event, random: Random) -> None:
    """Publish what is kept and not yet published, until stopped; whatever is away is waited for.

    Runs beside the Postgres sink, for every sink's poison. Two of them at once do no harm: ids are deterministic and
    the bytes are the kept ones.
    """
    backoff = Backoff(random)
    relay = Relay(store, recorder)
    while not stop.is_set():
        try:
            found = await relay.once()
            backoff.reset()
            delay_seconds = 0.0 if found == EVENTS_MAX else IDLE_SECONDS
        except (StoreUnavailableError, LogError, CodecError) as error:
            delay_seconds = backoff.next_seconds()
            log.warning("quarantine_relay_waits", error=str(error))
        await _pause(stop, delay_seconds)


class Relay:
    """Publishes chunk by chunk. What can't be is said, passed over so that the rest goes on, and tried again later."""

    def __init__(self, store: QuarantineStore, recorder: Records, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is passed over."""
        self._store, self._recorder, self._clock = store, recorder, clock
        self._passed_over: set[str] = set()
        self._again_at = 0.0

    async def once(self) -> int:
        """Publish one chunk and mark it; returns how many were dealt with. Raises StoreUnavailableError, LogError."""
        if self._clock() >= self._again_at:
            self._passed_over.clear()
        found = await self._store.unpublished(EVENTS_MAX, self._passed_over)
        events = []
        for each in found:
            if isinstance(each, Unreadable):
                self._pass_over(each.event_id, each.why)
            else:
                events.append(each)
        if events:
            await self._publish(events)
            await self._store.mark_published([event.event_id for event in events])
        return len(found)

    def _pass_over(self, event_id: str, why: str) -> None:
        """Leave an event where it is kept, unpublished."""
        if not self._passed_over:
            self._again_at = self._clock() + AGAIN_SECONDS
        self._passed_over.add(event_id)
        log.error("quarantine_event_not_published", event_id=event_id, why=why, again_in_seconds=AGAIN_SECONDS)

    async def _publish(self, events: Sequence[Event]) -> None:
        """All at once, or one by one when one is too large: that goes without its bytes, which stay in the outbox."""
        try:
            await self._recorder.record(events)
        except RecordRefusedError:
            if len(events) == 1:
                if not isinstance(events[0], QuarantinedRecord):
                    raise
                await self._recorder.record([msgspec.structs.replace(events[0], value_bytes=None, headers={})])
                return
            for event in events:
                await self._publish([event])


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    if seconds:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return
