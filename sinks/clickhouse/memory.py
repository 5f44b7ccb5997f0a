"""A PlanStore without a server, for tests of the sink and as the shortest reading of the seam."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from schemas.errors import FencedError, IntegrityError
from sinks.clickhouse.plans import Draft, Held, Misplaced, Plan, Planned, PlanStore, misplaced, plans_of
from streams.log import Partition


@dataclass
class _Cursor:
    topic_id: str
    next_offset: int = 0
    epoch: int = 0


@dataclass
class _State:
    """What is kept for one projection."""

    cursors: dict[Partition, _Cursor] = field(default_factory=dict)
    #: Token of the open plan of each partition that has one.
    open_tokens: dict[Partition, str] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    #: (tenant_id, event_id) -> where it was first met, and the hash of its body.
    index: dict[tuple[str, str], tuple[Partition, int, bytes]] = field(default_factory=dict)

    def left_open(self, partitions: Sequence[Partition]) -> list[Plan]:
        tokens = dict.fromkeys(self.open_tokens[each] for each in partitions if each in self.open_tokens)
        return [self.plans[token] for token in tokens]

    def learn(self, drafts: Sequence[Draft]) -> dict[Partition, set[int]]:
        """Enter events into the index; answer the offsets whose event was met before. All or nothing."""
        index = dict(self.index)
        repeated: dict[Partition, set[int]] = {}
        for draft in sorted(drafts, key=lambda each: each.partition):
            for event in draft.events:
                here = (draft.partition, event.offset, event.content_hash)
                met = index.setdefault((event.tenant_id, event.event_id), here)
                if met[2] != event.content_hash:
                    raise IntegrityError(f"{draft.partition}: event {event.event_id} was met before with other bytes")
                if met != here:
                    repeated.setdefault(draft.partition, set()).add(event.offset)
        self.index = index
        return repeated


class MemoryPlanStore(PlanStore):
    """PlanStore in memory; outlives the sinks on it, as a database would."""

    def __init__(self, now_seconds: Callable[[], float] = lambda: 0.0) -> None:
        """Nothing is known; plans age by this clock."""
        self._projections: dict[str, _State] = {}
        self._now_seconds = now_seconds
        #: When each plan was made, by its token.
        self._planned_at: dict[str, float] = {}

    async def open(self) -> None:
        """As the seam says."""

    async def close(self) -> None:
        """As the seam says."""

    async def claim(
        self, projection: str, partitions: Sequence[Partition], topic_ids: Mapping[str, str]
    ) -> dict[Partition, Held]:
        """As the seam says."""
        cursors = self._of(projection).cursors
        for partition in partitions:
            cursor = cursors.setdefault(partition, _Cursor(topic_ids[partition.topic]))
            if cursor.topic_id != topic_ids[partition.topic]:
                raise IntegrityError(f"{partition}: the cursor belongs to an earlier topic of this name")
        for partition in partitions:
            cursors[partition].epoch += 1
        return {each: Held(cursors[each].next_offset, cursors[each].epoch) for each in partitions}

    async def left_open(self, projection: str, partitions: Sequence[Partition]) -> list[Plan]:
        """As the seam says."""
        return [self._aged(plan) for plan in self._of(projection).left_open(partitions)]

    async def plan(
        self, projection: str, drafts: Sequence[Draft], epochs: Mapping[Partition, int]
    ) -> Planned | Misplaced:
        """As the seam says."""
        state = self._of(projection)
        held = {each: Held(cursor.next_offset, cursor.epoch) for each, cursor in state.cursors.items()}
        wrong = misplaced(drafts, held, epochs)
        waiting = state.left_open([draft.partition for draft in drafts])
        if waiting:
            return Planned(tuple(map(self._aged, waiting)), left_open=True)
        if wrong is not None:
            return wrong
        planned = plans_of(projection, drafts, state.learn(drafts))
        for plan in planned:
            state.plans[plan.token] = plan
            self._planned_at[plan.token] = self._now_seconds()
            state.open_tokens |= dict.fromkeys((piece.partition for piece in plan.pieces), plan.token)
        return Planned(planned, left_open=False)

    async def settle(self, projection: str, plans: Sequence[Plan], epochs: Mapping[Partition, int]) -> None:
        """As the seam says."""
        state = self._of(projection)
        pieces = [(plan.token, piece) for plan in plans for piece in plan.pieces if piece.partition in epochs]
        for _, piece in pieces:
            if state.cursors[piece.partition].epoch != epochs[piece.partition]:
                raise FencedError(str(piece.partition), epochs[piece.partition])
        for token, piece in pieces:
            # A settlement that arrives late finds a newer plan open, or none.
            if state.open_tokens.get(piece.partition) == token:
                del state.open_tokens[piece.partition]
                state.cursors[piece.partition].next_offset = piece.next_offset
        still_open = set(state.open_tokens.values())
        state.plans = {token: plan for token, plan in state.plans.items() if token in still_open}
        for plan in plans:
            if plan.token not in still_open:
                self._planned_at.pop(plan.token, None)

    async def late(self, projection: str, draft: Draft, epoch: int) -> set[int]:
        """As the seam says."""
        state = self._of(projection)
        if state.cursors[draft.partition].epoch != epoch:
            raise FencedError(str(draft.partition), epoch)
        return state.learn([draft]).get(draft.partition, set())

    async def cursors(self, projection: str) -> dict[Partition, int]:
        """As the seam says."""
        return {each: cursor.next_offset for each, cursor in self._of(projection).cursors.items()}

    def _aged(self, plan: Plan) -> Plan:
        return replace(plan, age_seconds=self._now_seconds() - self._planned_at[plan.token])

    def _of(self, projection: str) -> _State:
        return self._projections.setdefault(projection, _State())
