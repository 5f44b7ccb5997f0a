"""The seam of the hold protocol (docs/concepts/budgets.md): place before the provider is called, confirm after PLACED.

`RedisHoldStore` (sinks/redis/store.py) and `MemoryHoldStore` (sinks/redis/memory.py) implement it and pass one contract
suite (tests/contract/test_hold_store.py).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from schemas.events import HoldLeg


class ClosedReason(StrEnum):
    """Why admission is closed; all of them pass, so each is a 503 with Retry-After."""

    #: Redis could not be reached or did not answer in time.
    UNREACHABLE = "redis_unreachable"
    #: The live state is being rebuilt after a loss, a restart or a failover.
    REBUILDING = "budgets_rebuilding"
    #: Redis is near the memory that it may use, or there: what is left is for what the log has yet to bring.
    FULL = "redis_full"
    #: No live state for this tenant yet: the sink has not opened it.
    UNKNOWN_TENANT = "budgets_not_open"
    #: The live state is further behind the log than BUDGET_LAG_SECONDS_MAX.
    LAGGING = "budgets_lagging"
    #: The state was placed under another generation than the one known here.
    GENERATION = "budgets_generation_changed"
    #: Nobody knows the hold id, and it is older than what is remembered of refused ones: it can't be decided again.
    TOO_OLD = "hold_id_too_old"


class PlaceHold(NamedTuple):
    """A hold asked for, all its legs or none; `limits_nano` is the amount of each leg's limit, in their order."""

    tenant_id: str
    #: A uuid7; the same id with the same legs gets the same answer.
    hold_id: str
    legs: tuple[HoldLeg, ...]
    limits_nano: tuple[int, ...]


class Placed(NamedTuple):
    """The hold stands, for OVERLAY_SECONDS unless confirmed; PLACED and `confirm` carry this generation.

    The generation is empty when the hold has no legs: there is nothing to guard then, and Redis is not asked.
    """

    generation: str


class Refused(NamedTuple):
    """A limit has no room for its leg; nothing is held."""

    limit_id: str
    #: What that limit had left, nano-units of its currency; never negative.
    remaining_nano: int
    #: The limit's amount, nano-units of its currency.
    limit_nano: int


class Closed(NamedTuple):
    """Nothing is admitted now; nothing is held."""

    reason: ClosedReason


class Conflict(NamedTuple):
    """The hold id is taken by a hold that differs in this field: a bug of the caller, nothing is held for this one."""

    field: str


class Gone(NamedTuple):
    """The hold does not stand: it is resolved, or was never confirmed. Nothing was added to it."""


Placement = Placed | Refused | Closed | Conflict
Extension = Placement | Gone


class Confirmation(StrEnum):
    """Whether the provider may be called. Unless CONFIRMED: send RELEASED, then answer 503 or try a new hold."""

    CONFIRMED = "CONFIRMED"
    #: The generation changed since it was placed, or the state is being rebuilt.
    GENERATION = "GENERATION"
    #: It was not confirmed in time and fell away.
    DROPPED = "DROPPED"
    #: It is resolved already (expired, most likely).
    RESOLVED = "RESOLVED"
    #: Nobody knows it.
    UNKNOWN = "UNKNOWN"
    #: Redis could not be reached or did not answer in time.
    UNREACHABLE = "UNREACHABLE"


class HoldStore(Protocol):
    """Admission. Its calls answer with values only, one round trip each; many may run at once on one loop."""

    async def open(self) -> None:
        """Connect and learn the gates; returns also when Redis is away (`place` answers Closed until it is back)."""

    async def close(self) -> None:
        """Let go of connections and tasks."""

    def closed_reason(self, tenant_id: str) -> ClosedReason | None:
        """Why `place` would refuse this tenant now, without asking Redis; None when it looks open. For /readyz."""

    async def place(self, ask: PlaceHold) -> Placement:
        """Add the hold iff every leg fits: posted + held + unconfirmed + amount <= limit on each, atomically."""

    async def confirm(self, tenant_id: str, hold_id: str, generation: str) -> Confirmation:
        """Pin the hold after its PLACED is acked; from CONFIRMED on only the log's own events remove it.

        Asked again after EXTENDED is acked, with the generation that `extend` answered: from CONFIRMED on the extension
        may be counted on.
        """

    async def extend(self, ask: PlaceHold) -> Extension:
        """Let a confirmed hold hold these amounts in all, iff what is more fits on every leg; it never holds less.

        Legs are those it was placed with, in their order. The same amounts again add nothing and are Placed, a refusal
        may be asked again; but nothing may be asked again once its EXTENDED may be in the log, which raises the hold
        whether or not there is room. What was added stays until EXTENDED or the end of the hold takes its place.
        """
