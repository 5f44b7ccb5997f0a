"""Plans: what is about to be inserted, decided once and kept in Postgres before ClickHouse sees a row.

ClickHouse drops an insert whose token it has seen, as a whole and without looking at the rows. So a repeated insert
must carry exactly the rows of the first one, whoever repeats it: a plan pins them. It says which offsets of which
partitions go into one insert and which are left out (records quarantined, and events met before at another offset),
and it never changes. A cursor moves only when its plan is settled. See docs/decisions/0021-plan-insert-settle.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from schemas.errors import FencedError, GapError
from streams.log import Partition

#: Ends the token of a plan of which rows may be there under another one.
COUNTED = ":counted"


class Known(NamedTuple):
    """One event of a span, as the id index keeps it."""

    tenant_id: str
    event_id: str
    occurred_at: int
    offset: int
    #: Hash of the record's body: the same id with other bytes is a fault.
    content_hash: bytes


@dataclass(frozen=True)
class Draft:
    """A span to be planned."""

    partition: Partition
    topic_id: str
    first_offset: int
    next_offset: int
    #: The events of the span, in the order of their offsets.
    events: Sequence[Known]
    #: Offsets that are quarantined, in order.
    poison: Sequence[int] = ()
    #: Whether ClickHouse may have rows of it under another token: they are counted before anything is inserted.
    is_counted: bool = False


@dataclass(frozen=True)
class Piece:
    """One partition's part of a plan: the offsets of [first_offset, next_offset) without the excluded ones."""

    partition: Partition
    topic_id: str
    first_offset: int
    next_offset: int
    #: In order: quarantined, or met before elsewhere.
    excluded: tuple[int, ...]

    def named(self) -> dict[str, Any]:
        """As queries name its range."""
        return {
            "topic_id": self.topic_id,
            "part": self.partition.number,
            "first": self.first_offset,
            "after": self.next_offset,
            "excluded": list(self.excluded),
        }

    @property
    def row_count(self) -> int:
        """How many offsets are not excluded."""
        return self.next_offset - self.first_offset - len(self.excluded)


@dataclass(frozen=True)
class Plan:
    """One insert into one table."""

    token: str
    #: By partition number.
    pieces: tuple[Piece, ...]
    #: Time since it was planned, by the store's clock, seconds.
    age_seconds: float

    @property
    def is_counted(self) -> bool:
        """Whether rows of it may be there under another token."""
        return self.token.endswith(COUNTED)

    @property
    def topic(self) -> str:
        """The topic of all its pieces."""
        return self.pieces[0].partition.topic

    @property
    def row_count(self) -> int:
        """Rows of all its pieces."""
        return sum(piece.row_count for piece in self.pieces)


class Held(NamedTuple):
    """A partition as its owner holds it."""

    next_offset: int
    epoch: int


@dataclass(frozen=True)
class Planned:
    """What there is to insert."""

    plans: tuple[Plan, ...]
    #: Whether these are plans an earlier try left open; nothing of the drafts is planned yet then.
    left_open: bool


@dataclass(frozen=True)
class Misplaced:
    """The cursors are not where the drafts begin: nothing is planned; this is where they stand."""

    held: Mapping[Partition, int]


class PlanStore(Protocol):
    """Cursors, plans and the index of event ids. `memory` and `sinks.postgres.plans` pass one suite."""

    async def open(self) -> None:
        """Connect; raises StoreUnavailableError."""

    async def close(self) -> None:
        """Let go; never raises."""

    async def claim(
        self, projection: str, partitions: Sequence[Partition], topic_ids: Mapping[str, str]
    ) -> dict[Partition, Held]:
        """Fence earlier owners and answer where each partition stands.

        Raises StoreUnavailableError, and IntegrityError when a cursor belongs to an earlier topic of the name.
        """

    async def left_open(self, projection: str, partitions: Sequence[Partition]) -> list[Plan]:
        """Plans of these partitions that are not settled, whole: pieces of other partitions too.

        Raises StoreUnavailableError.
        """

    async def plan(
        self, projection: str, drafts: Sequence[Draft], epochs: Mapping[Partition, int]
    ) -> Planned | Misplaced:
        """Pin the inserts of these drafts, one plan per topic, in one transaction.

        Events whose (tenant_id, event_id) was met at another offset are excluded. When an earlier try left plans open
        on these partitions, those are answered instead. Raises FencedError when an epoch is no longer held,
        IntegrityError when an id comes with other bytes than before, StoreUnavailableError.
        """

    async def late(self, projection: str, draft: Draft, epoch: int) -> set[int]:
        """Enter events below the cursor into the index; answer the offsets whose event was met at another one.

        For records that were set aside. Raises FencedError when the epoch is no longer held, IntegrityError when an id
        comes with other bytes than before, StoreUnavailableError.
        """

    async def cursors(self, projection: str) -> dict[Partition, int]:
        """Next offset of every partition of the projection; raises StoreUnavailableError."""

    async def settle(self, projection: str, plans: Sequence[Plan], epochs: Mapping[Partition, int]) -> None:
        """Move the cursors of the pieces whose partitions stand in `epochs` behind them, in one transaction.

        Pieces of other partitions are left to their owners. Raises FencedError (nothing is settled) and
        StoreUnavailableError.
        """


def token_of(projection: str, pieces: Sequence[Piece], *, is_counted: bool = False) -> str:
    """The deduplication token of an insert: projection, topic and exactly its ranges, and whether it is counted."""
    first = pieces[0]
    ranges = "+".join(f"{each.partition.number}:{each.first_offset}-{each.next_offset}" for each in pieces)
    return f"{projection}:{first.topic_id}:{first.partition.topic}:{ranges}{COUNTED if is_counted else ''}"


def misplaced(
    drafts: Sequence[Draft], held: Mapping[Partition, Held], epochs: Mapping[Partition, int]
) -> Misplaced | None:
    """Judge drafts against where their partitions stand; raises FencedError and GapError."""
    for draft in drafts:
        stands = held.get(draft.partition)
        epoch = epochs.get(draft.partition, 0)
        if stands is None or stands.epoch != epoch:
            raise FencedError(str(draft.partition), epoch)
        if stands.next_offset < draft.first_offset:
            raise GapError(str(draft.partition), stands.next_offset, draft.first_offset)
    if any(held[draft.partition].next_offset != draft.first_offset for draft in drafts):
        return Misplaced({draft.partition: held[draft.partition].next_offset for draft in drafts})
    return None


def plans_of(projection: str, drafts: Sequence[Draft], repeated: Mapping[Partition, set[int]]) -> tuple[Plan, ...]:
    """One plan per topic; `repeated` holds the offsets whose event was met before."""
    by_topic: dict[str, list[Piece]] = {}
    for draft in sorted(drafts, key=lambda each: each.partition):
        excluded = tuple(sorted({*draft.poison, *repeated.get(draft.partition, ())}))
        by_topic.setdefault(draft.partition.topic, []).append(
            Piece(draft.partition, draft.topic_id, draft.first_offset, draft.next_offset, excluded)
        )
    counted = {draft.partition.topic for draft in drafts if draft.is_counted}
    return tuple(
        Plan(token_of(projection, pieces, is_counted=topic in counted), tuple(pieces), 0.0)
        for topic, pieces in by_topic.items()
    )
