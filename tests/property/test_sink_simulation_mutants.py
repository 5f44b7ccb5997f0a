"""Sinks that are broken on purpose, in the simulation: each must be caught, or the simulation sees nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from schemas.errors import FencedError
from sinks.clickhouse.plans import Piece, Plan
from sinks.clickhouse.sink import AtHand, ClickHouseSink, _draft
from sinks.fake import MemorySink
from sinks.redis.gate import Gates
from sinks.redis.sink import RedisSink
from sinks.runner.assembler import Assembler
from sinks.runner.seam import Batch, Decoded, Span
from streams.log import Partition
from tests.support.simulation import Simulation, SimulationError
from tests.support.simulation_process import Process
from tests.support.simulation_redis import RedisServer
from tests.support.simulation_run import machine_of, simulate
from tests.support.simulation_stores import ClickHouseBench, MemoryBench, RedisBench

SEED = 5
#: Numbers under which rarer faults come early.
SEEDS = {
    "another range on retry": 10,
    "nobody looks at the time": 1,
    "the cursor of Redis is kept elsewhere": 10,
    "the reader's jumps are believed": 10,
}
EXAMPLES = 250
#: Numbers that are tried for one: what a number means changes with the sources that Hypothesis finds constants in.
NUMBERS_MAX = 6
NUMBERS = count()


class NoCursor(MemorySink):
    """Applies a batch wherever the cursor stands."""

    def _unapplied(self, span: Span) -> Span:
        cursor = self.store.cursors.get(span.partition)
        if cursor is None or cursor.epoch != self._epochs.get(span.partition, 0):
            raise FencedError(str(span.partition), 0)
        return span


class NoFence(MemorySink):
    """Applies whoever's batch."""

    def _unapplied(self, span: Span) -> Span:
        cursor = self.store.cursors.get(span.partition)
        self._epochs[span.partition] = cursor.epoch if cursor else 0
        return super()._unapplied(span)


class NoIds(MemorySink):
    """Keeps an event as often as it stands in the log."""

    def _keep(self, span: Span) -> None:
        for record in span.records:
            self.store.rows[record.fields["tenant_id"], f"{span.partition}@{record.offset}"] = (span.partition, record)


class NoPoison(MemorySink):
    """Passes poison without keeping it."""

    async def write(self, batch: Batch) -> None:
        """Write the rest."""
        spans = [replace(span, poison=[]) for span in batch.spans]
        await super().write(Batch(spans, batch.now_micros))


class ForgetsToken(ClickHouseSink):
    """Makes a token for each try."""

    async def _insert(self, plan: Plan, at_hand: AtHand) -> None:
        await super()._insert(replace(plan, token=f"{plan.token}#{next(NUMBERS)}"), at_hand)


class OtherRange(ClickHouseSink):
    """Inserts what it has at hand under the plan's token, rather than what was planned."""

    async def _records(self, piece: Piece, span: Span | None) -> list[Decoded]:
        if span is None:
            return await super()._records(piece, span)
        return [record for record in span.records if record.offset not in piece.excluded]


class NoExclusions(ClickHouseSink):
    """Inserts events that were met before."""

    async def _records(self, piece: Piece, span: Span | None) -> list[Decoded]:
        return await super()._records(replace(piece, excluded=()), span)


class NoRecovery(ClickHouseSink):
    """Takes an open plan of the owner before for done."""

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Settle it without inserting."""
        inserting, self._insert_once = self._insert_once, self._nothing  # type: ignore[method-assign]
        try:
            return await super().claim(partitions, topic_ids)
        finally:
            self._insert_once = inserting  # type: ignore[method-assign]

    async def _nothing(self, plan: Plan, at_hand: AtHand, *, repeated: bool) -> None:
        """Insert nothing."""


class LateRows(ClickHouseSink):
    """Makes rows only once a plan holds their records."""

    def _made_of(self, spans: Sequence[Span]) -> AtHand:
        return AtHand({span.partition: span for span in spans}, [_draft(span) for span in spans])


class TrustsEveryToken(ClickHouseSink):
    """Relies on the token of a plan however old."""

    async def _insert_once(self, plan: Plan, at_hand: AtHand, *, repeated: bool) -> None:
        await super()._insert_once(replace(plan, age_seconds=0.0), at_hand, repeated=repeated)


class NeverLate(ClickHouseSink):
    """Inserts what it was told to however long ago that was."""

    def _guard(self, what: str, asked_at: float) -> Callable[[], None]:
        return lambda: None


class CursorElsewhere(RedisSink):
    """Keeps its cursor outside of the server that can lose its state."""

    def __init__(self, url: str) -> None:
        """Remember nothing yet; a class remembers for all processes, as a database would."""
        super().__init__(url)
        self.elsewhere: dict[int, int] = {}

    async def _claim(self, number: int, topic_id: str, met: Collection[str] = ()) -> Any:
        owned = await super()._claim(number, topic_id, met)
        owned.cursor = max(owned.cursor, self.elsewhere.get(number, 0))
        return owned

    async def _apply(self, owned: Any, span: Span) -> None:
        await super()._apply(owned, span)
        self.elsewhere[owned.number] = owned.cursor


class NoBarrier(RedisSink):
    """Opens as soon as it has begun a generation."""

    async def _beat(self, owned: Any, end_offset: int) -> None:
        if not owned.owner.is_open:
            owned.barrier = 0
        await super()._beat(owned, end_offset)


class TellsOfNoRebuild(Gates):
    """Begins a generation without saying that its slots are made anew."""

    async def begin(self, *arguments: Any, **_: Any) -> str:
        """Begin one."""
        return await super().begin(*arguments)

    async def write(self, *arguments: Any, **options: Any) -> int:
        """Tell how far it is."""
        return await super().write(*arguments, **(options | {"rebuilding": False}))


class SaysTooMuch(RedisSink):
    """Tells the gate how far it has read, while Redis has nothing of it."""

    async def _write_gate(self, owned: Any, moved: Mapping[str, int], *, open_word: str = "") -> None:
        owned.first_offset = owned.cursor
        await super()._write_gate(owned, moved, open_word=open_word)


class FoldCounts(RedisBench):
    """A bench of sinks that take what is in their memory for applied."""

    sink_type = SaysTooMuch

    def sink(self, process: str) -> Any:
        """As the bench says."""
        made: Any = super().sink(process)
        made._gates = TellsOfNoRebuild(made._client)
        return made


class WholeAtOnce(RedisServer):
    """Takes a slot for one from its first part on."""

    def _begin_restore(self, keys: Sequence[str], epoch: str, token: str, more: Sequence[str]) -> Any:
        answer = super()._begin_restore(keys, epoch, token, more)
        if answer == [b"K"]:
            self.hashes[keys[0]] |= {"cursor": more[0], "generation": "none"}
        return answer

    def _slot(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        self.hashes.get(keys[0], {}).pop("restoring", None)
        return super()._slot(keys, arguments)


class BelievesJumps(Assembler):
    """Takes a later record than the next one for granted."""

    def _continues(self, partition: Partition, expected: int, offset: int) -> bool:
        return offset >= expected


class Jumping(Process):
    """A process whose assembler believes jumps."""

    assembler_type = BelievesJumps


#: What is broken, and the words of the promise that breaks by it.
BROKEN: dict[str, tuple[type[Any], type[Process], dict[str, Any], str]] = {
    "no comparison with the cursor": (MemoryBench, Process, {"sink_type": NoCursor}, "gap: "),
    "no epoch": (MemoryBench, Process, {"sink_type": NoFence}, r"process\d+ moved quaestor"),
    "no guard of ids": (MemoryBench, Process, {"sink_type": NoIds}, "duplicate: event"),
    "poison is dropped": (MemoryBench, Process, {"sink_type": NoPoison}, "gap: poison .* not in quarantine"),
    "the reader's jumps are believed": (MemoryBench, Jumping, {}, "gap: "),
    "the token is forgotten": (ClickHouseBench, Process, {"sink_type": ForgetsToken}, "duplicate: event"),
    # Rows of another range are found behind the cursor too, and stop their partition.
    "another range on retry": (
        ClickHouseBench,
        Process,
        {"sink_type": OtherRange},
        "duplicate: event|never came to rest",
    ),
    "exclusions are forgotten": (ClickHouseBench, Process, {"sink_type": NoExclusions}, "duplicate: event"),
    "open plans are not completed": (ClickHouseBench, Process, {"sink_type": NoRecovery}, "gap: "),
    "rows are made behind the plan": (ClickHouseBench, Process, {"sink_type": LateRows}, "inserted: FailingError"),
    "old tokens are trusted": (ClickHouseBench, Process, {"sink_type": TrustsEveryToken}, "duplicate: event"),
    "nobody looks at the time": (ClickHouseBench, Process, {"sink_type": NeverLate}, "duplicate: event"),
    "the cursor of Redis is kept elsewhere": (
        RedisBench,
        Process,
        {"sink_type": CursorElsewhere},
        "gap: gate|is not the fold",
    ),
    "a fold in memory counts as applied": (FoldCounts, Process, {}, "gap: gate"),
    "a half restored slot is taken for one": (RedisBench, Process, {"server_type": WholeAtOnce}, "is not the fold of"),
    "admission opens without a barrier": (RedisBench, Process, {"sink_type": NoBarrier}, "before the barrier"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_sink_is_caught(broken: str) -> None:
    """The machine that finds nothing in ours finds this one, by the promise that it breaks."""
    bench, process, parts, promise = BROKEN[broken]
    with pytest.raises(SimulationError, match=promise):
        _simulate(machine_of(bench, process, parts), SEEDS.get(broken, SEED))


def _simulate(machine: type[Simulation], first: int) -> None:
    for number in range(first, first + NUMBERS_MAX):
        simulate(machine, EXAMPLES, number, shortens=False)
