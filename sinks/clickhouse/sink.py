"""The ClickHouse sink: plan, insert, settle.

A batch's rows are made ready for sending first: whatever our code makes of a record must be known before a plan holds
it for good. Then a batch becomes one plan per topic, pinned in Postgres together with its exclusions; each plan is one
insert under its token; then the cursors move. Whatever dies in between leaves a plan open, and whoever owns one of its
partitions next inserts exactly the same rows again under the same token, which ClickHouse drops where it has them
(plans.py). It drops them too where it noted the token and then failed, so what was repeated is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import structlog

from schemas.errors import (
    GapError,
    IntegrityError,
    QuaestorError,
    RejectedError,
    Rejection,
    StoreUnavailableError,
)
from sinks.clickhouse import queries
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.known import KnownRows
from sinks.clickhouse.native import NativeWriter, Pieces
from sinks.clickhouse.plans import Draft, Known, Misplaced, Piece, Plan, PlanStore, plans_of
from sinks.clickhouse.ranges import RangeReader
from sinks.clickhouse.reached import Reached, behind
from sinks.clickhouse.redrive import redrive_rows
from sinks.clickhouse.rollups import Rollups
from sinks.clickhouse.tables import TABLES
from sinks.postgres.tables import content_hash
from sinks.runner.columns import Rows, selections
from sinks.runner.seam import Batch, BatchPolicy, Decoded, Sink, Span, between
from sinks.runner.steps import Steps
from streams.log import Partition

log = structlog.get_logger()

PROJECTION = "clickhouse@v1"
#: One insert per topic and batch, two or three batches a second: few parts, and fresh enough.
POLICY = BatchPolicy(records_max=20_000, age_milliseconds=400, takes_columns=True)
#: A plan older than this may have left the window of deduplication, so its rows are counted first. With the time that
#: may pass behind that, below migrations.WINDOW_INSERTS at sixteen inserts a second into one table: four processes that
#: catch up.
TRUSTED_AGE_SECONDS = 300
#: What is inserted was answered by the plans' store no longer ago than this: whoever was held up since, stopped or
#: asleep, may have a successor that did all of it, so long ago that no token is left. It asks again and is fenced.
HELD_UP_SECONDS_MAX = 300
#: An insert of an earlier try may note its token this long before its rows are seen; nothing is repaired before.
DROPPED_AGE_SECONDS = 10
#: How often a batch is trimmed to where the store stands before the runner is asked to try again.
TRIMS_MAX = 4
WRITERS = {topic: NativeWriter(table) for topic, table in TABLES.items()}


class Prepared(NamedTuple):
    """An insert's rows as they are sent: a block, or columns where there is none."""

    row_count: int
    block: bytes | None
    columns: list[Any]


@dataclass(frozen=True)
class AtHand:
    """What this process has of what is to be inserted; anything else is read from the log again."""

    spans: Mapping[Partition, Span] = field(default_factory=dict)
    drafts: Sequence[Draft] = ()
    #: Ready to be sent, by the pieces of the plan they are expected to get.
    rows: Mapping[tuple[Piece, ...], Prepared] = field(default_factory=dict)
    #: When the plans' store was asked what there is to insert, by the sink's clock.
    asked_at: float = 0.0


def since_boot_seconds() -> float:
    """A clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClickHouseSink(Sink):
    """Projects the fact topics into ClickHouse, each event once."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        plans: PlanStore,
        ranges: RangeReader,
        policy: BatchPolicy = POLICY,
        projection: str = PROJECTION,
        now_seconds: Callable[[], float] = since_boot_seconds,
    ) -> None:
        """`ranges` reads the log again where a plan was left open; all three belong to this sink from now on."""
        self.projection = projection
        self.topics = tuple(TABLES)
        self.policy = policy
        self._clickhouse = clickhouse
        self._plans = plans
        self._ranges = ranges
        self._rollups = Rollups(clickhouse)
        self._now_seconds = now_seconds
        self._epochs: dict[Partition, int] = {}
        self._reached = Reached()
        #: What the next batch most likely has, and of what it was made; set by the consuming thread, as a whole.
        self._prepared: tuple[list[tuple[Span, int, Sequence[Decoded]]], AtHand] = ([], AtHand())

    async def open(self) -> None:
        """As the seam says."""
        await self._plans.open()
        await self._clickhouse.open()

    async def close(self) -> None:
        """As the seam says."""
        await self._clickhouse.close()
        await self._plans.close()

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """As the seam says; what an earlier owner planned is completed first, so its cursor includes it."""
        held = await self._plans.claim(self.projection, partitions, topic_ids)
        epochs = {partition: each.epoch for partition, each in held.items()}
        cursors = {partition: each.next_offset for partition, each in held.items()}
        asked_at = self._now_seconds()
        left_open = await self._plans.left_open(self.projection, partitions)
        if left_open:
            log.info("plans_recovered", sink=self.projection, plans=len(left_open))
            await self._insert_all(left_open, AtHand(asked_at=asked_at), repeated=True)
            await self._plans.settle(self.projection, left_open, epochs)
        for plan in left_open:
            cursors |= {each.partition: each.next_offset for each in plan.pieces if each.partition in epochs}
        self._reached.note(cursors | await behind(self._clickhouse, cursors, topic_ids))
        self._epochs |= epochs
        return cursors

    async def write(self, batch: Batch) -> None:
        """As the seam says."""
        _refuse(batch)
        self.steps = steps = Steps()
        spans = [span for span in batch.spans if span.next_offset > span.first_offset]
        for _ in range(TRIMS_MAX):
            if not spans:
                return
            with steps.step("rows"):
                at_hand = replace(self._ready(spans), asked_at=self._now_seconds())
            with steps.step("plan"):
                drafts = self._reached.marked(at_hand.drafts)
                planned = await self._plans.plan(self.projection, drafts, self._epochs)
            if isinstance(planned, Misplaced):
                spans = _trimmed(spans, planned.held)
                continue
            with steps.step("insert"):
                await self._insert_all(planned.plans, at_hand, repeated=planned.left_open)
            with steps.step("settle"):
                await self._plans.settle(self.projection, planned.plans, self._epochs)
            settled = {piece.partition: piece.next_offset for plan in planned.plans for piece in plan.pieces}
            spans = _trimmed(spans, settled)
        if spans:
            raise StoreUnavailableError("the cursors keep moving under this batch")

    async def redrive(self, span: Span) -> None:
        """As the seam says: what has a row stays; the rest is one insert, whose token names exactly its offsets.

        Whether an earlier try died between a record's row and its rollup nobody knows, so their hours are compared.
        """
        _refuse(Batch([span], 0))
        guard = self._guard(f"redriving {span.partition}", self._now_seconds())
        repeated = await self._plans.late(self.projection, _draft(span), self._epochs.get(span.partition, 0))
        wanted = [record for record in span.records if record.offset not in repeated]
        await redrive_rows(self._clickhouse, self.projection, span, wanted, guard)
        await self._rollups.mend_records(span.partition.topic, wanted)

    async def heartbeat(self, end_offsets: Mapping[Partition, int]) -> None:
        """Nothing to look after: ClickHouse does not lose what it acknowledged without saying so."""

    async def release(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        self._reached.forget(partitions)
        for partition in partitions:
            self._epochs.pop(partition, None)

    def prepare(self, spans: Sequence[Span]) -> None:
        """As the seam says: what is entered into the index, and the rows."""
        spans = [span for span in spans if span.next_offset > span.first_offset]
        self._prepared = ([(span, span.next_offset, span.records) for span in spans], self._made_of(spans))

    def _ready(self, spans: Sequence[Span]) -> AtHand:
        """Rows of the plans these spans get when none of their events was met before.

        What raises here is a fault of our code about some record; raised once a plan holds the record, it would be
        raised for every record that shares the plan.
        """
        made_of, prepared = self._prepared
        same = len(made_of) == len(spans) and all(
            span is one and span.records is records and span.next_offset == following
            for span, (one, following, records) in zip(spans, made_of, strict=True)
        )
        return prepared if same else self._made_of(spans)

    def _made_of(self, spans: Sequence[Span]) -> AtHand:
        drafts = [_draft(span) for span in spans]
        held = {span.partition: span for span in spans}
        rows = {
            plan.pieces: self._made(plan.topic, [_piece_of(piece, held[piece.partition]) for piece in plan.pieces])
            for plan in plans_of(self.projection, drafts, {})
        }
        return AtHand(held, drafts, rows)

    async def _rows(self, plan: Plan, at_hand: AtHand) -> Prepared:
        ready = at_hand.rows.get(plan.pieces)
        if ready is not None:
            return ready
        spans = at_hand.spans
        pieces = [
            (piece.partition.number, piece.topic_id, await self._records(piece, spans.get(piece.partition)))
            for piece in plan.pieces
        ]
        return self._made(plan.topic, pieces)

    def _made(self, topic: str, pieces: Pieces) -> Prepared:
        count = sum(len(records) for _, _, records in pieces)
        block = WRITERS[topic].block(pieces) if count else None
        return Prepared(count, block, TABLES[topic].columns_of(pieces) if count and block is None else [])

    async def _insert_all(self, plans: Sequence[Plan], at_hand: AtHand, *, repeated: bool) -> None:
        """Insert plans beside each other, `repeated` when they may have been before; raises as `write` does."""
        for plan in plans:
            self._reached.sends(plan)
        inserts = (self._insert_once(plan, at_hand, repeated=repeated) for plan in plans)
        outcomes = await asyncio.gather(*inserts, return_exceptions=True)
        for plan, outcome in zip(plans, outcomes, strict=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, QuaestorError):
                # Of no record in particular, as far as anybody can tell now: nothing sound may be blamed.
                raise IntegrityError(f"the plan {plan.token} can't be inserted: {type(outcome).__name__}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome

    async def _insert_once(self, plan: Plan, at_hand: AtHand, *, repeated: bool) -> None:
        is_trusted = plan.age_seconds < TRUSTED_AGE_SECONDS and not plan.is_counted
        if is_trusted or not await self._is_begun(plan):
            await self._insert(plan, at_hand)
        if repeated or plan.is_counted:
            await self._keep_whole(plan, at_hand)

    async def _keep_whole(self, plan: Plan, at_hand: AtHand) -> None:
        """Bring what a repeat was to bring and did not; raises StoreUnavailableError while that is open.

        ClickHouse notes a token before the rows are in place. A full disk in between, or a part that is broken at the
        next start, leaves the token alone, and every repeat is dropped. An old plan whose rows are there in part has
        no token left to repeat it under. And a view may lack what its facts have, or count what they lost.
        """
        missing = plan.row_count - await self._counted(plan)
        if missing > 0:
            await self._add_missing(plan, at_hand, missing)
        await self._rollups.mend(plan.topic, plan.pieces)

    async def _add_missing(self, plan: Plan, at_hand: AtHand, missing: int) -> None:
        """Insert by offset."""
        if plan.age_seconds < DROPPED_AGE_SECONDS:
            raise StoreUnavailableError(f"{missing} rows of the plan {plan.token} are not to be seen yet")
        log.error("plan_was_dropped", sink=self.projection, token=plan.token, rows=missing)
        guard = self._guard(plan.token, at_hand.asked_at)
        for piece in plan.pieces:
            records = await self._records(piece, at_hand.spans.get(piece.partition))
            span = Span(piece.partition, piece.topic_id, piece.first_offset, piece.next_offset)
            await redrive_rows(self._clickhouse, self.projection, span, records, guard)
        if await self._counted(plan) != plan.row_count:
            raise StoreUnavailableError(f"ClickHouse drops rows of the plan {plan.token}")

    def _guard(self, what: str, asked_at: float) -> Callable[[], None]:
        return partial(_refuse_held_up, what, asked_at, self._now_seconds)

    async def _insert(self, plan: Plan, at_hand: AtHand) -> None:
        table, rows = TABLES[plan.topic], await self._rows(plan, at_hand)
        guard = self._guard(plan.token, at_hand.asked_at)
        if rows.block is not None:
            await self._clickhouse.insert_block(table.name, rows.block, plan.token, guard)
        elif rows.row_count:
            names, types = table.column_names, table.column_types
            await self._clickhouse.insert(table.name, names, types, rows.columns, plan.token, guard)
        log.debug("plan_inserted", sink=self.projection, token=plan.token, rows=rows.row_count)

    async def _records(self, piece: Piece, span: Span | None) -> Sequence[Decoded]:
        """The rows of a piece, from the batch where it holds all of them, else from the log."""
        first, after = piece.first_offset, piece.next_offset
        if span is not None and span.first_offset <= first and after <= span.next_offset:
            return _piece_of(piece, span)[2]
        return await self._ranges.read(piece.partition, first, after, frozenset(piece.excluded))

    async def _is_begun(self, plan: Plan) -> bool:
        """Whether rows of an old plan are in the table; raises IntegrityError when there are more than it has."""
        counted = await self._counted(plan)
        if counted > plan.row_count:
            raise IntegrityError(f"the plan {plan.token} has {plan.row_count} rows, {counted} are there")
        if counted:
            log.warning("old_plan_found", sink=self.projection, token=plan.token, rows=counted)
        return counted > 0

    async def _counted(self, plan: Plan) -> int:
        """Rows of a plan that are in the table."""
        sql = queries.count_range(self._clickhouse.database, TABLES[plan.topic].name)
        return sum([int((await self._clickhouse.query(sql, piece.named()))[0][0]) for piece in plan.pieces])


def _refuse_held_up(what: str, asked_at: float, now_seconds: Callable[[], float]) -> None:
    """Raise StoreUnavailableError when it is too long ago that this was to be inserted."""
    held_up = now_seconds() - asked_at
    if held_up > HELD_UP_SECONDS_MAX:
        raise StoreUnavailableError(f"{what} was held up for {held_up:.0f} s and is asked for again")


def _refuse(batch: Batch) -> None:
    """Raise RejectedError for records the tables would not take, before anything is planned."""
    refused = []
    for span in batch.spans:
        # What has columns was measured by the same rules when it was screened.
        _, plain = selections(span.records)
        for record in plain:
            reason = TABLES[span.partition.topic].refusal(record.fields)
            if reason is not None:
                refused.append(Rejection(*span.partition, record.offset, reason, semantic=True))
    if refused:
        raise RejectedError(tuple(refused))


def _piece_of(piece: Piece, span: Span) -> tuple[int, str, Sequence[Decoded]]:
    """A piece with its rows, from the span that holds all of them."""
    records = between(span.records, piece.first_offset, piece.next_offset)
    if isinstance(records, Rows):
        records = records.without(piece.excluded)
    else:
        excluded = frozenset(piece.excluded)
        records = [record for record in records if record.offset not in excluded]
    return piece.partition.number, piece.topic_id, records


def _draft(span: Span) -> Draft:
    poison = [each.offset for each in span.poison]
    return Draft(span.partition, span.topic_id, span.first_offset, span.next_offset, _known(span.records), poison)


def _known(records: Sequence[Decoded]) -> Sequence[Known]:
    """What the id index keeps of records, in the order of their offsets."""
    chosen, plain = selections(records)
    if len(chosen) == 1 and not plain:
        return KnownRows(chosen[0])
    known = [
        Known(fields["tenant_id"], fields["event_id"], fields["occurred_at"], offset, content_hash(record.value))
        for offset, fields, record in plain
    ]
    known += [event for each in chosen for event in KnownRows(each)]
    known.sort(key=lambda event: event.offset)
    return known


def _trimmed(spans: Sequence[Span], stands: Mapping[Partition, int]) -> list[Span]:
    """What of the spans lies behind where their partitions stand now; raises GapError."""
    remaining = []
    for span in spans:
        cursor = stands.get(span.partition, span.first_offset)
        if cursor < span.first_offset:
            raise GapError(str(span.partition), cursor, span.first_offset)
        if cursor < span.next_offset:
            remaining.append(span.after(cursor))
    return remaining
