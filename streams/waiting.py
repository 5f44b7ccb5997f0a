"""How a process waits for what is away: pauses between attempts, and the schema registry before the first record."""

from __future__ import annotations

import asyncio

from schemas.errors import LogUnavailableError
from schemas.limits import RETRY_SECONDS_MAX
from streams.codec import Codec
from streams.monitor import Monitor

BACK_OFF_SECONDS = 0.1
PREPARE_SECONDS = 1.0


def back_off_seconds(failures: int) -> float:
    """From 0.1 s on it doubles up to the limit: 0.1, 0.2, 0.4, 0.8, 1.6."""
    return min(BACK_OFF_SECONDS * float(2 ** min(failures - 1, 16)), float(RETRY_SECONDS_MAX))


async def prepared(codec: Codec, monitor: Monitor, stop: asyncio.Event) -> bool:
    """Learn the schema ids before the first record; False when told to stop before."""
    while not stop.is_set():
        try:
            await asyncio.to_thread(codec.prepare)
        except LogUnavailableError:
            monitor.set(state="waiting")
            await asyncio.sleep(PREPARE_SECONDS)
        else:
            return True
    return False
