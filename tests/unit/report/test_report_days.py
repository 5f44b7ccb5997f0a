"""Which day a report is of, and until when it can be judged."""

from __future__ import annotations

import pytest

from processors.report.day import Span, day_of
from schemas.errors import ConfigurationError
from tests.support.reports import MARGIN_MICROS, NOW_MICROS

HOUR_MICROS = 3_600_000_000


@pytest.mark.parametrize(
    ("asked", "zone", "found", "hours"),
    [
        ("yesterday", "UTC", "2026-11-20", 24),
        ("today", "UTC", "2026-11-21", 24),
        ("yesterday", "America/Los_Angeles", "2026-11-19", 24),
        ("today", "Pacific/Kiritimati", "2026-11-21", 24),
        ("2026-10-25", "Europe/Berlin", "2026-10-25", 25),
        ("2026-03-29", "Europe/Berlin", "2026-03-29", 23),
        ("2024-02-29", "UTC", "2024-02-29", 24),
    ],
)
def test_a_day_is_one_of_its_time_zone(asked: str, zone: str, found: str, hours: int) -> None:
    """Named or dated; the day on which clocks change is longer or shorter."""
    day = day_of(asked, zone, NOW_MICROS)

    assert (found, zone, hours * HOUR_MICROS) == (day.date, day.time_zone, day.ends_at - day.starts_at)


@pytest.mark.parametrize(
    ("asked", "zone", "words"),
    [
        ("2026-11-22", "UTC", "has not begun"),
        ("tomorrow", "UTC", "is no day"),
        ("2026-02-30", "UTC", "is no day"),
        ("today", "Mars/Olympus", "is no time zone"),
    ],
)
def test_what_is_no_day_is_refused_in_one_line(asked: str, zone: str, words: str) -> None:
    """And says what to give instead."""
    with pytest.raises(ConfigurationError, match=words):
        day_of(asked, zone, NOW_MICROS)


@pytest.mark.parametrize(
    ("taken_after_end", "judged_before_end", "is_over"),
    [
        (MARGIN_MICROS, 0, True),
        (5 * MARGIN_MICROS, 0, True),
        (MARGIN_MICROS - 1, 1, False),
        (0, MARGIN_MICROS, False),
        (-24 * HOUR_MICROS, 24 * HOUR_MICROS, False),
    ],
)
def test_what_began_too_lately_is_not_judged(taken_after_end: int, judged_before_end: int, is_over: bool) -> None:
    """A day is over once all that began on it has ended, and nothing before the day is judged."""
    day = day_of("yesterday", "UTC", NOW_MICROS)

    span = Span(day, MARGIN_MICROS, day.ends_at + taken_after_end)

    assert (day.ends_at - judged_before_end, is_over) == (span.judged_until, span.is_over)
    assert (MARGIN_MICROS, MARGIN_MICROS) == (day.starts_at - span.since, span.until - day.ends_at)
