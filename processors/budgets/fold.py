"""The one rule of what a budget event does to a tenant's counters: `evolve`, and `BudgetFold` that applies it in place.

The Lua of sinks/redis applies the same rule; tests/property/test_budget_fold.py proves them equal. One fold holds one
tenant or several: hold ids are unique and counters carry their limit's id.

    status of the hold   event       counters                                      status after
    unknown              PLACED      held += amounts                               open
    open                 EXTENDED    held raised to amounts, never lowered         open
    open                 COMMITTED   held -= its held, posted += charged           committed
    open                 RELEASED    held -= its held                              released
    open                 EXPIRED     held -= its held, posted += charged           expired
    expired              COMMITTED   posted += charged - what EXPIRED charged      committed
    anything else        anything    nothing: the first resolution by offset wins, duplicates change nothing
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from processors.budgets.horizon import is_over, reached
from processors.budgets.sound import problem_of
from schemas import limits
from schemas.events import BudgetEvent, BudgetKind, HoldLeg
from schemas.ids import uuid7_millis

MILLIS_PER_HOUR = 3_600_000
MICROS_PER_MILLI = 1_000
MICROS_PER_HOUR = MICROS_PER_MILLI * MILLIS_PER_HOUR


class Counter(NamedTuple):
    """What one limit counts in one window; a limit whose window or currency changes begins another counter."""

    limit_id: str
    currency: str
    window_start: int
    window_end: int

    def __str__(self) -> str:
        """As the live store names it."""
        return f"{self.limit_id}|{self.currency}|{self.window_start}|{self.window_end}"


class Sums(NamedTuple):
    """The two sums of a counter, nano-units of its currency."""

    posted_nano: int = 0
    held_nano: int = 0


class OpenHold(NamedTuple):
    """A hold without resolution: what it holds now on each counter, and when its lease ends."""

    #: What it stands by: its PLACED, or the EXTENDED that raised it last, with the amounts it holds now.
    placed: BudgetEvent
    held: tuple[tuple[Counter, int], ...]
    lease_until: int


class ClosedHold(NamedTuple):
    """A resolved hold: how it ended, and the EXPIRED itself where a late COMMITTED may still adjust it."""

    kind: BudgetKind
    expired: BudgetEvent | None = None


class Effect(NamedTuple):
    """What one event does: changes of (counter, posted, held), and the hold's status after it."""

    changes: tuple[tuple[Counter, int, int], ...]
    after: OpenHold | ClosedHold


class BudgetState(msgspec.Struct, frozen=True):
    """Counters and holds after some events: an immutable value for rules, tests and models; folds use BudgetFold."""

    sums: dict[Counter, Sums] = {}
    open_holds: dict[str, OpenHold] = {}
    closed_holds: dict[str, ClosedHold] = {}


def counter_of(leg: HoldLeg) -> Counter:
    """The counter that a leg moves."""
    return Counter(leg.limit_id, leg.currency, leg.window_start, leg.window_end)


def effect(status: OpenHold | ClosedHold | None, event: BudgetEvent) -> Effect | None:
    """What the event does to a hold of this status (None: unknown), or None when it changes nothing or is unsound."""
    if problem_of(event) is not None:
        return None
    if isinstance(status, OpenHold):
        rule = _ON_OPEN.get(event.kind)
        return rule(status, event) if rule else None
    if status is None:
        return _place(event) if event.kind is BudgetKind.PLACED else None
    if status.kind is BudgetKind.EXPIRED and event.kind is BudgetKind.COMMITTED:
        return _commit_late(status, event)
    return None


def _amounts(event: BudgetEvent) -> tuple[tuple[Counter, int], ...]:
    return tuple((counter_of(leg), leg.amount_nano) for leg in event.legs)


def _place(event: BudgetEvent) -> Effect:
    held = _amounts(event)
    changes = tuple((counter, 0, amount) for counter, amount in held)
    return Effect(changes, OpenHold(event, held, event.lease_until or event.occurred_at))


def _extend(hold: OpenHold, event: BudgetEvent) -> Effect:
    asked = dict(_amounts(event))
    held = tuple((counter, max(amount, asked.get(counter, 0))) for counter, amount in hold.held)
    changes = tuple((new[0], 0, new[1] - old[1]) for new, old in zip(held, hold.held, strict=True))
    stands_by = hold.placed if held == hold.held else _standing(hold, event, held)
    return Effect(changes, OpenHold(stands_by, held, max(hold.lease_until, event.lease_until or 0)))


def _standing(hold: OpenHold, event: BudgetEvent, held: tuple[tuple[Counter, int], ...]) -> BudgetEvent:
    """The EXTENDED that raised a hold, with every leg that the hold has."""
    legs = tuple(
        msgspec.structs.replace(leg, amount_nano=amount, held_nano=amount)
        for leg, (_, amount) in zip(hold.placed.legs, held, strict=True)
    )
    return msgspec.structs.replace(event, legs=legs, amount_nano=max(hold.placed.amount_nano, event.amount_nano))


def _freed(hold: OpenHold) -> tuple[tuple[Counter, int, int], ...]:
    return tuple((counter, 0, -amount) for counter, amount in hold.held)


def _posted(event: BudgetEvent) -> tuple[tuple[Counter, int, int], ...]:
    return tuple((counter, amount, 0) for counter, amount in _amounts(event))


def _commit(hold: OpenHold, event: BudgetEvent) -> Effect:
    return Effect(_freed(hold) + _posted(event), ClosedHold(BudgetKind.COMMITTED))


def _release(hold: OpenHold, _event: BudgetEvent) -> Effect:
    return Effect(_freed(hold), ClosedHold(BudgetKind.RELEASED))


def _expire(hold: OpenHold, event: BudgetEvent) -> Effect:
    return Effect(_freed(hold) + _posted(event), ClosedHold(BudgetKind.EXPIRED, event))


def _commit_late(hold: ClosedHold, event: BudgetEvent) -> Effect:
    charged = _amounts(hold.expired) if hold.expired is not None else ()
    taken_back = tuple((counter, -amount, 0) for counter, amount in charged)
    return Effect(taken_back + _posted(event), ClosedHold(BudgetKind.COMMITTED))


_ON_OPEN: dict[BudgetKind, Callable[[OpenHold, BudgetEvent], Effect]] = {
    BudgetKind.EXTENDED: _extend,
    BudgetKind.COMMITTED: _commit,
    BudgetKind.RELEASED: _release,
    BudgetKind.EXPIRED: _expire,
}


def evolve(state: BudgetState, event: BudgetEvent) -> BudgetState:
    """The state after one more event; the given one is left as it is. Never refuses: what is recorded has happened."""
    status = state.open_holds.get(event.hold_id) or state.closed_holds.get(event.hold_id)
    found = effect(status, event)
    if found is None:
        return state
    sums = dict(state.sums)
    _change(sums, found.changes)
    open_holds = {hold_id: hold for hold_id, hold in state.open_holds.items() if hold_id != event.hold_id}
    closed_holds = dict(state.closed_holds)
    if isinstance(found.after, OpenHold):
        open_holds[event.hold_id] = found.after
    else:
        closed_holds[event.hold_id] = found.after
    return BudgetState(sums, open_holds, closed_holds)


def _change(sums: dict[Counter, Sums], changes: Iterable[tuple[Counter, int, int]]) -> None:
    for counter, posted, held in changes:
        before = sums.get(counter) or Sums()
        sums[counter] = Sums(before.posted_nano + posted, before.held_nano + held)


class BudgetFold:
    """`evolve` in place, for replays: a million events without a copy.

    How holds ended is remembered until somebody calls `forget`; what would come later than that never enters the log.
    """

    def __init__(self, remembered_seconds: int = limits.HOLD_TOMBSTONE_SECONDS) -> None:
        """Start from nothing."""
        self.sums: dict[Counter, Sums] = {}
        self.open_holds: dict[str, OpenHold] = {}
        self._closed: dict[int, dict[str, ClosedHold]] = {}
        self._remembered_seconds = remembered_seconds
        self._newest_hour = 0
        self._forgotten_hour = self._windows_forgotten_hour = 0
        #: The event that was asked about last, and its effect: who decides on an event folds it in next.
        self._asked: tuple[BudgetEvent, Effect | None] | None = None

    def effect_of(self, event: BudgetEvent) -> Effect | None:
        """What this event would do now, None when nothing."""
        asked = self._asked
        if asked is None or asked[0] is not event:
            asked = self._asked = (event, effect(self.status(event.hold_id), event))
        return asked[1]

    def apply(self, event: BudgetEvent) -> Effect | None:
        """Fold one more event in; answers what it did, None when nothing."""
        hold_id = event.hold_id
        found, self._asked = self.effect_of(event), None
        if found is None:
            return None
        _change(self.sums, found.changes)
        if isinstance(found.after, OpenHold):
            self.open_holds[hold_id] = found.after
        else:
            self.open_holds.pop(hold_id, None)
            self._remember(hour_of(hold_id), hold_id, found.after)
        return found

    def forget(self, now_micros: int) -> None:
        """Drop how holds ended that were made long ago, whole hours of them, once an hour."""
        reached_millis = reached(_end_of(self._newest_hour), now_micros // MICROS_PER_MILLI)
        hour = reached_millis // MILLIS_PER_HOUR
        if hour <= self._forgotten_hour:
            return
        self._forgotten_hour = hour
        for old in [each for each in self._closed if is_over(_end_of(each), reached_millis, self._remembered_seconds)]:
            del self._closed[old]

    def forget_windows(self, ended_before_micros: int) -> None:
        """Drop the counters of windows that ended before and hold nothing, once an hour: for folds that go on."""
        hour = ended_before_micros // MICROS_PER_HOUR
        if hour <= self._windows_forgotten_hour:
            return
        self._windows_forgotten_hour = hour
        for counter in [
            counter
            for counter, sums in self.sums.items()
            if 0 < counter.window_end < ended_before_micros and not sums.held_nano
        ]:
            del self.sums[counter]

    def status(self, hold_id: str) -> OpenHold | ClosedHold | None:
        """The hold, open or (while it is remembered) resolved."""
        return self.open_holds.get(hold_id) or self.closed(hold_id)

    def closed(self, hold_id: str) -> ClosedHold | None:
        """How a hold ended, while it is remembered."""
        return self._closed.get(hour_of(hold_id), {}).get(hold_id)

    def _remember(self, hour: int, hold_id: str, hold: ClosedHold) -> None:
        self._closed.setdefault(hour, {})[hold_id] = hold
        self._newest_hour = max(self._newest_hour, hour)


def _end_of(hour: int) -> int:
    """When an hour since the epoch ends, milliseconds."""
    return (hour + 1) * MILLIS_PER_HOUR


def hour_of(hold_id: str) -> int:
    """The hour since the epoch in which a hold's uuid7 was made; 0 for an id of another kind."""
    try:
        return uuid7_millis(hold_id) // MILLIS_PER_HOUR
    except ValueError:
        return 0
