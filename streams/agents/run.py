"""Runs Faust applications inside our own loop, until told to stop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from schemas.errors import LogUnavailableError
from streams.agents.application import faust_application
from streams.agents.provider_health import provider_health
from streams.codec import Codec
from streams.garbage import collect_seldom
from streams.log import Membership
from streams.monitor import Monitor
from streams.waiting import prepared


async def run_health(
    bootstrap: str, codec: Codec, monitor: Monitor, stop: asyncio.Event, data: Path, membership: Membership
) -> None:
    """Watch providers on Kafka until `stop`; raises LogUnavailableError when Faust gave up."""
    if not await prepared(codec, monitor, stop):
        return
    collect_seldom()
    application = faust_application("health", bootstrap, data, membership)
    provider_health(application, codec, monitor)
    await run_application(application, monitor, stop)


async def run_application(application: Any, monitor: Monitor, stop: asyncio.Event) -> None:
    """Start it, wait for `stop` or its crash, stop it; raises LogUnavailableError after a crash."""
    running = asyncio.create_task(_run(application))
    stopped = asyncio.create_task(stop.wait())
    ends: set[asyncio.Task[Any]] = {running, stopped}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if running.done() and running.exception() is not None:
            raise LogUnavailableError(f"the stream gave up: {running.exception()!r}")
    finally:
        monitor.set(state="stopping")
        stopped.cancel()
        running.cancel()
        await application.stop()


async def _run(application: Any) -> None:
    """Until it is stopped; raises what it crashed of."""
    await application.start()
    await application.wait_until_stopped()
    if application.crash_reason is not None:
        raise application.crash_reason
