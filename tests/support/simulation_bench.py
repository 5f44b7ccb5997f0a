"""What every store of a simulation answers, and what benches have in common.

A bench makes sinks of processes, breaks in its own ways, and is looked at: it answers with broken promises in words, or
with nothing. All promise: the cursor has passed no record that is neither applied nor in quarantine (no gap), no event
is applied twice (no duplicate), nothing sound is in quarantine but what waits behind something that is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from schemas.events import QuarantineKind
from sinks.fake import MemoryQuarantine
from sinks.runner.seam import BatchPolicy, Sink
from streams.log import Partition
from tests.support.simulation_log import SimulatedLog
from tests.support.simulation_loop import VirtualLoop, Wire, drive

COSTS = tuple(Partition("quaestor.costs", number) for number in range(3))
BUDGETS = tuple(Partition("quaestor.budgets", number) for number in range(3))
SMALL = BatchPolicy(records_max=6, age_milliseconds=0)
Fault = Callable[[], None]


class Bench(Protocol):
    """One store under simulation."""

    projection: str
    partitions: tuple[Partition, ...]
    #: Whether one process has all partitions or none.
    moves_together: bool
    #: Whether records that were set aside can be applied after all.
    redrives: bool
    #: Whether the first heartbeat changes what writes do: then it comes before everything else.
    begins_with_a_beat: bool
    quarantine: MemoryQuarantine
    #: What can happen to the store itself; the calls under way are lost beforehand.
    faults: Mapping[str, Fault]

    def sink(self, process: str) -> Sink:
        """The sink of a new process."""

    def keeper(self, process: str) -> Any:
        """The quarantine as a process reaches it; None when the sink keeps poison itself."""

    def cursors(self) -> Mapping[Partition, int]:
        """Where the store stands."""

    def problems(self) -> Iterator[str]:
        """Broken promises at this moment."""

    def missing(self) -> Iterator[str]:
        """What is not applied though every cursor is at the end of the log."""


class Remote:
    """Something in memory, reached over the wire: every method is a call that the simulation carries out."""

    def __init__(self, target: Any, wire: Wire, process: str) -> None:
        """As a process reaches it."""
        self._target = target
        self._wire = wire
        self._process = process

    def __getattr__(self, name: str) -> Any:
        """A method or a plain attribute of the target."""
        found = getattr(self._target, name)
        if not callable(found):
            return found

        async def run(*arguments: Any, **options: Any) -> Any:
            return await self._wire.call(self._process, name, lambda: drive(found(*arguments, **options)))

        return run


class StoreBench:
    """What benches have in common."""

    moves_together = False
    redrives = False
    begins_with_a_beat = False

    def __init__(self, loop: VirtualLoop, wire: Wire, log: SimulatedLog) -> None:
        """An empty store beside this log."""
        self.loop = loop
        self.wire = wire
        self.log = log
        self.quarantine = MemoryQuarantine()
        self.faults: Mapping[str, Fault] = {}

    def keeper(self, process: str) -> Any:
        """As the bench says."""
        return Remote(self.quarantine, self.wire, process)

    def set_aside(self) -> dict[Partition, set[int]]:
        """Offsets that are in quarantine, parked or discarded."""
        found: dict[Partition, set[int]] = {}
        for row in self.quarantine.rows.values():
            if row.state != "REDRIVEN":
                found.setdefault(row.partition, set()).add(row.event.source_offset)
        return found

    def wrongly_set_aside(self) -> Iterator[str]:
        """Sound records in quarantine; to wait behind another one is no wrong."""
        for row in self.quarantine.rows.values():
            is_poison = row.event.source_offset in self.log.poison[row.partition]
            if not is_poison and row.event.kind is not QuarantineKind.PARKED:
                yield f"{row.partition}@{row.event.source_offset} is sound and in quarantine: {row.detail}"

    def gaps(self, cursors: Mapping[Partition, int], applied: set[str]) -> Iterator[str]:
        """Records below the cursor that are neither applied nor in quarantine."""
        aside = self.set_aside()
        for partition in self.log.records:
            end = cursors.get(partition, 0)
            for record in self.log.sound(partition, end):
                if record.fields["event_id"] not in applied and record.offset not in aside.get(partition, ()):
                    yield f"gap: {partition}@{record.offset} is below the cursor {end} and not applied"
            lost = {each for each in self.log.poison[partition] if each < end} - aside.get(partition, set())
            if lost:
                yield f"gap: poison {partition}@{min(lost)} is below the cursor {end} and not in quarantine"


def doubled(applied: Sequence[str]) -> Iterator[str]:
    """Events applied more than once."""
    for event_id, times in Counter(applied).items():
        if times > 1:
            yield f"duplicate: event {event_id} is applied {times} times"
