"""Plans: what is about to be inserted, decided once and kept in Postgres before ClickHouse sees a row.

ClickHouse drops an insert whose token it has seen, as a whole and without looking at the rows. So a repeated insert
must carry exactly the rows of the first one, whoever repeats it: a plan pins them. It says which offsets of which
partitions go into one insert and which are left out (records quarantined, and events met before at another offset),
and it never changes. A cursor moves only when its plan is settled. See docs/decisions/0021-plan-insert-settle.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from schemas.errors import FencedError, GapError, IntegrityError
from streams.log import Partition


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


@dataclass(frozen=True)
class Piece:
    """One partition's part of a plan: the offsets of [first_offset, next_offset) without the excluded ones."""

    partition: Partition
    topic_id: str
    first_offset: int
    next_offset: int
    #: In order: quarantined, or met before elsewhere.
    excluded: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """One insert into one table."""

    token: str
    #: By partition number.
    pieces: tuple[Piece, ...]
    #: Time since it was planned, by the store's clock, seconds.
    age_seconds: float

    @property
    def topic(self) -> str:
        """The topic of all its pieces."""
        return self.pieces[0].partition.topic


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
    """Cursors, plans and the index of event ids. `MemoryPlanStore` below and `sinks.postgres.plans` pass one suite."""

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
        """Plans of these partitions that are not settled, whole (with pieces of other partitions); may raise
        StoreUnavailableError."""

    async def plan(
        self, projection: str, drafts: Sequence[Draft], epochs: Mapping[Partition, int]
    ) -> Planned | Misplaced:
        """Pin the inserts of these drafts, one plan per topic, in one transaction.

        Events whose (tenant_id, event_id) was met at another offset are excluded. When an earlier try left plans open
        on these partitions, those are answered instead. Raises FencedError when an epoch is no longer held,
        IntegrityError when an id comes with other bytes than before, StoreUnavailableError.
        """

    async def settle(self, projection: str, plans: Sequence[Plan], epochs: Mapping[Partition, int]) -> None:
        """Move the cursors of the pieces whose partitions stand in `epochs` behind them, in one transaction.

        Pieces of other partitions are left to their owners. Raises FencedError (nothing is settled) and
        StoreUnavailableError.
        """


def token_of(projection: str, pieces: Sequence[Piece]) -> str:
    """The deduplication token of an insert: projection, topic and exactly its ranges."""
    first = pieces[0]
    ranges = "+".join(f"{each.partition.number}:{each.first_offset}-{each.next_offset}" for each in pieces)
    return f"{projection}:{first.topic_id}:{first.partition.topic}:{ranges}"


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
    return tuple(Plan(token_of(projection, pieces), tuple(pieces), 0.0) for pieces in by_topic.values())


@dataclass
class _Row:
    topic_id: str
    next_offset: int = 0
    epoch: int = 0


@dataclass
class MemoryPlanStore:
    """PlanStore in memory; outlives the sinks on it, as a database would. One projection at a time is enough."""

    cursors: dict[Partition, _Row] = field(default_factory=dict)
    open_pieces: dict[Partition, str] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    #: (tenant_id, event_id) -> where it was first met, and the hash of its body.
    index: dict[tuple[str, str], tuple[Partition, int, bytes]] = field(default_factory=dict)

    async def open(self) -> None:
        """As the seam says."""

    async def close(self) -> None:
        """As the seam says."""

    async def claim(
        self, projection: str, partitions: Sequence[Partition], topic_ids: Mapping[str, str]
    ) -> dict[Partition, Held]:
        """As the seam says."""
        for partition in partitions:
            row = self.cursors.setdefault(partition, _Row(topic_ids[partition.topic]))
            if row.topic_id != topic_ids[partition.topic]:
                raise IntegrityError(f"{partition}: the cursor belongs to an earlier topic of this name")
            row.epoch += 1
        return {each: Held(self.cursors[each].next_offset, self.cursors[each].epoch) for each in partitions}

    async def left_open(self, projection: str, partitions: Sequence[Partition]) -> list[Plan]:
        """As the seam says."""
        tokens = dict.fromkeys(self.open_pieces[each] for each in partitions if each in self.open_pieces)
        return [self.plans[token] for token in tokens]

    async def plan(
        self, projection: str, drafts: Sequence[Draft], epochs: Mapping[Partition, int]
    ) -> Planned | Misplaced:
        """As the seam says."""
        held = {each: Held(row.next_offset, row.epoch) for each, row in self.cursors.items()}
        wrong = misplaced(drafts, held, epochs)
        waiting = await self.left_open(projection, [draft.partition for draft in drafts])
        if waiting:
            return Planned(tuple(waiting), left_open=True)
        if wrong is not None:
            return wrong
        planned = plans_of(projection, drafts, self._learn(drafts))
        for plan in planned:
            self.plans[plan.token] = plan
            self.open_pieces.update(dict.fromkeys((piece.partition for piece in plan.pieces), plan.token))
        return Planned(planned, left_open=False)

    async def settle(self, projection: str, plans: Sequence[Plan], epochs: Mapping[Partition, int]) -> None:
        """As the seam says."""
        pieces = [piece for plan in plans for piece in plan.pieces if piece.partition in epochs]
        for piece in pieces:
            if self.cursors[piece.partition].epoch != epochs[piece.partition]:
                raise FencedError(str(piece.partition), epochs[piece.partition])
        for piece in pieces:
            if self.open_pieces.pop(piece.partition, None) is not None:
                self.cursors[piece.partition].next_offset = piece.next_offset
        still_open = set(self.open_pieces.values())
        self.plans = {token: plan for token, plan in self.plans.items() if token in still_open}

    def _learn(self, drafts: Sequence[Draft]) -> dict[Partition, set[int]]:
        """Enter events into the index; answer the offsets whose event was met before. All or nothing."""
        index = dict(self.index)
        repeated: dict[Partition, set[int]] = {}
        for draft in sorted(drafts, key=lambda each: each.partition):
            for event in draft.events:
                met = index.setdefault(
                    (event.tenant_id, event.event_id), (draft.partition, event.offset, event.content_hash)
                )
                if met[2] != event.content_hash:
                    raise IntegrityError(f"{draft.partition}: event {event.event_id} was met before with other bytes")
                if met[:2] != (draft.partition, event.offset):
                    repeated.setdefault(draft.partition, set()).add(event.offset)
        self.index = index
        return repeated
