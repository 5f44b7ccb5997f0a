"""What people ask of records that were set aside: find, look, redrive, park, discard, resume (`quaestor dlq`).

`sinks.postgres.dead_letters` and `sinks.fake_quarantine` pass one suite, tests/contract/test_dead_letters.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from schemas.events import QuarantinedRecord
from streams.log import Partition

#: QUARANTINED: can't be applied. PARKED: waits behind another, or was left by a person. The others are settled.
State = Literal["QUARANTINED", "PARKED", "REDRIVEN", "DISCARDED"]
STATES: tuple[State, ...] = ("QUARANTINED", "PARKED", "REDRIVEN", "DISCARDED")
UNRESOLVED: tuple[State, ...] = ("QUARANTINED", "PARKED")


@dataclass(frozen=True)
class Selection:
    """Which records; what is None or empty does not narrow."""

    event_ids: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    sink: str | None = None
    topic: str | None = None
    tenant_id: str | None = None
    fingerprint: str | None = None
    #: When the record was written, microseconds: from, and before.
    since_micros: int | None = None
    until_micros: int | None = None


class DeadLetter(NamedTuple):
    """A record that was set aside, without its bytes."""

    event_id: str
    sink: str
    partition: Partition
    offset: int
    state: State
    reason: str
    detail: str
    fingerprint: str
    tenant_id: str
    attempts: int
    #: When the sink first met it, microseconds.
    first_seen_at: int
    #: When it was written, microseconds.
    record_at: int
    order_key: str | None
    behind_event_id: str | None
    #: Whether a redrive was asked for and has not ended.
    requested: bool
    note: str | None
    settled_by: str | None


class PausedPartition(NamedTuple):
    """A partition that a sink stopped."""

    projection: str
    partition: Partition
    offset: int
    reason: str
    #: Microseconds.
    paused_at: int


class DeadLetters(Protocol):
    """People's side of the quarantine. Every call may raise StoreUnavailableError."""

    async def find(self, selection: Selection, rows_max: int) -> list[DeadLetter]:
        """Records in the order they were set aside."""

    async def show(self, event_id: str) -> tuple[DeadLetter, QuarantinedRecord] | None:
        """One record with its bytes."""

    async def request(self, event_ids: Sequence[str], actor: str, *, again: bool = False) -> int:
        """Ask the sinks to apply these; answers how many are asked for. Settled ones are passed over.

        `again` asks for redriven ones too, for a store that lost what it had: applying one twice changes nothing.
        """

    async def park(self, event_ids: Sequence[str], actor: str, note: str) -> int:
        """Leave these where they are, as known: out of the list of what must be looked at; answers how many.

        What waits behind them waits on.
        """

    async def discard(self, event_ids: Sequence[str], actor: str, note: str) -> int:
        """Never apply these; an event says who and why. What waits behind them is redriven. Answers how many."""

    async def pauses(self) -> list[PausedPartition]:
        """Partitions that stand still."""

    async def resume(self, projection: str, partition: Partition, actor: str, lifted_until: int) -> bool:
        """End a pause; limits count from nothing, and only from this offset on. False when there is none."""
