"""Windows of limits: the calendar of a limit's own time zone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.calendar import WINDOWS, window_of
from schemas.errors import ConfigurationError

#: Zones whose clocks change at midnight, by half an hour, not at all, and beyond a whole day from each other.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)


def micros(text: str) -> int:
    """Microseconds of an ISO time, UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("window", "zone", "now", "start", "end"),
    [
        ("minute", "UTC", "2026-11-21T10:00:59", "2026-11-21T10:00:00", "2026-11-21T10:01:00"),
        ("hour", "UTC", "2026-11-21T10:59:59", "2026-11-21T10:00:00", "2026-11-21T11:00:00"),
        ("hour", "Asia/Kolkata", "2026-11-21T10:29:59", "2026-11-21T09:30:00", "2026-11-21T10:30:00"),
        ("day", "UTC", "2026-11-21T00:00:00", "2026-11-21", "2026-11-22"),
        ("day", "UTC", "2026-11-21T23:59:59", "2026-11-21", "2026-11-22"),
        ("day", "UTC", "2028-02-29T12:00:00", "2028-02-29", "2028-03-01"),
        ("day", "Europe/Berlin", "2026-03-29T12:00:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00:00", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
        ("day", "America/Havana", "2026-11-01T05:30:00", "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"),
        ("day", "Africa/Cairo", "2026-04-24T12:00:00", "2026-04-23T22:00:00", "2026-04-24T21:00:00"),
        ("week", "UTC", "2026-11-22T23:59:59", "2026-11-16", "2026-11-23"),
        ("week", "UTC", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),
        ("week", "Europe/Berlin", "2026-11-22T22:59:59", "2026-11-16T00:00:00+01:00", "2026-11-23T00:00:00+01:00"),
        ("month", "UTC", "2026-11-01T00:00:00", "2026-11-01", "2026-12-01"),
        ("month", "UTC", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "UTC", "2028-02-29T23:59:59", "2028-02-01", "2028-03-01"),
        ("month", "America/New_York", "2026-11-01T03:59:59", "2026-10-01T00:00:00-04:00", "2026-11-01T00:00:00-04:00"),
    ],
)
def test_a_window_begins_and_ends_on_the_limits_own_calendar(
    window: str, zone: str, now: str, start: str, end: str
) -> None:
    """The start belongs to the window, the end to the next one; the day that clocks change has 23 or 25 hours."""
    assert window_of(window, micros(now), zone) == (micros(start), micros(end))


def test_a_total_has_no_window() -> None:
    """Both bounds are zero."""
    assert window_of("total", micros("2026-11-21")) == (0, 0)


@given(
    window=st.sampled_from([window for window in WINDOWS if window not in {"total", "hour"}]),
    zone=st.sampled_from(ZONES),
    seconds=st.integers(min_value=1_000_000_000, max_value=2_500_000_000),
)
def test_windows_follow_each_other_without_gap_or_overlap(window: str, zone: str, seconds: int) -> None:
    """Every moment lies in its window, and the next window begins where this one ends."""
    now = seconds * 1_000_000
    start, end = window_of(window, now, zone)
    assert start <= now < end
    assert window_of(window, start, zone) == window_of(window, end - 1, zone) == (start, end)
    assert window_of(window, end, zone)[0] == end


@pytest.mark.parametrize(("window", "zone"), [("year", "UTC"), ("day", "Mars/Olympus"), ("day", "../etc"), ("day", "")])
def test_an_unknown_window_or_zone_is_refused(window: str, zone: str) -> None:
    """The message names what is wrong."""
    with pytest.raises(ConfigurationError, match=window if window == "year" else "time zone"):
        window_of(window, 0, zone)
