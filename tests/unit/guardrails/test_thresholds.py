"""Which thresholds are reached, and what is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from processors.budgets import Counter, counter_of
from processors.control import Increase, Limit, Threshold
from processors.guardrails import crossings, overage_alert, refusal_alert, threshold_alert
from schemas.events import AlertKind, BudgetKind, Severity
from tests.budget_world import NOW_MICROS
from tests.budget_world import limit_on as limit
from tests.support import events

WINDOW = (NOW_MICROS - 1_000, NOW_MICROS + 1_000)


def counter(of: Limit) -> Counter:
    """A counter of the limit whose window is on."""
    return Counter(of.limit_id, of.currency, *WINDOW)


def percents(of: Limit, posted_nano: int, now_micros: int = NOW_MICROS) -> list[int]:
    """The thresholds reached."""
    return [one.threshold.percent for one in crossings(of, counter(of), posted_nano, now_micros)]


@pytest.mark.parametrize(
    ("window", "posted", "reached"),
    [
        ("day", 79, []),
        ("day", 80, [80]),
        ("month", 84, []),
        ("month", 85, [85]),
        ("month", 94, [85]),
        ("month", 250, [85, 95]),
        ("minute", 100, []),
        ("hour", 100, []),
        ("week", 100, []),
        ("total", 100, []),
    ],
)
def test_a_limit_that_says_nothing_has_the_thresholds_of_its_window(
    window: str, posted: int, reached: list[int]
) -> None:
    """80 a day, 85 and 95 a month, none of the others; reached exactly at the per cent."""
    assert reached == percents(limit("tenant", "acme", 100, window=window), posted)


def test_a_limit_has_the_thresholds_it_names() -> None:
    """And no others; none when it names none."""
    named = limit("tenant", "acme", 100, thresholds=(Threshold(percent=10), Threshold(percent=120)))
    assert ([10], []) == (percents(named, 90), percents(limit("tenant", "acme", 100, thresholds=()), 100))


def test_nothing_charged_reaches_nothing() -> None:
    """Not even of a limit of nothing."""
    assert [] == percents(limit("tenant", "acme", 0), 0)


def test_anything_charged_reaches_all_of_a_limit_of_nothing() -> None:
    """A soft one: a hard one admits no call."""
    assert [85, 95] == percents(limit("tenant", "acme", 0, hard=False), 1)


def test_an_increase_moves_the_thresholds_while_it_lasts() -> None:
    """85 per cent of what is allowed then."""
    more = Increase(amount_nano=100, valid_from=NOW_MICROS, valid_until=NOW_MICROS + 10, approval_code="A")
    raised = limit("tenant", "acme", 100, increases=(more,))
    assert [[85], [], [], [85]] == [percents(raised, 90, NOW_MICROS + later) for later in (-1, 0, 9, 10)]


def test_a_counter_whose_window_is_over_is_judged_by_the_limit_at_its_end() -> None:
    """A late charge tells of the window it belongs to."""
    ended = limit("tenant", "acme", 100, valid_until=WINDOW[1])
    assert [85] == percents(ended, 90, NOW_MICROS + 1_000_000)


def test_a_limit_that_is_not_in_force_tells_nothing() -> None:
    """It counts on, and nobody asked."""
    assert [] == percents(limit("tenant", "acme", 100, valid_from=NOW_MICROS + 5), 90)


def told(**fields: Any) -> Any:
    """The alert of the first threshold of a limit with 90 of 100 charged."""
    made = limit("tenant", "acme", 100_000_000_000, **fields)
    return threshold_alert(crossings(made, counter(made), 90_000_000_000, NOW_MICROS)[0], NOW_MICROS)


def test_an_alert_says_how_much_of_what_is_used() -> None:
    """In words for people, in figures for programs."""
    alert = told(currency="EUR")
    assert "acme: 85% of the budget of tenant acme, a month is used" == alert.title
    assert alert.detail.startswith("90.00 of 100.00 EUR are charged.")
    figures = (alert.spent_nano, alert.allowed_nano, alert.currency, alert.threshold, alert.action)
    assert (90_000_000_000, 100_000_000_000, "EUR", "85%", "notify") == figures


@pytest.mark.parametrize(
    ("threshold", "severity", "says"),
    [
        (Threshold(percent=80), Severity.WARNING, "charged. Limit"),
        (Threshold(percent=90), Severity.WARNING, "charged. Limit"),
        (Threshold(percent=50, action="block"), Severity.CRITICAL, "calls are refused"),
        (Threshold(percent=50, action="approval"), Severity.WARNING, "x-quaestor-approval"),
        (Threshold(percent=50, action="cheaper", models=("small", "tiny*")), Severity.WARNING, "small, tiny*"),
    ],
)
def test_an_alert_says_what_the_gateway_does_from_here_on(threshold: Threshold, severity: Severity, says: str) -> None:
    """And how urgent it is."""
    alert = told(thresholds=(threshold,))
    assert (severity, True) == (alert.severity, says in alert.detail)


def test_the_same_threshold_of_the_same_window_is_the_same_alert() -> None:
    """By its id, whatever was charged meanwhile; another threshold, window or thing is another one."""
    made = limit("tenant", "acme", 100)
    here = counter(made)
    next_window = here._replace(window_start=WINDOW[1], window_end=WINDOW[1] + 5)
    ids = [
        [threshold_alert(one, NOW_MICROS).event_id for one in crossings(made, of, posted, NOW_MICROS)]
        for of, posted in ((here, 96), (here, 300), (next_window, 96), (here._replace(limit_id="lim_other.ab"), 96))
    ]
    assert ids[0] == ids[1]
    assert 6 == len({*ids[0], *ids[2], *ids[3]})


def test_an_overage_is_told_with_what_was_above_the_hold() -> None:
    """Once per window: its id is that of the counter."""
    made = limit("tenant", "acme", 100)
    leg = events.leg(made.limit_id, 2_500_000_000)
    of = counter_of(leg)
    calls = (events.budget(BudgetKind.OVERAGE, f"h{number}", f"e{number}", leg) for number in (1, 2))
    first, second = (overage_alert(made, call, leg, of, NOW_MICROS) for call in calls)
    assert (AlertKind.OVERAGE, True) == (first.kind, first.detail.startswith("2.50 USD above its hold"))
    assert first.event_id == second.event_id


def test_alerts_of_one_event_that_differ_are_of_different_times() -> None:
    """Stores stop at other bytes under the same id and time; limits change, and windows end, between two tellings."""
    made = limit("tenant", "acme", 100)
    leg = msgspec.structs.replace(events.leg(made.limit_id, 7), window_start=WINDOW[0], window_end=WINDOW[1])
    of = counter_of(leg)
    over = events.budget(BudgetKind.OVERAGE, "h1", "e1", leg)
    refused = events.budget(BudgetKind.REFUSED, "h2", "e2", leg, reason="budget_exceeded", remaining_nano=0)
    for tell in (
        lambda told_of, now: overage_alert(told_of, over, leg, of, now),
        lambda told_of, now: refusal_alert(told_of, refused, leg, of, now),
    ):
        first = tell(made, NOW_MICROS)
        second = tell(msgspec.structs.replace(made, amount_nano=200), WINDOW[1])
        assert (first.event_id, True) == (second.event_id, first.detail != second.detail)
        assert (NOW_MICROS, WINDOW[1]) == (first.occurred_at, second.occurred_at)


def test_what_is_told_of_a_window_that_is_over_says_so() -> None:
    """By what it allowed at its end; of one that is on nothing is said."""
    made = limit("tenant", "acme", 100)
    details = [
        threshold_alert(one, now).detail
        for now in (WINDOW[1] - 1, WINDOW[1])
        for one in crossings(made, counter(made), 90, now)
    ]
    assert [False, True] == [
        detail.endswith(" Told late: that window ended 2026-11-21T04:00:00+00:00.") for detail in details
    ]
