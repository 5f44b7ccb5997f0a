"""What ends a hold that folds may have forgotten never enters the log: it is put aside, told, and can come in later."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from api.gateway.spool import Spool, aside_files, read_groups
from schemas.events import BudgetEvent, BudgetKind
from schemas.limits import HOLD_MARGIN_SECONDS, HOLD_TOMBSTONE_SECONDS
from tests.budget_world import Events, hold_id, leg
from tests.support.gateway_world import World

MICROS_PER_HOUR = 3_600_000_000
#: How old what is still in time may be, hours.
IN_TIME = (HOLD_TOMBSTONE_SECONDS - HOLD_MARGIN_SECONDS) / 3_600


def committed(hours: float) -> BudgetEvent:
    """The commit of a hold that was made so long ago."""
    made = time.time_ns() // 1_000 - round(hours * MICROS_PER_HOUR)
    make = Events(now_micros=made)
    return make.committed(make.placed(hold_id(1, made), leg(10)), 6)


async def left(directory: Path, *groups: list[BudgetEvent]) -> None:
    """A spool of a gateway whose host went away."""
    spool = Spool(directory, "gateway-dead")
    for group in groups:
        await spool.append(group)
    spool.close()


@pytest.mark.parametrize(
    ("hours", "is_late"), [(IN_TIME - 0.1, False), (IN_TIME + 0.1, True), (64, True), (-0.9, False), (-1.1, True)]
)
async def test_a_commit_later_than_folds_remember_is_put_aside(tmp_path: Path, hours: float, is_late: bool) -> None:
    """With all of its group, whole; admission opens. What is of the future has no age that can be told."""
    world, group = World(tmp_path), [committed(hours)]
    await left(world.options.spool_directory, group)
    async with world:
        recorded = world.kinds()
    aside = [each for path in aside_files(world.options.spool_directory) for each in read_groups(path)]

    assert (([], [group]) if is_late else (["budgets COMMITTED"], [])) == (recorded, aside)


async def test_what_follows_in_the_same_file_is_recorded(tmp_path: Path) -> None:
    """One late group holds nothing up."""
    world, late, good = World(tmp_path), committed(64), committed(1)
    await left(world.options.spool_directory, [late], [good])
    async with world:
        recorded = world.events("budgets")

    assert [good] == recorded


async def test_a_machine_that_slept_in_the_middle_of_a_call_puts_its_end_aside(tmp_path: Path) -> None:
    """The lease was over days ago, though to the process no time went by."""
    async with World(tmp_path) as world:
        await world.journal.conclude([committed(64)], None)
        recorded = world.kinds()

    assert ([], 1) == (recorded, len(aside_files(world.options.spool_directory)))


async def test_what_was_put_aside_comes_in_where_folds_are_told_to_remember_longer(tmp_path: Path) -> None:
    """The steps of docs/reference/gateway.md: a longer memory, the file's name, and a gateway takes it."""
    world, commit = World(tmp_path), committed(64)
    await left(world.options.spool_directory, [commit])
    async with world:
        (aside,) = aside_files(world.options.spool_directory)
    aside.rename(aside.with_suffix(".spool"))

    async with World(tmp_path, hold_tombstone_seconds=7 * 86_400) as again:
        kinds = [event.kind for event in again.events("budgets") if isinstance(event, BudgetEvent)]

    assert ([BudgetKind.COMMITTED], []) == (kinds, aside_files(world.options.spool_directory))
