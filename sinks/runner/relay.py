"""Relays the quarantine outbox to quaestor.quarantine and .alerts: at least once; ids make a repeat harmless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from random import Random
from typing import Protocol

import msgspec
import structlog

from schemas.errors import (
    CodecError,
    LogError,
    QuaestorError,
    RecordRefusedError,
    SchemaUnknownError,
    StoreUnavailableError,
)
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
        """Publish one chunk and mark what went; returns how many were dealt with.

        Raises StoreUnavailableError, LogError, and SchemaUnknownError while our own schemas are not registered.
        """
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
        return len(found)

    def _pass_over(self, event_id: str, why: str) -> None:
        """Leave an event where it is kept, unpublished."""
        if not self._passed_over:
            self._again_at = self._clock() + AGAIN_SECONDS
        self._passed_over.add(event_id)
        log.error("quarantine_event_not_published", event_id=event_id, why=why, again_in_seconds=AGAIN_SECONDS)

    async def _publish(self, events: Sequence[Event]) -> None:
        """All at once, or each by itself when one of them is not taken."""
        if await self._refusal(events) is None:
            await self._store.mark_published([event.event_id for event in events])
            return
        for event in events:
            await self._publish_one(event)

    async def _publish_one(self, event: Event) -> None:
        """As whole as it is taken; marked at once, so that it does not go again with a neighbour that must wait."""
        why = ""
        for form in forms_of(event):
            refusal = await self._refusal([form])
            if refusal is None:
                await self._store.mark_published([event.event_id])
                return
            why = str(refusal)
        self._pass_over(event.event_id, why)

    async def _refusal(self, events: Sequence[Event]) -> QuaestorError | None:
        """Why these can't be published as they are; None when they are. Raises what is away."""
        try:
            await self._recorder.record(events)
        except SchemaUnknownError:
            raise  # about the registry, not about the event
        except (RecordRefusedError, CodecError) as error:
            return error
        return None


def forms_of(event: Event) -> Iterator[Event]:
    """An event as it is kept, and what is told of it where that is too large: without its bytes, then without its key.

    An order_key goes as its hash, so that what waits for the same is still known as such. All of it stays in the
    outbox, and the record at its offset.
    """
    yield event
    if isinstance(event, QuarantinedRecord):
        small = msgspec.structs.replace(event, value_bytes=None, headers={})
        yield small
        order_key = None if event.order_key is None else f"sha256:{sha256(event.order_key.encode()).hexdigest()}"
        yield msgspec.structs.replace(small, key_bytes=None, order_key=order_key)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    if seconds:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return
