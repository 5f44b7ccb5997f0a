"""Relays the quarantine outbox to quaestor.quarantine and .alerts: at least once; ids make a repeat harmless."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Protocol

import msgspec
import structlog

from schemas.errors import CodecError, LogError, RecordRefusedError, StoreUnavailableError
from schemas.events import Event, QuarantinedRecord
from sinks.runner.backoff import Backoff
from sinks.runner.seam import QuarantineStore

log = structlog.get_logger()

RECORDS_MAX = 200
IDLE_SECONDS = 1.0


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
    while not stop.is_set():
        try:
            published = await relay_once(store, recorder)
            backoff.reset()
            delay_seconds = 0.0 if published == RECORDS_MAX else IDLE_SECONDS
        except (StoreUnavailableError, LogError, CodecError) as error:
            delay_seconds = backoff.next_seconds()
            log.warning("quarantine_relay_waits", error=str(error))
        await _pause(stop, delay_seconds)


async def relay_once(store: QuarantineStore, recorder: Records) -> int:
    """Publish one chunk and mark it; returns how many. Raises StoreUnavailableError, LogError."""
    records = await store.unpublished(RECORDS_MAX)
    if records:
        await _publish(recorder, records)
        await store.mark_published([record.event_id for record in records])
    return len(records)


async def _publish(recorder: Records, records: Sequence[Event]) -> None:
    """All at once, or one by one when one is too large: that one goes without its bytes, which stay in the outbox."""
    try:
        await recorder.record(records)
    except RecordRefusedError:
        if len(records) == 1:
            if not isinstance(records[0], QuarantinedRecord):
                raise
            await recorder.record([msgspec.structs.replace(records[0], value_bytes=None, headers={})])
            return
        for record in records:
            await _publish(recorder, [record])


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    if seconds:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return
