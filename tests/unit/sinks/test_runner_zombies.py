"""A sink process that was frozen wakes up: it must not take back what the group has given to others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest

from schemas.errors import FencedError
from sinks.fake import MemorySink, MemoryStore
from sinks.runner import runner
from sinks.runner.runner import run_sink
from sinks.runner.seam import Progress
from streams.log import Partition
from streams.memory import MemoryLog
from tests.support.stories import codec
from tests.unit.sinks.test_runner import Seen, until

ENCODER = codec()


class Frozen(MemorySink):
    """Its store tells it at a heartbeat that another owner took over."""

    def __init__(self, store: MemoryStore) -> None:
        """Awake."""
        super().__init__(store, "frozen")
        self.is_fenced = False
        self.claims = 0

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """As the seam says."""
        self.claims += 1
        return await super().claim(partitions, topic_ids)

    async def heartbeat(self, end_offsets: Mapping[Partition, int]) -> None:
        """As the seam says."""
        if self.is_fenced and end_offsets:
            raise FencedError("everything", 1)


async def test_a_fenced_process_claims_only_what_the_group_confirms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claiming at once would fence the owner that took over, and stall it."""
    monkeypatch.setattr(runner, "RECLAIM_SECONDS", 0.01)
    log = MemoryLog()
    reader: Any = log.group_reader("memory@v1")
    is_confirmed = False
    asked: list[Mapping[Partition, int]] = []

    def confirm(cursors: Mapping[Partition, int]) -> bool:
        asked.append(cursors)
        return is_confirmed

    reader.confirm = confirm
    sink, stop, progress = Frozen(MemoryStore()), asyncio.Event(), Seen()
    told: Progress = progress
    task = asyncio.create_task(run_sink(sink, reader, ENCODER, told, stop, Random(1)))
    await until(lambda: sink.claims == 1)
    sink.is_fenced = True
    await until(lambda: len(asked) > 2)
    assert sink.claims == 1

    sink.is_fenced, is_confirmed = False, True
    await until(lambda: sink.claims == 2)

    stop.set()
    await task
