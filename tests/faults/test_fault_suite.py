"""A short run of the fault suite on real servers (`make faults` is the long one)."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.faults.gateways import gateways
from tests.faults.kills import kill_sinks, zombies
from tests.faults.outages import network
from tests.faults.poison import poison_at_edges
from tests.faults.report import Row
from tests.faults.sequencers import sequencers
from tests.faults.world import World

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
SEED = 20_261_121
#: Few, so that verifying every field of them takes no time.
STORIES_PER_SECOND = 15.0


def nothing() -> None:
    """No progress bar here."""


async def test_a_short_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Sinks killed and frozen, answers lost, messages cut, repeated and broken events: all stores equal the log."""
    world = World(tmp_path, Random(SEED))
    rows: list[Row] = []
    try:
        await world.start(STORIES_PER_SECOND)
        rows += await kill_sinks(world, 1, nothing)
        rows += await zombies(world, 1, nothing, ("redis",))
        rows += await network(world, 1, nothing)
        rows += await poison_at_edges(world, nothing)
    finally:
        await world.close()
    assert [row.as_json() for row in rows if not row.ok] == []


def test_gateways_killed_in_their_calls_leave_no_hold(tmp_path: Path) -> None:
    """Kill -9 of one gateway after the other under hard limits: no hold leaks, nothing is overspent or unrecorded."""
    (row,) = gateways(tmp_path, Random(SEED), 6, nothing)
    assert (6, True) == (row.rounds, row.ok), row.worded()


def test_sequencers_killed_and_in_pairs_write_one_history(tmp_path: Path) -> None:
    """Kill -9 at any moment under load, and two at once: each checkpoint is the beginning of the next, all verifies."""
    (row,) = sequencers(tmp_path, Random(SEED), 8, nothing)
    assert (8, True) == (row.rounds, row.ok), row.worded()
