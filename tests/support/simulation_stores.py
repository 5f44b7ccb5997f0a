"""The stores of a simulation: the fake that ships with the runner, ClickHouse, Redis and the audit log."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from typing import Any

from processors.audit.commitment import Salts
from processors.budgets.live import LiveFold
from schemas.errors import FencedError
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.sink import AuditSink
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.plans import Plan
from sinks.clickhouse.sink import TRUSTED_AGE_SECONDS, ClickHouseSink
from sinks.fake import MemorySink, MemoryStore
from sinks.redis.gate import Gates
from sinks.redis.keys import gate_key, slot_keys, tenants_key
from sinks.redis.recall import Recall
from sinks.redis.restore import Restorer
from sinks.redis.sink import RedisSink
from sinks.redis.slot_event import slot_event
from sinks.redis.slots import Slots
from sinks.redis.snapshots import MemorySnapshots
from sinks.redis.snapshotter import Draft
from sinks.runner.seam import Sink, Span
from streams.log import Partition
from tests.support.simulation_bench import BUDGETS, COSTS, SMALL, Fault, Remote, StoreBench, doubled
from tests.support.simulation_clickhouse import ClickHouseConnection, ClickHouseServer, OneStep
from tests.support.simulation_log import (
    FAILING_MODEL,
    REFUSED_MODEL,
    TENANTS,
    FailingError,
    SimulatedLog,
    SimulatedRanges,
    fail_on,
)
from tests.support.simulation_loop import VirtualLoop, Wire, drive
from tests.support.simulation_redis import Movement, RedisConnection, RedisServer, folded, standing


def _refusal(fields: Mapping[str, Any]) -> str | None:
    if fields.get("model") == FAILING_MODEL:
        raise FailingError
    return "no" if fields.get("model") == REFUSED_MODEL else None


class MemoryBench(StoreBench):
    """The fake that ships with the runner: a transaction per batch, poison in it."""

    projection = "memory@v1"
    partitions = COSTS
    redrives = True
    sink_type: type[MemorySink] = MemorySink

    def __init__(self, loop: VirtualLoop, wire: Wire, log: SimulatedLog) -> None:
        """An empty store."""
        super().__init__(loop, wire, log)
        self.store = MemoryStore(refuses=_refusal)
        self.quarantine = self.store.quarantine
        self.faults = {"keep": self._keep, "put back": self._put_back}
        self._owners: dict[Partition, str] = {}
        #: Claimed before the store was put back: epochs went back too, so only the cursor stops these.
        self._of_before: set[str] = set()
        self._claimed: set[str] = set()
        self._seen: dict[Partition, int] = {}
        self.broken: list[str] = []
        self._kept: Any = None

    def sink(self, process: str) -> Sink:
        """As the bench says."""
        sink = self.sink_type(self.store, process, replace(SMALL, keeps_poison=True))
        bench = self

        class Watched(Remote):
            """Notes who moves which cursor."""

            async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Any:
                return await bench.wire.call(
                    process, "claim", lambda: bench.claimed(process, sink, partitions, topic_ids)
                )

            async def redrive(self, span: Any) -> None:
                await bench.wire.call(process, "redrive", lambda: drive(sink.redrive(span)))  # type: ignore[arg-type]

            async def write(self, batch: Any) -> None:
                await bench.wire.call(process, "write", lambda: bench.written(process, sink, batch))

        return Watched(sink, self.wire, process)  # type: ignore[return-value]

    def claimed(self, process: str, sink: Sink, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Any:
        """A claim arrives at the store."""
        found = drive(sink.claim(partitions, topic_ids))  # type: ignore[arg-type]
        self._owners.update(dict.fromkeys(partitions, process))
        self._claimed.add(process)
        return found

    def written(self, process: str, sink: Sink, batch: Any) -> None:
        """A batch arrives at the store."""
        before = self.cursors()
        try:
            drive(sink.write(batch))  # type: ignore[arg-type]
        finally:
            for partition, cursor in self.cursors().items():
                if cursor == before.get(partition, 0):
                    continue
                if cursor < before.get(partition, 0):
                    self.broken.append(f"the cursor of {partition} went back from {before[partition]} to {cursor}")
                if self._owners.get(partition, process) != process and process not in self._of_before:
                    self.broken.append(f"{process} moved {partition}, which is {self._owners[partition]}'s")

    def cursors(self) -> dict[Partition, int]:
        """As the bench says."""
        return {partition: cursor.next_offset for partition, cursor in self.store.cursors.items()}

    def problems(self) -> Iterator[str]:
        """As the bench says."""
        applied = [row.fields["event_id"] for _, row in self.store.rows.values()]
        yield from self.broken
        yield from doubled(applied)
        yield from self.gaps(self.cursors(), set(applied))
        yield from self.wrongly_set_aside()

    def missing(self) -> Iterator[str]:
        """Nothing beyond `problems`."""
        yield from ()

    def _keep(self) -> None:
        self._kept = copy.deepcopy((self.store.cursors, self.store.rows, vars(self.quarantine)))

    def _put_back(self) -> None:
        """A failover to a replica that is behind, or a backup: cursors, rows and quarantine go back together."""
        if self._kept is not None:
            self.store.cursors, self.store.rows, quarantine = copy.deepcopy(self._kept)
            vars(self.quarantine).update(quarantine)
            self._of_before |= self._claimed


class ClickHouseBench(StoreBench):
    """The real sink: plans in memory, a server without transactions."""

    projection = "clickhouse@v1"
    partitions = COSTS
    redrives = True
    sink_type: type[ClickHouseSink] = ClickHouseSink
    plans_type: type[MemoryPlanStore] = MemoryPlanStore
    outage_seconds = 2.0 * TRUSTED_AGE_SECONDS

    def __init__(self, loop: VirtualLoop, wire: Wire, log: SimulatedLog) -> None:
        """An empty server, no plans."""
        super().__init__(loop, wire, log)
        self.server = ClickHouseServer(loop)
        self.plans = self.plans_type(loop.time)
        self.faults = {"outage": self._outage}

    def sink(self, process: str) -> Sink:
        """As the bench says."""
        connection = ClickHouseConnection(self.server, self.wire, process)
        ranges = Remote(SimulatedRanges(self.log), self.wire, process)
        plans = Remote(self.plans, self.wire, process)
        sink = self.sink_type(connection, plans, ranges, SMALL, now_seconds=self.loop.time)  # type: ignore[arg-type]
        sink._rollups = OneStep()  # type: ignore[assignment]
        make, redrive = sink._made, sink.redrive

        def made(topic: str, pieces: Any) -> Any:
            fail_on(record for _, _, records in pieces for record in records)
            return make(topic, pieces)

        async def redriven(span: Span) -> None:
            fail_on(span.records)
            await redrive(span)

        sink._made, sink.redrive = made, redriven  # type: ignore[method-assign]
        return sink

    def cursors(self) -> dict[Partition, int]:
        """As the bench says."""
        found: dict[Partition, int] = drive(self.plans.cursors(self.projection))
        return found

    def problems(self) -> Iterator[str]:
        """As the bench says; the view's sums are those of the rows."""
        applied = [event_id for _, _, event_id, _ in self.server.rows]
        yield from doubled(applied)
        yield from self.gaps(self.cursors(), set(applied))
        yield from self.wrongly_set_aside()
        sums = [len(applied), sum(row[3] for row in self.server.rows)]
        if sums != self.server.rollup:
            yield f"the rollup has {self.server.rollup}, the rows {sums}"

    def missing(self) -> Iterator[str]:
        """No plan stays open."""
        left: list[Plan] = drive(self.plans.left_open(self.projection, self.partitions))
        if left:
            yield f"plan {left[0].token} is still open"

    def _outage(self) -> None:
        """Longer than the window: what was on its way has timed out, tokens are forgotten."""
        self.loop.now += self.outage_seconds
        self.server.forget()


class RedisBench(StoreBench):
    """The real sink of budgets: slots and gates in a server that can lose what it had."""

    projection = "redis@v1"
    partitions = BUDGETS
    redrives = True
    #: Until a barrier is reached, everything is folded in memory.
    begins_with_a_beat = True
    sink_type: type[RedisSink] = RedisSink
    server_type: type[RedisServer] = RedisServer

    def __init__(self, loop: VirtualLoop, wire: Wire, log: SimulatedLog) -> None:
        """An empty server."""
        super().__init__(loop, wire, log)
        self.server = self.server_type(loop)
        self.snapshots = MemorySnapshots()
        #: Where the log ended when the server lost something: no gate may open before it is there again.
        self._barriers: dict[Partition, int] = {}
        self.faults = {
            "keep": self.server.keep,
            "fail over": lambda: self._lose(self.server.fail_over),
            "flush": lambda: self._lose(self.server.flush),
            "restart": self.server.restart,
            "spoil a snapshot": self._spoil_snapshots,
        }

    def sink(self, process: str) -> Sink:
        """As the bench says."""
        sink = self.sink_type("redis://localhost:1")
        client: Any = RedisConnection(self.server, self.wire, process)
        sink.policy = SMALL
        sink._client, sink._slots, sink._gates = client, Slots(client), Gates(client)
        sink._restorer = Restorer(client)
        sink.recall = Recall(
            Remote(self.snapshots, self.wire, process), self._end_of, self.keeper(process), self.projection
        )
        apply_events = sink._apply_events

        async def applied(owned: Any, span: Any, following: int, *, is_late: bool = False) -> Any:
            fail_on(span.records)
            return await apply_events(owned, span, following, is_late=is_late)

        sink._apply_events = applied  # type: ignore[method-assign]
        return sink  # type: ignore[return-value]

    def cursors(self) -> dict[Partition, int]:
        """As the bench says."""
        gates = {each: self.server.hashes.get(gate_key(each.number), {}) for each in self.partitions}
        return {each: int(gate.get("cursor", 0)) for each, gate in gates.items()}

    def problems(self) -> Iterator[str]:
        """Each slot is the fold of its events below its own cursor; an open gate's slots are as far as the gate."""
        self._take_snapshots()
        for partition in self.partitions:
            gate = self.server.hashes.get(gate_key(partition.number), {})
            state = slot_keys(TENANTS[partition.number]).state
            slot = self.server.hashes.get(state, {})
            cursor = int(slot.get("cursor", 0))
            below = self._movements(partition, cursor)
            if not self._is_fold(partition, cursor, self.server.slots.get(state)):
                yield f"slot {TENANTS[partition.number]} is not the fold of its events below {cursor}"
            end = int(gate.get("cursor", 0))
            if gate.get("open") == "1" and gate["generation"].startswith(f"{self.server.run_id}:"):
                if len(self._movements(partition, end)) > len(below):
                    yield f"gap: gate {partition.number} is open at {end}, its slot stands at {cursor}"
                if end < self._barriers.get(partition, 0):
                    yield f"gate {partition.number} is open at {end}, before the barrier {self._barriers[partition]}"
        yield from self.wrongly_set_aside()
        aside = self.set_aside()
        for partition, end in self.cursors().items():
            lost = {each for each in self.log.poison[partition] if each < end} - aside.get(partition, set())
            if lost:
                yield f"gap: poison {partition}@{min(lost)} is below the cursor {end} and not in quarantine"

    def missing(self) -> Iterator[str]:
        """Every gate is open again."""
        for partition in self.partitions:
            if self.server.hashes.get(gate_key(partition.number), {}).get("open") != "1":
                yield f"gate {partition.number} is still closed"
            tenants = self.server.hashes.get(tenants_key(partition.number), {})
            if self._movements(partition, self.log.ends[partition]) and TENANTS[partition.number] not in tenants:
                yield f"partition {partition.number} does not know its tenant"

    async def _end_of(self, partition: Partition) -> int:
        return self.log.end(partition)

    def _take_snapshots(self) -> None:
        """Somebody takes one whenever a gate has moved on, as far as that is applied; at some offsets it fails."""
        for partition in self.partitions:
            gate = self.server.hashes.get(gate_key(partition.number), {})
            cursor = int(gate.get("cursor", 0))
            if cursor % 3 and cursor not in self.snapshots.kept.get(partition.number, {}):
                self._take_snapshot(partition, int(gate["cursor"]), int(gate["epoch"]))

    def _take_snapshot(self, partition: Partition, cursor: int, epoch: int) -> None:
        aside = self.set_aside().get(partition, set())
        draft = Draft(f"id-of-{partition.topic}", tuple(sorted(aside)), LiveFold(), cursor)
        for record in self.log.sound(partition, cursor):
            event = slot_event(record.offset, record.fields)
            if event is not None and record.offset not in aside:
                draft.fold.apply(TENANTS[partition.number], [event], record.offset + 1)
        snapshot, chunks = draft.packed(partition.number, 1)
        with suppress(FencedError):
            drive(self.snapshots.put(snapshot, epoch, chunks))

    def _spoil_snapshots(self) -> None:
        """A chunk of every snapshot is damaged."""
        self.snapshots.bodies = dict.fromkeys(self.snapshots.bodies, b"damaged")

    def _lose(self, fault: Fault) -> None:
        fault()
        # Redriven records lie below the cursor, so no claim finds that they are lost: a person asks for them again
        # (docs/concepts/exactly-once.md, what is not promised).
        drive(self.quarantine.request(list(self.quarantine.rows), "cli/test", again=True))
        self._barriers = {partition: self.log.end(partition) for partition in self.partitions}

    def _is_fold(self, partition: Partition, after: int, slot: LiveFold | None) -> bool:
        """Whether what a slot applied makes the state that its events below the cursor make.

        What is being redriven is applied just before the quarantine hears of it; what a person asked for again, after
        the server lost its state, may be applied or not.
        """
        rows = [row for row in self.quarantine.rows.values() if row.partition == partition]
        perhaps = [row.event.source_offset for row in rows if row.in_cut or (row.state == "REDRIVEN" and row.requested)]
        state = standing(slot)
        return any(
            folded(self._movements(partition, after, frozenset(chosen))) == state
            for count in range(len(perhaps) + 1)
            for chosen in combinations(perhaps, count)
        )

    def _movements(self, partition: Partition, after: int, redriven: frozenset[int] = frozenset()) -> list[Movement]:
        """The movements below an offset that are applied, or would be once `redriven` is."""
        found = []
        rows = [row for row in self.quarantine.rows.values() if row.partition == partition]
        waiting = [row for row in rows if row.state != "REDRIVEN" or row.requested or row.in_cut]
        aside = {row.event.source_offset for row in waiting} - redriven
        for record in self.log.sound(partition, after):
            event = slot_event(record.offset, record.fields)
            if event is not None and record.offset not in aside:
                found.append((event.kind, event.hold_id, tuple(event.legs)))
        return found


class _NoFiles:
    """A publisher that has always published everything: the files of the audit log have their own tests."""

    size = published_size = 1 << 62

    def offer(self, first_seq: int, entries: list[bytes]) -> None:
        """Keep nothing."""

    async def check(self, state: Any) -> None:
        """All is well."""

    async def open(self, state: Any) -> None:
        """All is well."""

    async def publish(self) -> bool:
        """Nothing to do."""
        return False


class AuditBench(StoreBench):
    """The real sink and sequencer over the log's rows in memory; every record is an entry, poison too."""

    projection = "audit@v1"
    partitions = COSTS
    moves_together = True

    def __init__(self, loop: VirtualLoop, wire: Wire, log: SimulatedLog) -> None:
        """An empty log."""
        super().__init__(loop, wire, log)
        self.store = MemoryAuditStore()

    def keeper(self, process: str) -> Any:
        """The sink keeps poison itself."""
        return None

    def sink(self, process: str) -> Sink:
        """As the bench says."""
        sink = AuditSink(Remote(self.store, self.wire, process), _NoFiles(), Salts(bytes(32)), process)  # type: ignore[arg-type]
        sink.policy = replace(SMALL, keeps_poison=True, takes_everything=True)
        return sink

    def cursors(self) -> dict[Partition, int]:
        """As the bench says."""
        found: dict[Partition, int] = drive(self.store.cursors())
        return found

    def problems(self) -> Iterator[str]:
        """Each record below its cursor is exactly one entry, in the order of its partition."""
        for partition in self.partitions:
            end = self.cursors().get(partition, 0)
            entered = [row.offset for row in self.store.stored if (row.topic, row.partition) == partition]
            expected = [record.offset for record in self.log.records[partition] if record.offset < end]
            if entered != expected:
                yield f"{partition} below {end} has entries {entered}, the log {expected}"
        if [row.seq for row in self.store.stored] != list(range(len(self.store.stored))):
            yield "the log's positions are not one after the other"

    def missing(self) -> Iterator[str]:
        """Nothing beyond `problems`."""
        yield from ()
