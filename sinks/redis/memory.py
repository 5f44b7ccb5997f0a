"""MemoryHoldStore: the hold protocol in this process, for tests and models: every seam ships its fake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from processors.budgets.fold import BudgetFold, ClosedHold, Counter, OpenHold, Sums, counter_of
from schemas import limits
from schemas.events import BudgetEvent, BudgetKind, HoldLeg
from schemas.ids import uuid7_millis
from sinks.redis.holds import (
    Closed,
    ClosedReason,
    Confirmation,
    Conflict,
    Extension,
    Gone,
    Placed,
    PlaceHold,
    Placement,
    Refused,
)

MILLIS_PER_SECOND = 1_000
REFUSAL_MILLIS = limits.REFUSAL_SECONDS * MILLIS_PER_SECOND
Body = tuple[tuple[Counter, int], ...]
RESOLUTIONS = frozenset({BudgetKind.COMMITTED, BudgetKind.RELEASED, BudgetKind.EXPIRED})


class _Status(StrEnum):
    OPEN = "open"
    PINNED = "pinned"
    DROPPED = "dropped"


@dataclass(slots=True)
class _Entry:
    """A hold the log has not confirmed."""

    body: Body
    status: _Status
    until_millis: int


@dataclass(slots=True)
class _Slot:
    """One tenant's state."""

    generation: str
    is_open: bool
    fold: BudgetFold
    overlay: dict[str, _Entry] = field(default_factory=dict)
    #: By hold: what it is extended by that the log has not confirmed.
    growth: dict[str, Body] = field(default_factory=dict)
    #: Answers given for good: refused, or the body of a hold that the log resolved.
    answers: dict[str, tuple[Body, Placement | None]] = field(default_factory=dict)


class MemoryHoldStore:
    """A HoldStore in memory; `open_tenant`, `apply` and `new_generation` play the sink's part."""

    def __init__(
        self,
        now_millis: Callable[[], int],
        *,
        overlay_milliseconds: int = limits.OVERLAY_SECONDS * MILLIS_PER_SECOND,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
    ) -> None:
        """No tenant is open yet; `now_millis` is the store's clock."""
        self._now_millis = now_millis
        self._overlay_millis = overlay_milliseconds
        self._tombstone_millis = tombstone_seconds * MILLIS_PER_SECOND
        self._slots: dict[str, _Slot] = {}
        #: Set to make every call answer that the store is away.
        self.away = False

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def open_tenant(self, tenant_id: str, generation: str = "memory:1") -> None:
        """Make the tenant's slot where there is none, and admit holds under this generation."""
        slot = self._slots.setdefault(tenant_id, _Slot(generation, is_open=True, fold=BudgetFold()))
        slot.is_open = True
        if slot.generation != generation:
            slot.generation, slot.overlay, slot.growth = generation, {}, {}

    def close_tenant(self, tenant_id: str, generation: str) -> None:
        """Begin a generation, closed: the overlay is empty, what was applied stays."""
        self.open_tenant(tenant_id, generation)
        self._slots[tenant_id].is_open = False

    def lose(self) -> None:
        """Forget everything, as a server without persistence that was restarted."""
        self._slots.clear()

    def apply(self, tenant_id: str, event: BudgetEvent) -> None:
        """Fold one event of the log in."""
        slot = self._slots[tenant_id]
        entry = slot.overlay.get(event.hold_id)
        if event.kind is BudgetKind.PLACED and entry and entry.status is not _Status.DROPPED:
            del slot.overlay[event.hold_id]
        before = slot.fold.open_holds.get(event.hold_id)
        found = slot.fold.apply(event)
        if before and found and event.kind in RESOLUTIONS:
            slot.answers[event.hold_id] = (before.held, None)
            slot.growth.pop(event.hold_id, None)
        elif before and found and isinstance(found.after, OpenHold):
            _shrink(slot, event.hold_id, before, found.after)

    def sums(self, tenant_id: str) -> dict[Counter, Sums]:
        """The applied sums."""
        return dict(self._slots[tenant_id].fold.sums)

    def unconfirmed(self, tenant_id: str) -> frozenset[str]:
        """Holds in the overlay that count: placed or pinned, not dropped; and those with an extension in it."""
        slot = self._slots[tenant_id]
        counting = [hold_id for hold_id, entry in slot.overlay.items() if entry.status is not _Status.DROPPED]
        return frozenset((*counting, *slot.growth))

    def closed_reason(self, tenant_id: str) -> ClosedReason | None:
        """Why `place` would refuse this tenant now; None when admission looks open."""
        slot = self._slots.get(tenant_id)
        if self.away:
            return ClosedReason.UNREACHABLE
        if slot is None:
            return ClosedReason.UNKNOWN_TENANT
        return None if slot.is_open else ClosedReason.REBUILDING

    async def place(self, ask: PlaceHold) -> Placement:
        """Add the hold iff every leg fits."""
        if not ask.legs:
            return Placed("")
        reason = self.closed_reason(ask.tenant_id)
        if reason is not None:
            return Closed(reason)
        slot = self._slots[ask.tenant_id]
        self._sweep(slot)
        again = _answered_before(slot, ask)
        return again or self._decide(slot, ask)

    async def confirm(self, tenant_id: str, hold_id: str, generation: str) -> Confirmation:
        """Pin the hold after its PLACED is acked."""
        slot = self._slots.get(tenant_id)
        if not generation:
            return Confirmation.CONFIRMED
        if self.away:
            return Confirmation.UNREACHABLE
        if slot is None or slot.generation != generation or not slot.is_open:
            return Confirmation.GENERATION
        return _confirm(slot, hold_id)

    async def extend(self, ask: PlaceHold) -> Extension:
        """Let a confirmed hold hold these amounts in all."""
        if not ask.legs:
            return Placed("")
        reason = self.closed_reason(ask.tenant_id)
        if reason is not None:
            return Closed(reason)
        slot = self._slots[ask.tenant_id]
        self._sweep(slot)
        return _extend(slot, ask)

    def _sweep(self, slot: _Slot) -> None:
        now = self._now_millis()
        for hold_id, entry in list(slot.overlay.items()):
            # An end further off than any that is given now is of before a step back of the clock.
            is_over = not now < entry.until_millis <= now + self._overlay_millis
            if entry.status is _Status.OPEN and is_over:
                entry.status, entry.until_millis = _Status.DROPPED, now + self._tombstone_millis
            elif entry.status is _Status.DROPPED and entry.until_millis <= now:
                del slot.overlay[hold_id]

    def _decide(self, slot: _Slot, ask: PlaceHold) -> Placement:
        now = self._now_millis()
        if uuid7_millis(ask.hold_id) < now - REFUSAL_MILLIS:
            return Closed(ClosedReason.TOO_OLD)
        body = _body(ask.legs)
        for leg, limit_nano in zip(ask.legs, ask.limits_nano, strict=True):
            used = _used(slot, counter_of(leg))
            if used + leg.amount_nano > limit_nano:
                refused = Refused(leg.limit_id, max(0, limit_nano - used), limit_nano)
                slot.answers[ask.hold_id] = (body, refused)
                return refused
        slot.overlay[ask.hold_id] = _Entry(body, _Status.OPEN, now + self._overlay_millis)
        return Placed(slot.generation)


def _extend(slot: _Slot, ask: PlaceHold) -> Extension:
    entry, known = slot.overlay.get(ask.hold_id), slot.fold.open_holds.get(ask.hold_id)
    if entry is not None and entry.status is not _Status.PINNED:
        return Gone()
    held = known.held if known else entry.body if entry else None
    if held is None:
        return Gone()
    if [counter for counter, _ in held] != [counter_of(leg) for leg in ask.legs]:
        return Conflict("legs")
    waits = dict(slot.growth.get(ask.hold_id, ()))
    for (counter, amount), leg, limit_nano in zip(held, ask.legs, ask.limits_nano, strict=True):
        more, used = leg.amount_nano - amount - waits.get(counter, 0), _used(slot, counter)
        if more > 0:
            if used + more > limit_nano:
                return Refused(leg.limit_id, max(0, limit_nano - used), limit_nano)
            waits[counter] = waits.get(counter, 0) + more
    if waits:
        slot.growth[ask.hold_id] = tuple(waits.items())
    return Placed(slot.generation)


def _shrink(slot: _Slot, hold_id: str, before: OpenHold, after: OpenHold) -> None:
    """What the log raised the hold by is held from here, and waits no more."""
    held = dict(before.held)
    raised = {counter: amount - held[counter] for counter, amount in after.held}
    rest = [(counter, amount - min(amount, raised[counter])) for counter, amount in slot.growth.pop(hold_id, ())]
    if any(amount for _, amount in rest):
        slot.growth[hold_id] = tuple(rest)


def _confirm(slot: _Slot, hold_id: str) -> Confirmation:
    entry = slot.overlay.get(hold_id)
    if entry is not None:
        if entry.status is _Status.DROPPED:
            return Confirmation.DROPPED
        entry.status = _Status.PINNED
        return Confirmation.CONFIRMED
    if hold_id in slot.fold.open_holds:
        return Confirmation.CONFIRMED
    return Confirmation.RESOLVED if slot.fold.closed(hold_id) else Confirmation.UNKNOWN


def _answered_before(slot: _Slot, ask: PlaceHold) -> Placement | None:
    """The same answer for the same id and body, a conflict for another body, None for an id not seen before."""
    body = _body(ask.legs)
    known: OpenHold | ClosedHold | None = slot.fold.open_holds.get(ask.hold_id)
    entry = slot.overlay.get(ask.hold_id)
    if entry is not None or isinstance(known, OpenHold):
        before = entry.body if entry else known.held if isinstance(known, OpenHold) else ()
        return Placed(slot.generation) if before == body else Conflict(_difference(body, before))
    if ask.hold_id in slot.answers:
        answered, refused = slot.answers[ask.hold_id]
        return (refused or Placed(slot.generation)) if answered == body else Conflict("legs")
    return None


def _used(slot: _Slot, counter: Counter) -> int:
    applied = slot.fold.sums.get(counter) or Sums()
    pending = [entry.body for entry in slot.overlay.values() if entry.status is not _Status.DROPPED]
    unconfirmed = sum(amount for body in (*pending, *slot.growth.values()) for name, amount in body if name == counter)
    return applied.posted_nano + applied.held_nano + unconfirmed


def _body(legs: tuple[HoldLeg, ...]) -> Body:
    return tuple((counter_of(leg), leg.amount_nano) for leg in legs)


def _difference(ours: Body, theirs: Body) -> str:
    """The first field in which two bodies differ."""
    for (a, amount_a), (b, amount_b) in zip(ours, theirs, strict=False):
        for name, x, y in zip(Counter._fields, a, b, strict=True):
            if x != y:
                return name
        if amount_a != amount_b:
            return "amount_nano"
    return "legs"
