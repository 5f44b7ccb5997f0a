"""How far each limit is used up in its present window, from the live counters. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from processors.budgets.fold import Counter, Sums
from processors.budgets.tree import PERCENT
from processors.calendar import window_of
from processors.control.entities import Limit, is_each

#: From these on a limit is filling up, and as good as full.
FILLING_PERCENT, FULL_PERCENT = 80, 95
Level = Literal["plain", "good", "warning", "bad"]
CHARACTERS_SHOWN = 8


class LimitUsage(NamedTuple):
    """A limit's counter in its present window; a limit on each of a kind has one for every one that was met."""

    limit: Limit
    counter: Counter
    #: Nano-units of the limit's currency, increases in force included.
    allowed_nano: int
    #: Charged.
    posted_nano: int
    #: Held by calls under way, those included that the log has not confirmed.
    held_nano: int

    @property
    def left_nano(self) -> int:
        """What a call may still hold; negative after an overage."""
        return self.allowed_nano - self.posted_nano - self.held_nano

    @property
    def percent(self) -> int:
        """Charged, of what is allowed; whole per cent, rounded down. A limit of nothing is full."""
        return PERCENT * self.posted_nano // self.allowed_nano if self.allowed_nano else PERCENT


def usage_of(
    limits: Iterable[Limit], sums: Mapping[Counter, Sums], unconfirmed: Mapping[Counter, int], now_micros: int
) -> list[LimitUsage]:
    """The limits in force with their present counters, in the order given, what is used most first within one."""
    counters: defaultdict[str, set[Counter]] = defaultdict(set)
    for counter in (*sums, *unconfirmed):
        counters[counter.limit_id.partition(".")[0]].add(counter)
    found = []
    for limit in limits:
        if limit.in_force(now_micros):
            used = [
                _usage(limit, counter, sums, unconfirmed, now_micros)
                for counter in _present(limit, counters[limit.limit_id], now_micros)
            ]
            found += sorted(used, key=lambda one: (-one.posted_nano - one.held_nano, one.counter))
    return found


def _present(limit: Limit, known: Iterable[Counter], now_micros: int) -> list[Counter]:
    """The limit's counters of this window; one that nothing moved yet stands for a limit on one thing."""
    window = window_of(limit.window, now_micros, limit.time_zone)
    present = [one for one in known if (one.window_start, one.window_end) == window and one.currency == limit.currency]
    if present or limit.is_each:
        return present
    return [Counter(limit.limit_id, limit.currency, *window)]


def _usage(
    limit: Limit, counter: Counter, sums: Mapping[Counter, Sums], unconfirmed: Mapping[Counter, int], now_micros: int
) -> LimitUsage:
    applied = sums.get(counter, Sums())
    held_nano = applied.held_nano + unconfirmed.get(counter, 0)
    return LimitUsage(limit, counter, limit.allowed_nano(now_micros), applied.posted_nano, held_nano)


def level_of(percent: int) -> Level:
    """How a limit that is used up so far is shown."""
    if percent >= FULL_PERCENT:
        return "bad"
    return "warning" if percent >= FILLING_PERCENT else "good"


def place_of(scope: str, scope_id: str, counter: str = "") -> str:
    """What a limit stands on, for people; an end user's handle is cut.

    The counter of one of many of a kind is told by the beginning of its name behind the limit's.
    """
    if not is_each(scope, scope_id):
        return f"{scope} {scope_id[:CHARACTERS_SHOWN] if scope == 'user' else scope_id}"
    place = f"each {scope}" + (f" {scope_id}" if scope == "tag" else "")
    which = counter.partition(".")[2][:CHARACTERS_SHOWN]
    return f"{place} {which}" if which else place
