"""How long the fold of the live store remembers how holds ended."""

from __future__ import annotations

from processors.budgets.live import LiveFold, Movement
from tests.budget_world import hold_id

DAY_MILLIS = 86_400_000
#: Made long before the log was written.
THEN_MILLIS, NOW_MILLIS = 1_700_000_000_000, 1_795_233_600_000
WORDS = ("lim|USD|0|0", "30")


def ended(number: int, millis: int) -> list[Movement]:
    """A hold placed and charged."""
    name = hold_id(number, millis * 1_000)
    return [(0, "PLACED", name, WORDS), (1, "COMMITTED", name, WORDS)]


def posted(fold: LiveFold) -> int:
    """What is charged."""
    return fold.tenants["acme"].posted[WORDS[0]]


def test_a_hold_of_a_log_that_was_written_late_is_remembered() -> None:
    """Events produced twice count once, also where the ids are years older than their records."""
    fold = LiveFold()
    fold.apply("acme", ended(1, THEN_MILLIS), 2)
    fold.forget(NOW_MILLIS)
    fold.apply("acme", ended(1, THEN_MILLIS), 4)
    assert (30, {}) == (posted(fold), fold.tenants["acme"].holds)


def test_a_hold_is_forgotten_when_younger_ones_are_a_day_and_some_hours_ahead() -> None:
    """By the time in their ids; memory is bounded."""
    fold = LiveFold()
    fold.apply("acme", ended(1, THEN_MILLIS), 2)
    fold.apply("acme", ended(2, THEN_MILLIS + 2 * DAY_MILLIS), 4)
    fold.forget(NOW_MILLIS)
    assert 1 == fold.remembered


def test_an_id_of_the_future_makes_nothing_forgotten() -> None:
    """A clock that is wrong by days is not believed beyond the log's own time."""
    fold = LiveFold()
    fold.apply("acme", ended(1, NOW_MILLIS), 2)
    fold.apply("acme", ended(2, NOW_MILLIS + 30 * DAY_MILLIS), 4)
    fold.forget(NOW_MILLIS)
    assert 2 == fold.remembered
