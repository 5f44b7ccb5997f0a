"""Where charges are going: hours, projections, and what is out of the ordinary."""

from __future__ import annotations

from itertools import pairwise

import pytest

from processors.budgets import window_of
from processors.control import Limit
from processors.guardrails.forecast import anomaly_alert, burn_rate_alert, outlier, projection
from processors.guardrails.hours import (
    HOURS_PER_DAY,
    MICROS_PER_HOUR,
    Standing,
    charged_by_hour,
    counter_at,
    hour_of,
    is_projected,
)
from schemas.events import AlertKind, Severity
from tests.budget_world import NOW_MICROS
from tests.budget_world import limit_on as limit

#: 21 November 2026, 04:00 UTC: the hour that begins here.
HOUR = hour_of(NOW_MICROS)
DAY = limit("team", "search", 1_000, window="day", currency="EUR")


def hours(*amounts: int, last: int = HOUR - 1) -> dict[int, int]:
    """So much in each hour, the last of them ending now."""
    return {last - back: amount for back, amount in enumerate(reversed(amounts))}


def test_an_hour_is_charged_what_its_counter_moved() -> None:
    """From one standing to the next of the same window; the first of a window from nothing."""
    midnight = HOUR * MICROS_PER_HOUR
    standings = {
        HOUR - 2: Standing(5, 100),
        HOUR - 1: Standing(5, 130),
        HOUR: Standing(midnight, 7),
        HOUR + 1: Standing(midnight, 9),
        HOUR + 4: Standing(midnight, 20),
    }
    assert {HOUR - 1: 30, HOUR: 7, HOUR + 1: 2} == charged_by_hour(standings)


def test_an_hour_in_the_middle_of_which_a_window_began_can_not_be_told() -> None:
    """As in a zone that is half an hour off."""
    middle = HOUR * MICROS_PER_HOUR + MICROS_PER_HOUR // 2
    assert {} == charged_by_hour({HOUR - 1: Standing(5, 100), HOUR: Standing(middle, 7)})


@pytest.mark.parametrize(
    ("of", "projected"),
    [
        (DAY, True),
        (limit("team", "search", window="hour"), False),
        (limit("team", "search", window="total"), False),
        (limit("team", "*", window="day"), False),
        (limit("team", "search", window="month", valid_from=NOW_MICROS + 1), False),
    ],
)
def test_limits_on_one_thing_over_a_day_or_longer_are_projected(of: Limit, projected: bool) -> None:
    """Each run apart would be as many series as there are runs."""
    assert projected is is_projected(of, NOW_MICROS)


def test_a_projection_goes_on_at_the_mean_of_the_last_hours() -> None:
    """100 so far, ten an hour, twenty hours left; without any spread the interval is a point."""
    found = projection(hours(10, 10, 10, 10), 100, (HOUR + 20) * MICROS_PER_HOUR, NOW_MICROS)
    assert (300, 300, 300, 4) == found


def test_a_projection_states_its_interval() -> None:
    """1.2816 standard deviations times the root of the hours left, never below what is charged."""
    found = projection(hours(0, 20, 0, 20), 100, (HOUR + 16) * MICROS_PER_HOUR, NOW_MICROS)
    assert found is not None
    assert (260, 201, 319) == found[:3]
    steep = projection(hours(0, 0, 300), 100, (HOUR + 1) * MICROS_PER_HOUR, NOW_MICROS)
    assert steep is not None
    assert 100 == steep.low_nano


def test_a_projection_takes_a_day_of_hours_at_most() -> None:
    """What was before is another day's rate."""
    charged = hours(*[1_000] * 10, *[1] * HOURS_PER_DAY)
    assert (10, 10, 10, HOURS_PER_DAY) == projection(charged, 0, (HOUR + 10) * MICROS_PER_HOUR, NOW_MICROS)


@pytest.mark.parametrize("charged", [{}, hours(5, 5), hours(5, 5, 5, last=HOUR - 30)])
def test_too_few_hours_project_nothing(charged: dict[int, int]) -> None:
    """Three of the last day at least."""
    assert projection(charged, 100, (HOUR + 10) * MICROS_PER_HOUR, NOW_MICROS) is None


@pytest.mark.parametrize(
    ("charged", "posted", "severity"),
    [
        (hours(10, 10, 10), 100, None),
        (hours(50, 50, 50), 100, Severity.CRITICAL),
        (hours(0, 0, 150), 100, Severity.WARNING),
        (hours(50, 50, 50), 1_000, None),
    ],
)
def test_a_budget_that_will_not_last_is_told(charged: dict[int, int], posted: int, severity: Severity | None) -> None:
    """Critical when the whole interval is above the limit; not when it is gone already: that was told."""
    present = counter_at(DAY, NOW_MICROS)
    found = projection(charged, posted, present.window_end, NOW_MICROS)
    assert found is not None
    alert = burn_rate_alert(DAY, present, posted, found, NOW_MICROS)
    assert severity is (alert and alert.severity)
    if alert is not None:
        assert (AlertKind.BURN_RATE, found.expected_nano, posted) == (
            *(alert.kind, alert.expected_nano, alert.spent_nano),
        )
        assert "80 % interval" in alert.detail


def days(*amounts: int, today: int) -> dict[int, int]:
    """So much in the hour before now on the days before, and today."""
    last = HOUR - 1
    return {last - HOURS_PER_DAY * back: amount for back, amount in enumerate((today, *reversed(amounts)))}


@pytest.mark.parametrize(("today", "told"), [(20, False), (120, False), (121, True), (500, True)])
def test_an_hour_above_its_past_by_a_tenth_of_the_daily_limit_is_told(today: int, told: bool) -> None:
    """The limit is a thousand a day; the days before had from nothing to sixty."""
    assert told is (outlier(days(0, 60, 0, 20, 60, 20, 40, today=today), DAY, NOW_MICROS) is not None)


@pytest.mark.parametrize(("today", "told"), [(30, False), (31, True)])
def test_an_hour_far_outside_a_quiet_past_is_told(today: int, told: bool) -> None:
    """Twenty on every day, so every deviation is one; less than one per cent of the daily limit is noise."""
    assert told is (outlier(days(*[20] * 7, today=today), DAY, NOW_MICROS) is not None)


@pytest.mark.parametrize(
    ("past", "today", "expected"),
    [
        ((), 141, None),
        ((), 142, 41),
        ((0,) * 6, 141, None),
        ((0,) * 6, 142, 41),
        ((300,), 400, None),
        ((300,), 401, 300),
    ],
)
def test_without_a_week_an_even_share_of_the_day_is_expected(
    past: tuple[int, ...], today: int, expected: int | None
) -> None:
    """Or more, where the days that are known had more: a new budget, or one whose hours were lost, is watched too."""
    found = outlier(days(*past, today=today), DAY, NOW_MICROS)
    assert expected == (found and found.expected_nano)
    if found:
        assert "expected were at most" in anomaly_alert(DAY, found, NOW_MICROS).detail


def test_an_hour_that_is_not_known_is_not_unusual() -> None:
    """Whatever stands of others."""
    assert outlier({HOUR - 1 - HOURS_PER_DAY * 3: 900}, DAY, NOW_MICROS) is None


def test_a_monthly_limit_has_a_thirtieth_of_it_a_day() -> None:
    """So the rule means the same for every window."""
    monthly = limit("team", "search", 30_000, window="month")
    assert outlier(days(0, 60, 0, 20, 60, 20, 40, today=120), monthly, NOW_MICROS) is None
    assert outlier(days(0, 60, 0, 20, 60, 20, 40, today=121), monthly, NOW_MICROS) is not None


def test_an_unusual_hour_is_told_once() -> None:
    """Its id is that of limit and hour."""
    found = outlier(days(*[20] * 7, today=500), DAY, NOW_MICROS)
    assert found is not None
    first, second = (anomaly_alert(DAY, found, NOW_MICROS + later) for later in (0, 60))
    assert (AlertKind.ANOMALY, 500, 20) == (first.kind, first.spent_nano, first.expected_nano)
    assert first.event_id == second.event_id


def test_windows_follow_each_other_without_gap() -> None:
    """The counter of a moment is that of its window."""
    moments = [NOW_MICROS + hour * MICROS_PER_HOUR for hour in range(-30, 30)]
    counters = [counter_at(DAY, moment) for moment in moments]
    assert all(
        (one.window_start, one.window_end) == window_of("day", at, "UTC")
        for one, at in zip(counters, moments, strict=True)
    )
    assert all(a == b or a.window_end == b.window_start for a, b in pairwise(counters))
