"""What runs beside a sink: its fault ends the process in order, and is told."""

from __future__ import annotations

import asyncio

import pytest

from schemas.errors import StoreUnavailableError
from sinks.runner.beside import run_beside
from streams.monitor import Monitor

DEADLINE_SECONDS = 10


class Driven:
    """A sink that runs until it is told to stop."""

    def __init__(self, fault: Exception | None = None) -> None:
        """It may end with a fault of its own."""
        self.stop, self.ended, self._fault = asyncio.Event(), False, fault

    async def run(self) -> None:
        """Until told."""
        await self.stop.wait()
        self.ended = True
        if self._fault is not None:
            raise self._fault


async def dies() -> None:
    """Has a fault of its code."""
    raise ValueError("of its code")


async def ends() -> None:
    """Has no more to do."""


async def run(driven: Driven, monitor: Monitor, *others: asyncio.Future[None]) -> None:
    """With a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await run_beside(driven.run(), list(others), monitor, driven.stop)


async def test_a_fault_beside_ends_the_process() -> None:
    """The sink is told to stop and ends in order; then the fault comes out, and stands in the status."""
    driven, monitor = Driven(), Monitor("sink")

    with pytest.raises(ValueError, match="of its code"):
        await run(driven, monitor, asyncio.create_task(dies()))

    assert driven.ended
    assert (monitor.status()["state"], monitor.status()["detail"]) == ("failed", "ValueError: of its code")


async def test_a_store_that_is_away_at_the_end_does_not_hide_the_fault() -> None:
    """The first fault is the one to tell."""
    with pytest.raises(ValueError, match="of its code"):
        await run(Driven(StoreUnavailableError()), Monitor("sink"), asyncio.create_task(dies()))


async def test_an_end_beside_concerns_nobody() -> None:
    """The sink goes on until it is told."""
    driven, ending = Driven(), asyncio.create_task(ends())
    running = asyncio.create_task(run(driven, Monitor("sink"), ending))
    await ending
    assert not driven.stop.is_set()

    driven.stop.set()
    await running

    assert driven.ended


async def test_a_fault_of_the_sink_comes_out() -> None:
    """Whatever runs beside it."""
    driven, waiting = Driven(StoreUnavailableError("away")), asyncio.get_running_loop().create_future()
    driven.stop.set()

    with pytest.raises(StoreUnavailableError, match="away"):
        await run(driven, Monitor("sink"), waiting)


async def test_cancelling_it_cancels_the_sink() -> None:
    """Nothing runs on alone."""
    driven = Driven()
    running = asyncio.create_task(run(driven, Monitor("sink")))
    await asyncio.sleep(0)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running

    assert not driven.ended
