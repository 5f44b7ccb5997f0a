"""Where a sink's time goes is told step by step."""

from __future__ import annotations

from typing import Any, cast

import pytest

from schemas.topics import COSTS
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.sink import ClickHouseSink
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, Span
from sinks.runner.steps import Steps
from streams.runs import runs_of
from tests.support.clickhouse_sink import RememberedRanges
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

ENCODER = codec()


class TakesAll:
    """A ClickHouse that keeps nothing."""

    database = "nothing"

    async def open(self) -> None:
        """Nothing to do."""

    async def query(self, *_arguments: Any) -> list[Any]:
        """No rows."""
        return []

    async def insert(self, *_arguments: Any) -> None:
        """Taken."""


def test_a_step_that_is_taken_again_adds_up() -> None:
    """However each of them ended."""
    steps = Steps()
    with steps.step("insert"):
        pass
    once = steps["insert"]
    with pytest.raises(ValueError, match="broken"), steps.step("insert"):
        raise ValueError("broken")

    assert steps["insert"] > once
    assert list(steps) == ["insert"]


async def test_the_clickhouse_sink_tells_its_steps() -> None:
    """Rows, plan, insert and settle, in this order, of the last write alone."""
    sink = ClickHouseSink(cast("ClickHouse", TakesAll()), MemoryPlanStore(), RememberedRanges())
    records = [each for each in Offsets().records(ENCODER, request_story(1)) if each.topic == COSTS.name]
    ((at, screened),) = Screen(ENCODER, "test@v1").screen_runs(runs_of(records), TOPIC_ID, 1, together=False).items()
    await sink.open()
    await sink.claim([at], {at.topic: TOPIC_ID})
    first, after = screened.records[0].offset, screened.records[-1].offset + 1
    await sink.write(Batch([Span(at, TOPIC_ID, first, after, screened.records)], 1))
    told = list(sink.steps)
    await sink.write(Batch([], 1))

    assert (told, list(sink.steps)) == (["rows", "plan", "insert", "settle"], [])
