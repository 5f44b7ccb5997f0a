"""Windows of limits: calendar minutes, hours, days, weeks and months in a limit's own time zone.

Bounds are microseconds UTC, [start, end). Every event carries them, so nothing but placement asks here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from schemas.errors import ConfigurationError

MICROS_PER_SECOND = 1_000_000
SECONDS_PER_MINUTE = 60
SECONDS_PER_HOUR = 3_600
DAYS_PER_WEEK = 7
#: Bounds of a limit without a window.
TOTAL = (0, 0)
WINDOWS = ("minute", "hour", "day", "week", "month", "total")
#: Windows that begin and end at the same moments in every zone.
ZONELESS_WINDOWS = ("minute", "total")
#: Where days begin when nobody says.
ZONE_USUAL = "UTC"
#: Every calendar of the world changes at a whole number of these.
STEP_SECONDS = 15 * SECONDS_PER_MINUTE
#: Nowhere is the clock further ahead of UTC.
FARTHEST_EAST = timedelta(hours=14)
BOUNDS_CACHED_MAX = 1_024


def window_of(window: str, now_micros: int, zone: str = "UTC") -> tuple[int, int]:
    """The window that holds this moment; (0, 0) for a total. Raises ConfigurationError on an unknown window or zone.

    Minutes are those of UTC, which every zone shares. A day begins at its first moment on the wall clock, so the day on
    which clocks change has 23 or 25 hours; a week begins on Monday (ISO 8601).
    """
    if window == "total":
        return TOTAL
    seconds = now_micros // MICROS_PER_SECOND
    if window == "minute":
        start = seconds - seconds % SECONDS_PER_MINUTE
        return start * MICROS_PER_SECOND, (start + SECONDS_PER_MINUTE) * MICROS_PER_SECOND
    return _bounds(window, seconds - seconds % STEP_SECONDS, zone)


@lru_cache(maxsize=BOUNDS_CACHED_MAX)
def _bounds(window: str, seconds: int, zone: str) -> tuple[int, int]:
    """The window of a quarter of an hour: found once for all calls in it."""
    local = datetime.fromtimestamp(seconds, zone_of(zone))
    if window == "hour":
        offset = local.utcoffset() or timedelta()
        start = seconds - (seconds + int(offset.total_seconds())) % SECONDS_PER_HOUR
        return start * MICROS_PER_SECOND, (start + SECONDS_PER_HOUR) * MICROS_PER_SECOND
    first, following = _days(window, local.date())
    return _begins(first, zone), _begins(following, zone)


def _days(window: str, today: date) -> tuple[date, date]:
    """First day of the window, and of the next one."""
    if window == "day":
        return today, today + timedelta(days=1)
    if window == "week":
        monday = today - timedelta(days=today.weekday())
        return monday, monday + timedelta(days=DAYS_PER_WEEK)
    if window == "month":
        first = today.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1)
    raise ConfigurationError(f"window {window!r} is none of {', '.join(WINDOWS)}")


def _begins(day: date, zone: str) -> int:
    """The first moment of a day, microseconds UTC. A midnight that clocks skip is the moment they skip from."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone_of(zone))
    return int(midnight.astimezone(UTC).timestamp()) * MICROS_PER_SECOND


def day_begun_somewhere(now_micros: int) -> str:
    """The latest day that has begun in any time zone, YYYY-MM-DD."""
    moment = datetime.fromtimestamp(now_micros // MICROS_PER_SECOND, UTC) + FARTHEST_EAST
    return moment.date().isoformat()


def zone_of(name: str) -> ZoneInfo:
    """An IANA time zone; raises ConfigurationError when there is none of this name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # unknown, not a name at all, a folder
        raise ConfigurationError(f"{name!r} is no time zone: give an IANA name such as Europe/Berlin") from error
