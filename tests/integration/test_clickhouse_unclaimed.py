"""A plan that was left open and can't be completed: its partition stops, whoever claims it, and no other does."""

from __future__ import annotations

from random import Random

import pytest

from sinks.clickhouse import sink as sink_module
from sinks.runner.screen import Screen
from sinks.runner.writer import Writer
from streams.log import Partition
from tests.integration.test_clickhouse_sink import World, world  # noqa: F401 - fixtures of that module
from tests.integration.test_clickhouse_traps import crashed, insert, part
from tests.support.sink_harnesses import ENCODER
from tests.support.stories import TOPIC_ID
from tests.unit.sinks.test_runner import Seen

pytestmark = pytest.mark.stack
LEDGER = Partition("quaestor.ledger", 0)


async def test_a_plan_with_more_rows_than_it_has_stops_its_partition_alone(world: World) -> None:  # noqa: F811
    """An old plan is counted; what is too much is for a person to look at, and other partitions go on."""
    await crashed(world, part(0, 30))
    await insert(world, part(0, 10), "by hand")
    world.plans.age_seconds = sink_module.TRUSTED_AGE_SECONDS + 1.0
    (costs,) = [span.partition for span in part(0, 30).spans]
    sink = world.sink()
    await sink.open()
    writer = Writer(sink, Screen(ENCODER, sink.projection), Seen(), None, Random(1))
    cursors, broken = await writer.claim([costs, LEDGER], dict.fromkeys((costs.topic, LEDGER.topic), TOPIC_ID))
    await sink.close()

    assert {LEDGER: 0} == cursors
    assert [costs] == list(broken)
    assert "has 30 rows, 40 are there" in broken[costs]
