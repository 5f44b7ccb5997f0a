"""LedgerPoster: the processor of `quaestor stream ledger`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from processors.budgets import BudgetFold, ClosedHold, OpenHold
from processors.ledger import holds
from processors.ledger.costs import post_cost
from schemas import limits
from schemas.events import BudgetEvent, BudgetKind, CostEvent, Event, LedgerEntry
from schemas.topics import BUDGETS, COSTS

MICROS_PER_SECOND = 1_000_000


@dataclass(slots=True)
class LedgerState:
    """The fold of one partition, and which event made each open hold's pending transfers."""

    fold: BudgetFold
    pending_source: dict[str, str] = field(default_factory=dict)


class LedgerPoster:
    """A `streams.runtime.Processor`: what a hold's first resolution is needs its past, a cost line needs nothing."""

    name = "ledger"
    topics = (BUDGETS.name, COSTS.name)
    stateless_topics = (COSTS.name,)

    def __init__(
        self,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
        lease_seconds: int = limits.LEASE_SECONDS,
    ) -> None:
        """Holds resolved within `tombstone_seconds` are remembered for late commits."""
        self._tombstone_seconds = tombstone_seconds
        #: Holds that are open, and expired ones whose commit may come late, are this young.
        self.warm_up_seconds = tombstone_seconds + lease_seconds

    def initial(self, partition: int) -> LedgerState:  # noqa: ARG002 - every partition begins alike
        """Nothing is held."""
        return LedgerState(BudgetFold(self._tombstone_seconds))

    def evolve(self, state: LedgerState, event: Event) -> LedgerState:
        """Fold the event in; the state is changed in place."""
        if isinstance(event, BudgetEvent):
            before = state.fold.status(event.hold_id)
            done = state.fold.apply(event)
            if done is not None:
                _follow(state.pending_source, event, before, done.after)
        return state

    def decide(self, state: LedgerState, event: Event) -> Sequence[Event]:
        """The transfers of a budget movement or a cost line; none for a movement that changes nothing."""
        if isinstance(event, CostEvent):
            return post_cost(event)
        if isinstance(event, BudgetEvent):
            return tuple(_post(state, event))
        return ()

    def tick(self, state: LedgerState, now_micros: int, caught_up: bool) -> Sequence[Event]:  # noqa: ARG002
        """Time alone posts nothing; holds and windows that are over are forgotten."""
        state.fold.forget(now_micros)
        state.fold.forget_windows(now_micros - self.warm_up_seconds * MICROS_PER_SECOND)
        return ()


def _follow(
    pending_source: dict[str, str],
    event: BudgetEvent,
    before: OpenHold | ClosedHold | None,
    after: OpenHold | ClosedHold,
) -> None:
    if isinstance(after, ClosedHold):
        pending_source.pop(event.hold_id, None)
    elif not _holds_as_before(before, after):
        pending_source[event.hold_id] = event.event_id


def _holds_as_before(before: OpenHold | ClosedHold | None, after: OpenHold) -> bool:
    """Whether the hold's amounts did not move: a lease made longer, or an extension that came twice."""
    return isinstance(before, OpenHold) and before.held == after.held


def _post(state: LedgerState, event: BudgetEvent) -> Iterable[LedgerEntry]:
    found = state.fold.effect_of(event)
    if found is None:
        return ()
    before = state.fold.status(event.hold_id)
    if before is None:
        return holds.post_placed(event, found.after) if isinstance(found.after, OpenHold) else ()
    if isinstance(before, ClosedHold):
        return holds.post_late(event, before)
    source_id = state.pending_source[event.hold_id]
    match event.kind:
        case BudgetKind.EXTENDED if isinstance(found.after, OpenHold) and not _holds_as_before(before, found.after):
            return holds.post_extended(event, source_id, before, found.after)
        case BudgetKind.RELEASED:
            return holds.post_released(event, source_id, before)
        case BudgetKind.COMMITTED | BudgetKind.EXPIRED:
            return holds.post_charged(event, source_id, before)
    return ()
