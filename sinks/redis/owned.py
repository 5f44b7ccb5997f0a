"""What a process knows of a budgets partition it owns, and what tells it that the server is not as it was left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from processors.budgets.live import LiveFold
from schemas.errors import GapError
from sinks.redis.apart import Apart
from sinks.redis.gate import GateState
from sinks.redis.slots import RESTORING, Ownership, Slot

PER_CENT = 100
#: Slots that are looked at without cause.
SLOTS_PER_HEARTBEAT = 2


class Applied(NamedTuple):
    """An open partition of this process, as far as its slots are."""

    partition: int
    topic_id: str
    cursor: int
    epoch: int


class Rebuild(NamedTuple):
    """How far a partition is whose admission is closed."""

    partition: int
    #: `log`, or `snapshot` when it began with one.
    source: str
    #: Why it is rebuilt, and why from there.
    detail: str
    #: Where reading the log began.
    first_offset: int
    #: Next offset to fold in.
    offset: int
    #: Offset at which admission opens; None until it is taken.
    barrier: int | None

    @property
    def per_cent(self) -> int:
        """Of the way to the barrier; 100 only at it."""
        if self.barrier is None:
            return 0
        way = self.barrier - self.first_offset
        return PER_CENT if self.offset >= self.barrier else (self.offset - self.first_offset) * PER_CENT // way


@dataclass(slots=True)
class Owned:
    """A budgets partition in this process."""

    number: int
    owner: Ownership
    #: Next offset to apply.
    cursor: int
    #: Next offset of each tenant's slot as last written here.
    tenants: dict[str, int] = field(default_factory=dict)
    #: While slots are made anew from the log: their state so far, of which Redis has nothing yet.
    fold: LiveFold | None = None
    #: While others fold what is below the cursor: what they do, which `join` puts in the place of `fold`.
    apart: Apart | None = None
    #: Whether that was tried: it is not tried twice.
    went_apart: bool = False
    #: Where reading began, what with and why.
    first_offset: int = 0
    source: str = "log"
    detail: str = ""
    #: End offset to reach before opening; None until one is taken after closing.
    barrier: int | None = None
    end_offset: int = 0
    #: The server's time as last heard, milliseconds.
    heard_millis: int = 0
    #: A moment of the server's clock, and an end offset taken after it: what was acknowledged by then is below it.
    mark: tuple[int, int] | None = None
    #: Everything acknowledged by this moment is applied.
    applied_at_millis: int = 0
    #: Slots that moved and that the gate has not heard of: an answer of the gate may have been lost in between.
    untold: dict[str, int] = field(default_factory=dict)

    #: How many slots were looked at since the last whole round.
    looked_at: int = 0

    def next_tenants(self) -> list[str]:
        """The tenants whose slots to look at in this heartbeat, a few: all of them in turn."""
        begin = self.looked_at if self.looked_at < len(self.tenants) else 0
        chosen = list(islice(self.tenants, begin, begin + SLOTS_PER_HEARTBEAT))
        self.looked_at = begin + len(chosen)
        return chosen

    @property
    def stands(self) -> int:
        """How far the slots are, as the gate says: a fold in memory is gone with its process."""
        return self.cursor if self.fold is None else self.first_offset

    @property
    def rebuild(self) -> Rebuild:
        """How far it is."""
        return Rebuild(self.number, self.source, self.detail, self.first_offset, self.read, self.barrier)

    @property
    def read(self) -> int:
        """Next offset to fold in, or to apply."""
        return self.cursor if self.apart is None else self.apart.read

    @property
    def may_go_apart(self) -> bool:
        """Whether others could fold what is to come: nothing is folded yet, and it was not tried."""
        return self.fold is not None and not self.fold.tenants and not self.went_apart

    def go_apart(self, apart: Apart) -> None:
        """Go on behind what others fold."""
        self.apart, self.went_apart, self.cursor = apart, True, apart.errand.end

    def join(self) -> None:
        """Take what others have folded, when they are done; raises GapError when it is less than was asked for."""
        apart = self.apart
        if apart is None or not apart.result.done() or apart.result.cancelled():
            return
        self.apart, self.fold = None, apart.whole()
        if self.fold is None:
            first_offset = self.cursor
            self.fold, self.cursor = apart.result.result()
            raise GapError(f"{self.number} folded apart", self.cursor, first_offset)

    def leave(self) -> None:
        """It is another's, or begins anew: nobody waits for those who fold."""
        if self.apart is not None:
            self.apart.result.cancel()

    def goes_on(self, gate: GateState, run_id: str) -> bool:
        """Whether a fold in memory is still what its gate waits for: nobody has begun another generation since."""
        is_same = self.owner.generation == gate.generation and gate.generation.startswith(run_id)
        return self.fold is not None and bool(run_id) and is_same

    def reached_mark(self) -> None:
        """Move `applied_at_millis` on when the mark's offset is applied."""
        if self.mark is not None and self.apart is None and self.cursor >= self.mark[1]:
            self.applied_at_millis = max(self.applied_at_millis, self.mark[0])
            self.mark = None


def loss(run_id: str, gate: GateState, before: Owned | None, slots: Mapping[str, Slot]) -> str:
    """What tells that the server is not as it was left; empty when nothing does."""
    if not gate.generation or gate.cursor is None:
        return "no gate"
    if not gate.generation.startswith(run_id):
        return "another run of the server"
    if gate.is_rebuilding:
        return "a rebuild was not finished"
    if before is not None and gate.cursor < before.stands:
        return f"the gate went back from {before.stands} to {gate.cursor}"
    for tenant_id, slot in slots.items():
        stood = max(gate.tenants.get(tenant_id, 0), before.tenants.get(tenant_id, 0) if before else 0)
        if (slot.cursor or 0) < stood or (slot.cursor is None and before and tenant_id in before.tenants):
            return f"slot {tenant_id} went back from {stood} to {slot.cursor}"
        if slot.generation == RESTORING:
            return f"slot {tenant_id} is half restored"
        if slot.cursor is not None and slot.generation != gate.generation:
            return f"slot {tenant_id} is of another generation"
    return ""


def start_of(gate: GateState, slots: Mapping[str, Slot]) -> int:
    """The offset from which the log must be read so that every slot gets all it lacks."""
    if gate.is_rebuilding or any(slot.generation == RESTORING for slot in slots.values()):
        return 0
    behind = [slots[name].cursor or 0 for name, at in gate.tenants.items() if (slots[name].cursor or 0) < at]
    return min([gate.cursor or 0, *behind])
