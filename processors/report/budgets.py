"""How far limits were used up on a day: limits as they stood at its end, and what the ledger booked per window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from processors.budgets import Counter, window_of
from processors.budgets.usage import LimitUsage
from processors.control import Limit
from processors.report.day import Day
from processors.report.figures import BudgetUse, WindowSpend

#: Of a limit on each of a kind, those that used most are shown.
COUNTERS_PER_LIMIT_MAX = 20


def limits_of(bodies: Iterable[str], day: Day) -> list[Limit]:
    """The limits in force on the day, of their JSON; what can't be read limits nothing, as everywhere."""
    return [limit for limit in _read(bodies) if _touches(limit, day)]


def _read(bodies: Iterable[str]) -> Iterator[Limit]:
    for body in bodies:
        try:
            yield msgspec.json.decode(body, type=Limit)
        except msgspec.MsgspecError:
            continue


def _touches(limit: Limit, day: Day) -> bool:
    begins, ends = limit.valid_from or 0, limit.valid_until
    return begins < day.ends_at and (ends is None or ends > day.starts_at)


def windows_of(limit: Limit, day: Day) -> tuple[int, int]:
    """Where the first window of the day begins, and where the one begins that goes on when the day is over.

    What begins before the latter is over by the end of the day: windows follow each other without a gap.
    """
    first, last = (window_of(limit.window, at, limit.time_zone)[0] for at in (day.starts_at, day.ends_at))
    return first, last


def budget_uses(limits: Sequence[Limit], windows: Iterable[WindowSpend], day: Day) -> list[BudgetUse]:
    """Every limit with its fullest window of the day, fullest first; of a limit on each of a kind, the fullest few."""
    by_limit: defaultdict[str, list[WindowSpend]] = defaultdict(list)
    for each in windows:
        by_limit[each.counter.partition(".")[0]].append(each)
    found = [use for limit in limits for use in _uses(limit, by_limit[limit.limit_id], day)]
    return sorted(found, key=lambda use: (-use.percent, use.limit_id, -use.spent_nano, use.counter))


def _uses(limit: Limit, windows: Iterable[WindowSpend], day: Day) -> list[BudgetUse]:
    fullest: dict[str, BudgetUse] = {}
    for each in windows:
        use = _use(limit, each, day)
        if use is not None and (each.counter not in fullest or use.spent_nano > fullest[each.counter].spent_nano):
            fullest[each.counter] = use
    if not fullest and not limit.is_each:
        start, _ = window_of(limit.window, day.ends_at - 1, limit.time_zone)
        nothing = _use(limit, WindowSpend(limit.limit_id, limit.currency, start, 0, 0), day)
        return [nothing] if nothing else []
    return sorted(fullest.values(), key=lambda use: -use.spent_nano)[:COUNTERS_PER_LIMIT_MAX]


def _use(limit: Limit, spend: WindowSpend, day: Day) -> BudgetUse | None:
    """How full a window was at its end, or at the day's where that is earlier; None when it is no window of the day."""
    _, end = window_of(limit.window, spend.window_start, limit.time_zone)
    if end and (end <= day.starts_at or spend.window_start >= day.ends_at):
        return None
    is_over = 0 < end <= day.ends_at
    spent_nano = spend.spent_nano + (spend.settled_nano if is_over else 0)
    counter = Counter(spend.counter, spend.currency, spend.window_start, end)
    used = LimitUsage(limit, counter, limit.allowed_nano((end if is_over else day.ends_at) - 1), spent_nano, 0)
    return BudgetUse(
        limit_id=limit.limit_id,
        counter=spend.counter,
        scope=limit.scope,
        scope_id=limit.scope_id,
        window=limit.window,
        currency=limit.currency,
        hard=limit.hard,
        window_start=spend.window_start,
        window_end=end,
        allowed_nano=used.allowed_nano,
        spent_nano=spent_nano,
        percent=used.percent,
        counters=spend.counters,
    )
