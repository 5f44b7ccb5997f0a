"""A limit that is changed by its amount alone: its windows, and what was spent in them, stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from processors.control import Limit
from tests.support.control_commands import APP, RUNNER, Control
from tests.support.gateway_world import World, control_state

ZONE = "Europe/Brussels"
SET = ("budget", "set", "--tenant", "acme", "--window", "day")
FROM, UNTIL = "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


def the_limit(commands: Control) -> Limit:
    """The only one."""
    (found,) = commands.state().limits.values()
    return found


async def test_what_is_spent_counts_after_a_change_of_the_amount(commands: Control, tmp_path: Path) -> None:
    """A call fits and is charged, the amount is set anew with room for no other, and the next one is refused."""
    commands.run(*SET, "--amount", "0.001", "--time-zone", ZONE)
    async with World(tmp_path, state=control_state(limits=(the_limit(commands),))) as world:
        first = await world.call()
        commands.run(*SET, "--amount", "0.0004")
        world.with_state(limits=(the_limit(commands),))
        second = await world.call()

    assert (200, 429) == (first.status, second.status)


def test_what_nobody_says_stays_as_it_was(commands: Control) -> None:
    """Zone and times."""
    commands.run(*SET, "--amount", "5", "--time-zone", ZONE, "--from", FROM, "--until", UNTIL)
    before = the_limit(commands)

    commands.run(*SET, "--amount", "7")

    after = the_limit(commands)
    assert (7_000_000_000, ZONE, before.valid_from, before.valid_until) == (
        *(after.amount_nano, after.time_zone, after.valid_from, after.valid_until),
    )


def test_a_bound_is_taken_away_by_none(commands: Control) -> None:
    """In force always and for ever."""
    commands.run(*SET, "--amount", "5", "--from", FROM, "--until", UNTIL)

    commands.run(*SET, "--amount", "5", "--from", "none", "--until", "none")

    assert (None, None) == (the_limit(commands).valid_from, the_limit(commands).valid_until)


def test_another_zone_is_refused_with_what_to_do(commands: Control) -> None:
    """It would begin at nothing."""
    commands.run(*SET, "--amount", "5", "--time-zone", ZONE)

    message = commands.refusal(*SET, "--amount", "5", "--time-zone", "UTC")

    assert all(part in message for part in (ZONE, "leave the time zone out", "--name"))


@pytest.mark.parametrize("window", ["minute", "total"])
def test_a_window_that_all_zones_share_may_change_its_zone(commands: Control, window: str) -> None:
    """Its counters stay the same."""
    given = (*SET[:-1], window, "--amount", "5")
    commands.run(*given, "--time-zone", ZONE)

    commands.run(*given, "--time-zone", "UTC")

    assert "UTC" == the_limit(commands).time_zone


def test_a_profile_set_again_keeps_its_zone(commands: Control) -> None:
    """The zone that was chosen for it, not the one it comes with."""
    profile = ("budget", "profile", "eu-default", "--tenant", "acme")
    commands.run(*profile, "--time-zone", "Europe/Rome")

    commands.run(*profile)

    assert {"Europe/Rome"} == {limit.time_zone for limit in commands.state().limits.values()}


@pytest.mark.parametrize(
    ("place", "window", "is_told"),
    [
        (("--run", "*"), "total", True),
        (("--user", "*"), "total", True),
        (("--run", "*"), "month", False),
        (("--run", "one"), "total", False),
    ],
)
def test_counters_that_never_end_are_told_of(
    commands: Control, place: tuple[str, str], window: str, is_told: bool
) -> None:
    """Where a limit keeps one for each run that ever was, and a window that ends would not."""
    result = RUNNER.invoke(APP, (*SET[:-1], window, "--amount", "5", *place))

    assert (0, is_told) == (result.exit_code, "keeps a counter for good" in result.stderr)
