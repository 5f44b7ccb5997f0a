"""A deterministic simulation of a sink's whole protocol, as a state machine of Hypothesis.

Processes come, are given partitions, read, write, beat, are frozen with their calls under way, and die; calls arrive
late, twice removed from whoever sent them, or never, and their answers likewise; the store goes back, forgets or
restarts; the log has poison, holes and events produced twice. After every step the store must keep its promises; at the
end everything calms down and must be complete. Nothing depends on threads, clocks or chance beyond Hypothesis' own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.support.simulation_bench import Bench
from tests.support.simulation_fates import FATES, Fate
from tests.support.simulation_log import Kind, SimulatedLog
from tests.support.simulation_loop import Call, VirtualLoop, Wire, drive
from tests.support.simulation_process import Process

PROCESSES = 3
#: Steps in which everything must come to rest once nothing is disturbed any more.
CALM_STEPS_MAX = 60
#: Calls that follow from each other before something is called endless.
CALLS_MAX = 1_000
STEP_SECONDS = 31.0
NUMBERS = st.integers(0, 11)
#: The fault of a bench whose store forgets with time what it was told.
OUTAGE = "outage"


KINDS = st.sampled_from([*[Kind.EVENT] * 8, Kind.AGAIN, Kind.AGAIN, *Kind])


class SimulationError(AssertionError):
    """A promise was broken."""


class Simulation(RuleBasedStateMachine):
    """One store's machine; subclasses name the bench."""

    bench_type: ClassVar[Callable[[VirtualLoop, Wire, SimulatedLog], Bench]]
    partitions: ClassVar[tuple[Any, ...]]
    process_type: ClassVar[type[Process]] = Process

    def __init__(self) -> None:
        """An empty log and an empty store."""
        super().__init__()
        self.loop = VirtualLoop()
        self.wire = Wire(self.loop)
        self.log = SimulatedLog(self.partitions)
        self.bench = type(self).bench_type(self.loop, self.wire, self.log)
        self.processes: list[Process] = []
        self.owners: dict[Any, Process] = {}
        self.left_behind: list[asyncio.Task[Any]] = []
        self.failed = False
        self._started = 0

    @initialize(records=st.integers(1, 8))
    def begin(self, records: int) -> None:
        """One process has everything."""
        for _ in range(PROCESSES):
            self._start()
        self._give(self.partitions, self.processes[0])
        self._deliver_all()
        if self.bench.begins_with_a_beat:
            self.beat(process=0)
        for number in range(records):
            self.log.produce(self.partitions[number % len(self.partitions)], Kind.EVENT, number)
        self._check()

    @rule(partition=NUMBERS, kind=KINDS, picks=st.lists(NUMBERS, min_size=1, max_size=4))
    def produce(self, partition: int, kind: Kind, picks: list[int]) -> None:
        """Records arrive in the log."""
        for pick in picks:
            self.log.produce(self.partitions[partition % len(self.partitions)], kind, pick)

    @rule(process=NUMBERS, records=st.integers(1, 8))
    def write(self, process: int, records: int) -> None:
        """A process reads, and writes what it has; its calls wait on the wire."""
        chosen = self._process(process)
        chosen.go_on()
        chosen.take(records)
        chosen.submit()
        self._check()

    @rule(process=NUMBERS, records=st.integers(1, 8))
    def write_through(self, process: int, records: int) -> None:
        """The same, undisturbed."""
        self.write(process, records)
        self._deliver_all()
        self._check()

    @precondition(lambda self: self.wire.calls)
    @rule(call=NUMBERS, steps=st.integers(1, 4))
    def deliver(self, call: int, steps: int) -> None:
        """A call is carried out and answered, and a few more of that process."""
        process = self._call(call).process
        for _ in range(steps):
            found = next((each for each in self.wire.calls if each.process == process), None)
            if found is not None:
                self._finish(found)
        self._go_on()

    @rule(process=NUMBERS, records=st.integers(1, 4), steps=st.integers(0, 5), fate=FATES, more=st.integers(1, 8))
    def stumble(self, process: int, records: int, steps: int, fate: Fate, more: int) -> None:
        """A fault at a chosen call of a write; then somebody goes on, perhaps with another cut."""
        name = self._process(process).name
        self.write(process, records)
        for _ in range(steps):
            found = next((each for each in self.wire.calls if each.process == name), None)
            if found is not None:
                self._finish(found)
        self._go_on()
        mine = [number for number, each in enumerate(self.wire.calls) if each.process == name]
        if fate is Fate.ABANDON:
            self.abandon(process)
        elif fate is Fate.CRASH:
            self.crash(process)
        elif fate is Fate.ZOMBIE:
            self.rebalance(more, process + 1, is_told=False)
        elif fate is Fate.SPOIL and self.bench.faults:
            self.spoil(more)
        elif fate is Fate.OVERSLEEP and mine and OUTAGE in self.bench.faults:
            self._oversleep(self.wire.calls[mine[0]], self._process(process + 1))
        elif mine:
            self.lose(mine[0], is_executed=fate is Fate.LOSE_ANSWER)
        self.write_through(process, more)

    def _oversleep(self, answered: Call, successor: Process) -> None:
        """A process stops with an answer before it, and goes on when its successor's work is long forgotten."""
        if not answered.executed:
            answered.execute()
        answered.orphaned = True
        self._give(self.partitions, successor, is_told=False)
        self._deliver_all()
        for call in self.wire.calls:
            if call is not answered:
                call.lose()
        self.wire.calls = [answered]
        self.bench.faults[OUTAGE]()
        answered.orphaned = False
        self._pass_time()

    @precondition(lambda self: self.wire.calls)
    @rule(call=NUMBERS)
    def execute(self, call: int) -> None:
        """A call is carried out; its answer is late."""
        chosen = self._call(call)
        if not chosen.executed:
            chosen.execute()
        self._check()

    @precondition(lambda self: self.wire.calls)
    @rule(call=NUMBERS, is_executed=st.booleans())
    def lose(self, call: int, *, is_executed: bool) -> None:
        """The connection breaks, before or after the server did what it was asked."""
        chosen = self._call(call)
        if is_executed and not chosen.executed:
            chosen.execute()
        chosen.lose()
        self._pass_time()

    @rule(partition=NUMBERS, process=NUMBERS, is_told=st.booleans())
    def rebalance(self, partition: int, process: int, *, is_told: bool) -> None:
        """A partition moves; the owner before may not hear of it, and goes on as a zombie."""
        moved = self.partitions[partition % len(self.partitions)]
        self._give(self.partitions if self.bench.moves_together else (moved,), self._process(process), is_told=is_told)
        self._go_on()

    @rule()
    def reclaim(self) -> None:
        """Who was fenced and still has the group's word for a partition claims it again, after a while."""
        for partition, owner in sorted(self.owners.items()):
            if partition not in owner.applied:
                owner.claim([partition])
        self._go_on()

    @rule(process=NUMBERS)
    def abandon(self, process: int) -> None:
        """A write takes too long: it is cancelled, and its call may still arrive."""
        chosen = self._process(process)
        self._orphan(chosen)
        chosen.abandon()
        self._go_on()

    @rule(process=NUMBERS)
    def crash(self, process: int) -> None:
        """A process dies; its calls may still arrive, nobody hears their answers. Another takes its place."""
        index = process % len(self.processes)
        dead = self.processes[index]
        self._orphan(dead, is_dead=True)
        self.left_behind += dead.die()
        owned = [partition for partition, owner in self.owners.items() if owner is dead]
        del self.processes[index]
        self._start()
        if owned:
            self._give(owned, self.processes[-1], is_told=False)
        self._go_on()

    @rule(process=NUMBERS)
    def beat(self, process: int) -> None:
        """A heartbeat, undisturbed."""
        self._process(process).beat()
        self._deliver_all()
        self._check()

    @precondition(lambda self: self.bench.redrives and self._poison())
    @rule(letter=NUMBERS)
    def discard(self, letter: int) -> None:
        """A person gives up a record that can't be applied; what waited behind it is asked for."""
        letters = self._poison()
        drive(self.bench.quarantine.discard([letters[letter % len(letters)]], "cli/test", "no use"))
        self._check()

    @precondition(lambda self: self.bench.redrives and self.bench.quarantine.rows)
    @rule(letter=NUMBERS)
    def ask(self, letter: int) -> None:
        """A person asks for a record to be applied after all, poison or not."""
        letters = sorted(self.bench.quarantine.rows)
        drive(self.bench.quarantine.request([letters[letter % len(letters)]], "cli/test"))

    @precondition(lambda self: self.bench.redrives)
    @rule(process=NUMBERS, is_undisturbed=st.booleans())
    def tend(self, process: int, is_undisturbed: bool) -> None:
        """A process does what people asked for."""
        self._process(process).tend()
        if is_undisturbed:
            self._deliver_all()
        self._check()

    def _poison(self) -> list[str]:
        rows = self.bench.quarantine.rows
        return sorted(key for key, row in rows.items() if row.state == "QUARANTINED" and not row.in_cut)

    @rule(process=NUMBERS, partition=NUMBERS, ahead=st.integers(1, 3))
    def skip(self, process: int, partition: int, ahead: int) -> None:
        """A reader gives out a later record than the next one."""
        chosen = self.partitions[partition % len(self.partitions)]
        reads = self._process(process).reads.get(chosen)
        if reads is not None:
            self._process(process).skip(chosen, min(reads + ahead, self.log.ends[chosen]))

    @precondition(lambda self: self.bench.faults)
    @rule(fault=NUMBERS)
    def spoil(self, fault: int) -> None:
        """Something happens to the store: every connection breaks."""
        faults = sorted(self.bench.faults)
        for call in self.wire.calls:
            call.lose()
        self.wire.calls.clear()
        self.bench.faults[faults[fault % len(faults)]]()
        self._pass_time()

    def teardown(self) -> None:
        """Nothing is disturbed any more: everything must be applied, once, and nothing else."""
        try:
            if self.processes and not self.failed:
                self._calm_down()
        finally:
            self._end()

    def _calm_down(self) -> None:
        for call in list(self.wire.calls):
            if not call.executed:
                call.execute()
            self._check()
            call.answer()
        last = self._start()
        self._give(self.partitions, last)
        for _ in range(CALM_STEPS_MAX):
            # One that was fenced while it claimed would be started again.
            last.claim([partition for partition in self.partitions if partition not in last.applied])
            self._deliver_all()
            for process in self.processes:
                process.go_on()
                process.take(5)
                process.submit()
            self._deliver_all()
            last.beat()
            self._deliver_all()
            if self.bench.redrives and not list(self._behind(last)):
                drive(self.bench.quarantine.discard(self._poison(), "cli/test", "the end"))
                last.tend()
                self._deliver_all()
            self._check()
            if self._is_done(last):
                break
        problems = [*self._behind(last), *self.bench.missing(), *self._waiting()]
        if problems:
            raise SimulationError(f"never came to rest: {problems[0]}")

    def _is_done(self, last: Process) -> bool:
        return last.idle and not [*self._behind(last), *self.bench.missing(), *self._waiting()]

    def _waiting(self) -> Iterator[str]:
        """Sound records that still wait, once everything before them was discarded."""
        for row in self.bench.quarantine.rows.values() if self.bench.redrives else ():
            if row.state not in {"DISCARDED", "REDRIVEN"}:
                yield f"{row.partition}@{row.event.source_offset} is still {row.state}"

    def _behind(self, last: Process) -> Iterator[str]:
        """Records beyond the cursor; holes at the end of a partition hold no records."""
        cursors = self.bench.cursors()
        for partition in self.partitions:
            left = self.log.read(partition, cursors.get(partition, 0), 1)
            if left:
                known = last.applied.get(partition)
                yield f"{partition} stands at {cursors.get(partition, 0)}, {last.name} believes {known}"

    def _end(self) -> None:
        for process in self.processes:
            self.left_behind += process.die()
        for task in [*self.left_behind, *asyncio.all_tasks(self.loop)]:
            task.cancel()
        self.loop.settle()
        self.loop.close()

    def _start(self) -> Process:
        self._started += 1
        name = f"process{self._started}"
        made = self.process_type(name, self.loop, self.log, self.bench.sink, self.bench.keeper(name))
        opening = self.loop.create_task(made.sink.open())  # type: ignore[arg-type]
        self.loop.settle()
        self._deliver_of(name)
        opening.result()
        self.processes.append(made)
        return made

    def _give(self, partitions: Any, process: Process, *, is_told: bool = True) -> None:
        for partition in partitions:
            before = self.owners.get(partition)
            if before is not None and before is not process and is_told:
                self._orphan(before)
                before.revoke([partition])
            self.owners[partition] = process
        process.claim(list(partitions))

    def _process(self, number: int) -> Process:
        return self.processes[number % len(self.processes)]

    def _call(self, number: int) -> Call:
        return self.wire.calls[number % len(self.wire.calls)]

    def _orphan(self, process: Process, *, is_dead: bool = False) -> None:
        """Nobody waits any more for what this process writes, or for anything of a dead one; yet it may arrive."""
        for call in self.wire.calls:
            if call.process == process.name and (is_dead or process.is_writing):
                call.orphaned = True

    def _finish(self, call: Call) -> None:
        if not call.executed:
            call.execute()
        self._check()
        call.answer()
        self.wire.calls = [each for each in self.wire.calls if each is not call]
        self.loop.settle()

    def _deliver_of(self, process: str) -> None:
        while found := next((each for each in self.wire.calls if each.process == process), None):
            self._finish(found)

    def _deliver_all(self) -> None:
        """Everything under way is carried out and answered, and what follows from it, but for what was orphaned."""
        for _ in range(CALLS_MAX):
            for process in self.processes:
                process.go_on()
            found = next((each for each in self.wire.calls if not each.orphaned), None)
            if found is None:
                break
            self._finish(found)

    def _go_on(self) -> None:
        self.wire.calls = [call for call in self.wire.calls if call.orphaned or not call.future.done()]
        for process in self.processes:
            process.go_on()
        self._check()

    def _pass_time(self) -> None:
        self.loop.advance(STEP_SECONDS)
        self._go_on()

    def _check(self) -> None:
        problem = next(self._problems(), None)
        if problem is not None:
            self.failed = True
            raise SimulationError(problem)

    def _problems(self) -> Iterator[str]:
        for process in self.processes:
            for partition, why in process.broken.items():
                yield f"{process.name} stopped {partition}: {why}"
        yield from self.bench.problems()
