"""How long the runner lets the calls of a sink take, as the seam says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal

import pytest

from sinks.fake import MemorySink, MemoryStore
from sinks.runner import runner
from sinks.runner.runner import run_sink
from streams.log import Partition
from streams.memory import MemoryLog
from tests.unit.sinks.test_runner import (
    DEADLINE_SECONDS,
    ENCODER,
    Seen,
    assert_all_there,
    at_end,
    publish,
    stories,
    until,
)

Call = Literal["open", "claim", "heartbeat", "release"]


class Stuck(MemorySink):
    """One of its calls ends only by being cancelled."""

    def __init__(self, call: Call) -> None:
        """On an empty store."""
        super().__init__(MemoryStore(), "stuck")
        self._stuck_in = call
        self.begun = self.cancelled = 0

    async def _may_hang(self, call: Call) -> None:
        if call != self._stuck_in:
            return
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    async def open(self) -> None:
        """As the seam says."""
        await self._may_hang("open")
        await super().open()

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """As the seam says."""
        await self._may_hang("claim")
        return await super().claim(partitions, topic_ids)

    async def heartbeat(self, end_offsets: Mapping[Partition, int]) -> None:
        """As the seam says."""
        await self._may_hang("heartbeat")

    async def release(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        await self._may_hang("release")
        await super().release(partitions)


class World:
    """A runner of a sink that is stuck somewhere."""

    def __init__(self, call: Call) -> None:
        """It runs; needs an event loop."""
        self.log, self.sink, self.seen, self._stop = MemoryLog(), Stuck(call), Seen(), asyncio.Event()
        reader = self.log.group_reader("memory@v1")
        self._task = asyncio.create_task(run_sink(self.sink, reader, ENCODER, self.seen, self._stop, Random(1)))

    async def stop(self) -> None:
        """Ends once the runner has."""
        self._stop.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._task


@pytest.mark.parametrize("call", ["open", "claim"])
async def test_what_has_no_limit_is_cancelled_when_the_process_stops(call: Call) -> None:
    """It may wait for a store that never comes, but not keep the process."""
    world = World(call)
    await until(lambda: world.sink.begun == 1)
    assert world.sink.cancelled == 0

    await world.stop()

    await until(lambda: world.sink.cancelled == 1)


async def test_a_heartbeat_that_does_not_end_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner says that it waits for the store, and writes all the same."""
    monkeypatch.setattr(runner, "METADATA_SECONDS", 0.01)
    world = World("heartbeat")
    await until(lambda: world.sink.cancelled > 0)
    publish(world.log, stories(5))
    await until(lambda: at_end(world.log, world.sink.store))
    await world.stop()

    assert world.seen.waits
    assert_all_there(world.log, world.sink.store)


async def test_a_release_that_does_not_end_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends without it."""
    monkeypatch.setattr(runner, "DRAIN_SECONDS", 0.2)
    world = World("release")
    publish(world.log, stories(5))
    await until(lambda: at_end(world.log, world.sink.store))

    await world.stop()

    await until(lambda: world.sink.begun == world.sink.cancelled > 0)
