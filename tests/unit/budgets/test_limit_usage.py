"""How far limits are used up."""

from __future__ import annotations

import pytest

from processors.budgets import Counter, Sums, window_of
from processors.budgets.usage import LimitUsage, usage_of
from processors.control import Increase, Limit
from tests.budget_world import NOW_MICROS

DAY = window_of("day", NOW_MICROS)
YESTERDAY = (DAY[0] - 86_400_000_000, DAY[0])


def limit(limit_id: str = "lim_a", scope_id: str = "acme", **fields: object) -> Limit:
    """A limit of a hundred a day."""
    made = {"tenant_id": "acme", "scope": "tenant", "amount_nano": 100, "currency": "USD", "window": "day"}
    return Limit(limit_id=limit_id, scope_id=scope_id, **(made | fields))  # type: ignore[arg-type]  # as a limit has them


def counter(name: str = "lim_a", window: tuple[int, int] = DAY) -> Counter:
    """A counter of dollars."""
    return Counter(name, "USD", *window)


def used(
    *limits: Limit, sums: dict[Counter, Sums] | None = None, pending: dict[Counter, int] | None = None
) -> list[LimitUsage]:
    """The usage of limits now."""
    return usage_of(limits, sums or {}, pending or {}, NOW_MICROS)


def test_what_is_left_is_what_is_neither_charged_nor_held() -> None:
    """Holds that the log has not confirmed count too."""
    (one,) = used(limit(), sums={counter(): Sums(40, 20)}, pending={counter(): 5})
    assert (one.posted_nano, one.held_nano, one.left_nano, one.percent) == (40, 25, 35, 40)


def test_another_window_is_not_the_present_one() -> None:
    """Yesterday's charge leaves today's room."""
    (one,) = used(limit(), sums={counter(window=YESTERDAY): Sums(90, 0)})
    assert (one.counter, one.left_nano) == (counter(), 100)


def test_an_increase_in_force_is_allowed() -> None:
    """It is in what is left."""
    more = Increase(amount_nano=50, valid_from=0, valid_until=NOW_MICROS + 1, approval_code="A-1")
    assert [one.left_nano for one in used(limit(increases=(more,)))] == [150]


def test_a_limit_on_each_shows_everyone_that_was_met_the_most_used_first() -> None:
    """Nobody who was not."""
    each = limit("lim_r", "*", scope="run")
    assert used(each) == []
    sums = {counter("lim_r.aa"): Sums(1, 0), counter("lim_r.bb"): Sums(7, 0)}
    assert [one.counter.limit_id for one in used(each, sums=sums)] == ["lim_r.bb", "lim_r.aa"]


def test_a_name_that_ends_in_a_star_is_one_thing() -> None:
    """Such limits on models were taken once; they show that nothing counts."""
    old = limit("lim_m", "gpt-4o*", scope="model")
    assert [(one.counter, one.percent) for one in used(old)] == [(counter("lim_m"), 0)]


def test_a_limit_that_is_not_in_force_is_not_shown() -> None:
    """It will begin, or is over."""
    assert used(limit(valid_from=NOW_MICROS + 1), limit(valid_until=NOW_MICROS)) == []


@pytest.mark.parametrize(("posted", "percent"), [(0, 0), (79, 79), (100, 100), (130, 130)])
def test_per_cent_are_of_what_is_charged(posted: int, percent: int) -> None:
    """An overage is above a hundred."""
    (one,) = used(limit(), sums={counter(): Sums(posted, 50)})
    assert one.percent == percent


def test_a_limit_of_nothing_is_full() -> None:
    """And divides by nothing."""
    assert [one.percent for one in used(limit(amount_nano=0))] == [100]
