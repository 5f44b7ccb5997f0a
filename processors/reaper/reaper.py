"""The reaper of one budgets partition, for the stream runtime.

Time alone makes EXPIRED, and only when the state holds everything the partition had a moment ago. What follows from it
is decided when it comes back through the log: an EXPIRED that lost to a COMMITTED closes nothing and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from processors.budgets import BudgetFold, ClosedHold, ExpiredCharge, OpenHold, expired_event, problem_of
from processors.reaper.closing import closing_events, correction
from schemas import limits
from schemas.events import BudgetEvent, BudgetKind, Event
from schemas.topics import BUDGETS

MICROS_PER_SECOND = 1_000_000
#: An EXPIRED that did not come back through the log is sent again after this; its id and bytes are the same.
ASK_AGAIN_MICROS = 30 * MICROS_PER_SECOND
#: Kinds that something may follow from.
_RESOLVES = frozenset((BudgetKind.EXPIRED, BudgetKind.COMMITTED))
#: Holds expired per tick; the rest waits a second.
EXPIRED_PER_TICK_MAX = 500


@dataclass(slots=True)
class ReaperState:
    """The fold of one partition, and which holds EXPIRED was sent for and when."""

    partition: int
    fold: BudgetFold
    asked_at: dict[str, int] = field(default_factory=dict)


class Reaper:
    """A `streams.runtime.Processor`."""

    def __init__(
        self,
        *,
        policy: ExpiredCharge = ExpiredCharge.FULL,
        clock_skew_seconds: int = limits.CLOCK_SKEW_SECONDS,
        spool_grace_seconds: int = limits.SPOOL_GRACE_SECONDS,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
        lease_seconds: int = limits.LEASE_SECONDS,
    ) -> None:
        """A hold expires `clock_skew_seconds` + `spool_grace_seconds` after its lease ended."""
        self._policy = policy
        self._grace_micros = (clock_skew_seconds + spool_grace_seconds) * MICROS_PER_SECOND
        self._tombstone_seconds = tombstone_seconds
        self._lease_seconds = lease_seconds

    @property
    def name(self) -> str:
        """Names the consumer group."""
        return "budgets"

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics read."""
        return (BUDGETS.name,)

    @property
    def warm_up_seconds(self) -> int:
        """Holds that are open, and expired ones whose commit may come late, are this young."""
        return self._tombstone_seconds + self._lease_seconds

    def initial(self, partition: int) -> ReaperState:
        """Nothing is held."""
        return ReaperState(partition, BudgetFold(self._tombstone_seconds))

    def evolve(self, state: ReaperState, event: Event) -> ReaperState:
        """Fold the event in; the state is changed in place."""
        if isinstance(event, BudgetEvent):
            state.fold.apply(event)
            if event.kind is not BudgetKind.EXTENDED:
                state.asked_at.pop(event.hold_id, None)
        return state

    def decide(self, state: ReaperState, event: Event) -> Sequence[Event]:
        """What follows from an EXPIRED that wins, and from a COMMITTED that comes after one."""
        # Most events resolve nothing that expired: whether one is sound is asked of the others alone.
        if not isinstance(event, BudgetEvent) or event.kind not in _RESOLVES or problem_of(event) is not None:
            return ()
        hold = state.fold.status(event.hold_id)
        if isinstance(hold, OpenHold) and event.kind is BudgetKind.EXPIRED:
            return closing_events(event, _actor(state))
        if isinstance(hold, ClosedHold) and hold.expired is not None and event.kind is BudgetKind.COMMITTED:
            taken_back = correction(hold.expired, event, _actor(state))
            return (taken_back,) if taken_back else ()
        return ()

    def tick(self, state: ReaperState, now_micros: int, caught_up: bool) -> Sequence[Event]:
        """EXPIRED for holds whose lease, clock skew and spool grace are over; nothing unless caught up."""
        state.fold.forget(now_micros)
        state.fold.forget_windows(now_micros - self.warm_up_seconds * MICROS_PER_SECOND)
        if not caught_up:
            return ()
        due = [
            hold
            for hold_id, hold in state.fold.open_holds.items()
            if hold.lease_until + self._grace_micros < now_micros
            and state.asked_at.get(hold_id, 0) + ASK_AGAIN_MICROS < now_micros
        ][:EXPIRED_PER_TICK_MAX]
        for hold in due:
            state.asked_at[hold.placed.hold_id] = now_micros
        return [expired_event(hold.placed, actor=_actor(state), policy=self._policy) for hold in due]


def _actor(state: ReaperState) -> str:
    return f"reaper/{state.partition}"
