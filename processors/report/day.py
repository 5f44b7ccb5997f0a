"""The day of a report, and until when it can be judged."""

from __future__ import annotations

from datetime import date, datetime
from typing import NamedTuple

from processors.calendar import MICROS_PER_SECOND, window_of, zone_of
from schemas.errors import ConfigurationError
from schemas.limits import HOLD_TOMBSTONE_SECONDS

NOON_HOUR = 12


class Day(NamedTuple):
    """One day on the wall clocks of a time zone, 23 to 25 hours long; microseconds UTC, [starts_at, ends_at)."""

    #: YYYY-MM-DD.
    date: str
    #: IANA name.
    time_zone: str
    starts_at: int
    ends_at: int


class Span(NamedTuple):
    """What a report reads and judges; microseconds UTC."""

    day: Day
    #: On both sides of the day: the longest time from a request's first event to its last.
    margin_micros: int
    #: When the report was made.
    taken_at: int
    #: How long after its hold expired a commit is still taken.
    late_micros: int = HOLD_TOMBSTONE_SECONDS * MICROS_PER_SECOND

    @property
    def since(self) -> int:
        """Where reading begins."""
        return self.day.starts_at - self.margin_micros

    @property
    def until(self) -> int:
        """Up to where it goes, not included."""
        return self.day.ends_at + self.margin_micros

    @property
    def late_since(self) -> int:
        """From when on a request may have begun whose commit comes late within what is read."""
        return self.since - self.late_micros - self.margin_micros

    @property
    def late_until(self) -> int:
        """Until when a commit may come for a hold that expired within what is read, and what follows from it."""
        return self.until + self.late_micros + self.margin_micros

    @property
    def judged_until(self) -> int:
        """What began before this has ended or never will; what began later is under way."""
        return max(self.day.starts_at, min(self.day.ends_at, self.taken_at - self.margin_micros))

    @property
    def is_over(self) -> bool:
        """Whether all that began on the day has ended."""
        return self.judged_until == self.day.ends_at


def day_of(text: str, time_zone: str, now_micros: int) -> Day:
    """`yesterday`, `today`, or YYYY-MM-DD; raises ConfigurationError for anything else and for days to come."""
    today = window_of("day", now_micros, time_zone)
    if text == "today":
        starts_at, ends_at = today
    elif text == "yesterday":
        starts_at, ends_at = window_of("day", today[0] - 1, time_zone)
    else:
        starts_at, ends_at = window_of("day", _noon(text, time_zone), time_zone)
    begins = datetime.fromtimestamp(starts_at // MICROS_PER_SECOND, zone_of(time_zone)).date().isoformat()
    if starts_at > now_micros:
        raise ConfigurationError(f"{begins} has not begun: give yesterday, today or a day that is past")
    return Day(begins, time_zone, starts_at, ends_at)


def _noon(text: str, time_zone: str) -> int:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no day: give yesterday, today or one such as 2026-11-20") from None
    noon = datetime(day.year, day.month, day.day, NOON_HOUR, tzinfo=zone_of(time_zone))
    return int(noon.timestamp()) * MICROS_PER_SECOND
