"""Watcher: which counters moved, and the alerts that follow once their sums are known.

The log says which counters moved; how far they stand is read from the live state, which is exactly the fold of the log
at its cursor. So there is nothing to warm up, and nothing is counted twice (docs/decisions/0121).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from processors.budgets import Counter, counter_of
from processors.control import Limit
from processors.guardrails import (
    AlertBook,
    crossings,
    is_of_many,
    overage_alert,
    refusal_alert,
    refused_as,
    threshold_alert,
    threshold_alert_id,
)
from schemas.events import Alert, BudgetEvent, BudgetKind
from schemas.limits import ALERT_COUNTERS_TOUCHED_MAX, ALERTS_PER_LOOK_MAX
from sinks.redis.posted import SumsReader

CHARGING = frozenset({BudgetKind.COMMITTED, BudgetKind.EXPIRED})


@dataclass(slots=True)
class _Moved:
    """Counters of one tenant that moved."""

    #: Its partition of quaestor.budgets, and the first offset there that no look has covered.
    partition: int
    unseen: int
    #: Of each, the offset below which its sum must be applied before it is seen whole.
    needed: dict[Counter, int] = field(default_factory=dict)


class Watcher:
    """Told of events and of the control plane; asked for alerts. One loop owns it."""

    def __init__(
        self, sums: SumsReader, touched_max: int = ALERT_COUNTERS_TOUCHED_MAX, told_max: int = ALERTS_PER_LOOK_MAX
    ) -> None:
        """Nothing moved yet; a look answers `told_max` alerts, the others with the next."""
        self._sums, self._touched_max, self._told_max = sums, touched_max, told_max
        self._touched: dict[str, _Moved] = {}
        self._touched_count = 0
        #: Tenants of whom any counter may stand above a threshold.
        self._whole: set[str] = set()
        self._overages: dict[Counter, BudgetEvent] = {}
        #: By the counter that refused, why, and which model: thresholds may refuse some and not others.
        self._refusals: dict[tuple[Counter, str | None, tuple[str, str]], BudgetEvent] = {}
        self._limits: Mapping[str, Limit] = {}
        #: Alerts that nobody told yet, and whether the last look kept some of them back.
        self._found: dict[str, Alert] = {}
        self.has_more = False

    def note(self, event: BudgetEvent, offset: int, partition: int = 0) -> None:
        """A budgets event was recorded at this offset of its tenant's partition."""
        if event.kind in CHARGING:
            self._note_moved(event, offset, partition)
        elif event.kind is BudgetKind.OVERAGE and len(self._overages) < self._touched_max:
            for leg in event.legs:
                self._overages.setdefault(counter_of(leg), event)
        elif event.kind is BudgetKind.REFUSED and len(self._refusals) < self._touched_max:
            refusing = (counter_of(leg) for leg in event.legs if leg.limit_id == event.refused_by_limit_id)
            for counter in refusing:
                self._refusals.setdefault((counter, event.reason, refused_as(event)), event)

    def _note_moved(self, event: BudgetEvent, offset: int, partition: int) -> None:
        needed = self._touched.setdefault(event.tenant_id, _Moved(partition, offset)).needed
        before = len(needed)
        needed.update((counter_of(leg), offset + 1) for leg in event.legs)
        self._touched_count += len(needed) - before
        if self._touched_count > self._touched_max:
            self._whole.update(self._touched)
            self._drop_touched()

    def note_limits(self, limits: Mapping[str, Limit]) -> None:
        """The control plane's limits as they are now; tenants of changed ones are looked at whole."""
        if limits is self._limits:
            return
        before, self._limits = self._limits, limits
        self._whole.update(limit.tenant_id for name, limit in limits.items() if before.get(name) != limit)

    def forget(self) -> None:
        """Events may have been missed, and are read again: look at every tenant meanwhile."""
        self._drop_touched()
        self.note_all()

    def note_all(self) -> None:
        """Any counter may have moved."""
        self._whole.update(limit.tenant_id for limit in self._limits.values())

    def unseen(self) -> dict[int, int]:
        """By partition, the first offset whose event was not looked at yet; partitions without any are left out."""
        found: dict[int, int] = {}
        for moved in self._touched.values():
            found[moved.partition] = min(moved.unseen, found.get(moved.partition, moved.unseen))
        return found

    def _drop_touched(self) -> None:
        self._touched.clear()
        self._touched_count = 0

    async def look(self, book: AlertBook, now_micros: int) -> list[Alert]:
        """The alerts that are to be told; the same again until the book knows them. Raises StoreUnavailableError.

        A counter whose sum is not applied yet is looked at as it is, and again the next time. Nothing is lost by a
        fault.
        """
        self._found = {name: alert for name, alert in self._found.items() if not book.knows(name)}
        self._look_over(book, now_micros)
        self._look_at_refusals(book, now_micros)
        await self._look_at_tenants(book, now_micros)
        await self._look_at_moved(book, now_micros)
        self.has_more = len(self._found) > self._told_max
        return list(islice(self._found.values(), self._told_max))

    def _keep(self, book: AlertBook, alerts: Iterable[Alert]) -> None:
        self._found.update((alert.event_id, alert) for alert in alerts if not book.knows(alert.event_id))

    def _look_over(self, book: AlertBook, now_micros: int) -> None:
        """Calls that cost more than they held."""
        while self._overages:
            counter, event = self._overages.popitem()
            limit = self._limit(counter)
            leg = next(leg for leg in event.legs if counter_of(leg) == counter)
            if limit is not None:
                self._keep(book, [overage_alert(limit, event, leg, counter, now_micros)])

    def _look_at_refusals(self, book: AlertBook, now_micros: int) -> None:
        """Calls that found no room."""
        while self._refusals:
            (counter, _, _), event = self._refusals.popitem()
            limit = self._limit(counter)
            leg = next(leg for leg in event.legs if counter_of(leg) == counter)
            alert = refusal_alert(limit, event, leg, counter, now_micros) if limit else None
            self._keep(book, [alert] if alert else [])

    async def _look_at_tenants(self, book: AlertBook, now_micros: int) -> None:
        """Every counter of some tenants; one whose state is being rebuilt keeps its turn.

        Of windows that are over only those are judged that moved since somebody last looked: a limit that changed
        meanwhile says nothing of windows before. So are runs, users or keys under a limit on each, once there were more
        than the book remembers: what it does not know it may have forgotten, and nobody wants to hear it again.
        """
        for tenant_id in sorted(self._whole):
            sums = await self._sums.all_posted(tenant_id)
            if sums.is_open:
                skips_many = book.has_forgotten_some_of_many
                judged = {
                    name: nano
                    for name, nano in sums.posted_nano.items()
                    if _is_present(name, now_micros) and not (skips_many and is_of_many(name.limit_id))
                }
                self._keep(book, self._alerts(judged, now_micros))
                self._whole.discard(tenant_id)

    async def _look_at_moved(self, book: AlertBook, now_micros: int) -> None:
        for tenant_id, moved in list(self._touched.items()):
            watched = [counter for counter in moved.needed if self._is_watched(counter, book)]
            self._touched_count -= len(moved.needed)
            moved.needed = {counter: moved.needed[counter] for counter in watched}
            self._touched_count += len(watched)
            if watched:
                sums = await self._sums.posted(tenant_id, watched)
                self._keep(book, self._alerts(sums.posted_nano, now_micros))
                self._seen(moved, sums.cursor if sums.is_open else 0)
            if not moved.needed:
                del self._touched[tenant_id]

    def _seen(self, moved: _Moved, cursor: int) -> None:
        """What is below the cursor of a tenant was looked at; its other events come later, maybe always some."""
        ahead = {counter: needed for counter, needed in moved.needed.items() if needed > cursor}
        self._touched_count -= len(moved.needed) - len(ahead)
        moved.needed, moved.unseen = ahead, max(moved.unseen, cursor)

    def _alerts(self, posted_nano: Mapping[Counter, int], now_micros: int) -> Iterable[Alert]:
        for counter, nano in posted_nano.items():
            limit = self._limit(counter)
            for crossing in crossings(limit, counter, nano, now_micros) if limit else ():
                yield threshold_alert(crossing, now_micros)

    def _is_watched(self, counter: Counter, book: AlertBook) -> bool:
        """Whether there is a threshold that was not told yet."""
        limit = self._limit(counter)
        if limit is None:
            return False
        return any(not book.knows(threshold_alert_id(counter, guard)) for guard in limit.guards)

    def _limit(self, counter: Counter) -> Limit | None:
        limit = self._limits.get(counter.limit_id.partition(".")[0])
        return limit if limit is not None and limit.currency == counter.currency else None


def _is_present(counter: Counter, now_micros: int) -> bool:
    return not counter.window_end or counter.window_start <= now_micros < counter.window_end
