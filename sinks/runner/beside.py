"""What runs beside a sink: whoever dies there ends the process, so that it is started again and somebody is told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from schemas.errors import QuaestorError
from streams.monitor import Monitor


async def run_beside(
    driven: Coroutine[Any, Any, None], others: list[asyncio.Future[None]], monitor: Monitor, stop: asyncio.Event
) -> None:
    """Return when `driven` has ended; raises what it raises, or the first fault of the others.

    On such a fault `stop` is set, and what is under way ends in order first. An end without a fault concerns nobody.
    """
    driving = asyncio.create_task(driven)
    waiting: set[asyncio.Future[None]] = {driving, *others}
    try:
        while not driving.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            fault = next(filter(None, map(_fault_of, done - {driving})), None)
            if fault is not None:
                monitor.set(state="failed", detail=_told(fault))
                stop.set()
                with suppress(QuaestorError):  # the first fault is the one to tell
                    await driving
                raise fault
        await driving
    finally:
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)


def _fault_of(ended: asyncio.Future[None]) -> BaseException | None:
    return None if ended.cancelled() else ended.exception()


def _told(fault: BaseException) -> str:
    """A fault of ours is a sentence; of another its type says more."""
    return str(fault) if isinstance(fault, QuaestorError) else f"{type(fault).__name__}: {fault}"
