"""What a limit charged hour by hour: made of its counters as they stood at the end of each hour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from processors.budgets.fold import Counter
from processors.calendar import window_of
from processors.control.entities import Limit

MICROS_PER_HOUR = 3_600_000_000
HOURS_PER_DAY = 24
#: Windows that are long enough to be projected from hours.
PROJECTED = frozenset({"day", "week", "month"})


class Standing(NamedTuple):
    """What a counter had charged at the end of an hour."""

    window_start: int
    #: Nano-units of the limit's currency.
    posted_nano: int


#: Standings by the hour that ended, counted since the epoch.
Standings = Mapping[int, Standing]


def is_projected(limit: Limit, now_micros: int) -> bool:
    """Whether a limit is watched hour by hour: one that stands on one thing, in force, over a day or longer."""
    return limit.window in PROJECTED and not limit.is_each and limit.in_force(now_micros)


def hour_of(micros: int) -> int:
    """The hour a moment lies in, counted since the epoch."""
    return micros // MICROS_PER_HOUR


def counter_at(limit: Limit, moment_micros: int) -> Counter:
    """The counter of the window that a moment lies in."""
    return Counter(limit.limit_id, limit.currency, *window_of(limit.window, moment_micros, limit.time_zone))


def charged_by_hour(standings: Standings) -> dict[int, int]:
    """What was charged in each hour, nano-units; hours that can't be told are left out.

    Those are hours without a standing before them, and hours in the middle of which a window began.
    """
    found = {}
    for hour, standing in standings.items():
        if standing.window_start == hour * MICROS_PER_HOUR:
            found[hour] = standing.posted_nano
        elif (before := standings.get(hour - 1)) is not None and before.window_start == standing.window_start:
            found[hour] = standing.posted_nano - before.posted_nano
    return found
