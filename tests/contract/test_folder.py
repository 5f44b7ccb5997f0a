"""What who folds apart promises: threads over the log in memory, and processes over a real Kafka and registry."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import psutil
import pytest

from processors.budgets.live import LiveFold
from schemas import limits
from schemas.events import BudgetEvent
from schemas.topics import BUDGETS
from sinks.redis import worker
from sinks.redis.apart import Apart, Folded, Folder, ThreadFolder
from sinks.redis.errands import Errand
from sinks.redis.processes import ProcessFolder
from sinks.redis.slices import Slices
from sinks.redis.worker import Job
from streams.codec import Codec, LocalSchemas
from streams.kafka import KafkaPublisher, KafkaReader
from streams.log import LogReader, OutgoingRecord, Partition, Publisher
from streams.memory import MemoryLog
from streams.partitioner import partition_of
from streams.recorder import Recorder
from streams.records import outgoing
from streams.registry import RegistrySchemas
from streams.runs import runs_of
from tests.budget_world import Events, hold_id, leg
from tests.support.kafka_server import fresh_product_topics
from tests.support.registry_server import registry_url

PROJECTION = "redis@v1"
SECONDS = 30.0
ENTRIES_MAX = 10_000
TENANTS = ("acme", "beta", "core", "delta")
PARTITIONS = sorted({partition_of(name.encode(), BUDGETS.partitions) for name in TENANTS})


class World:
    """A log and somebody who folds it; what was in the log before the test is not asked for."""

    def __init__(
        self,
        codec: Codec,
        publisher: Publisher,
        make_reader: Callable[[], LogReader],
        make_folder: Callable[[int], Folder],
    ) -> None:
        """Begin where the log ends."""
        self.codec, self.publisher, self.make_reader, self.make_folder = codec, publisher, make_reader, make_folder
        self.folder = make_folder(ENTRIES_MAX)
        self.firsts = self.ends()
        self.events = {name: Events(name) for name in TENANTS}

    def ends(self) -> dict[int, int]:
        """Where the partitions end."""
        reader = self.make_reader()
        try:
            found = reader.end_offsets([Partition(BUDGETS.name, number) for number in PARTITIONS], SECONDS)
        finally:
            reader.close()
        return {place.number: end for place, end in found.items()}

    async def spend(self, holds: int, tenants: Sequence[str] = TENANTS) -> None:
        """Holds of these tenants; most are charged, some stay open, some run out."""
        made: list[BudgetEvent] = []
        for number in range(holds):
            for events in map(self.events.__getitem__, tenants):
                placed = events.placed(hold_id(number), leg(3), leg(2, "another"))
                ends = [events.committed(placed, 2), events.released(placed), events.expired(placed), None]
                made += [each for each in (placed, ends[number % len(ends)]) if each is not None]
        await Recorder(self.publisher, self.codec).record(made)

    async def write(self, record: OutgoingRecord) -> None:
        """A record as it is."""
        ended = threading.Event()
        self.publisher.publish([record], lambda _: ended.set())
        assert await asyncio.to_thread(ended.wait, SECONDS)

    def errands(self, *, is_strict: bool = True, set_aside: tuple[int, ...] = ()) -> list[Errand]:
        """All that came since."""
        seconds = limits.HOLD_TOMBSTONE_SECONDS
        return [
            Errand(number, "topic", self.firsts[number], end, set_aside, is_strict, seconds)
            for number, end in self.ends().items()
        ]

    async def folded(self, errands: list[Errand]) -> dict[int, Folded]:
        """What came of them."""
        return await results(self.folder.begin(errands))

    def fold(self, errand: Errand, end: int | None = None) -> LiveFold:
        """The same in this thread, record by record."""
        fold, place = LiveFold(errand.remembered_seconds), Partition(BUDGETS.name, errand.partition)
        reader, slices, cursor = self.make_reader(), Slices(self.codec, PROJECTION), errand.first
        reader.assign({place: cursor})
        while cursor < (errand.end if end is None else end):
            for record in reader.consume(1, SECONDS):
                found = slices.read(place, runs_of([record]), "topic", frozenset(errand.set_aside))
                cursor = record.offset + 1
                for tenant_id, events in found.movements.by_tenant.items():
                    fold.apply(tenant_id, events, cursor)
        reader.close()
        return fold


async def results(aparts: list[Apart]) -> dict[int, Folded]:
    """What came of them."""
    found = await asyncio.wait_for(asyncio.gather(*(each.result for each in aparts)), SECONDS)
    return {apart.errand.partition: folded for apart, folded in zip(aparts, found, strict=True)}


def said(fold: LiveFold) -> object:
    """What a fold says, without cursors of tenants: those may stand anywhere behind their last event."""
    tenants = {name: (live.posted, live.held, live.holds) for name, live in fold.tenants.items()}
    ended = {minute: {name: how for name, how in of.items() if how} for minute, of in fold.ended.items()}
    return tenants, ended, fold.size


@pytest.fixture(scope="module")
def kafka() -> str:
    """A broker with the product's topics."""
    return fresh_product_topics()


@pytest.fixture(scope="module")
def registry() -> str:
    """A registry with our schemas."""
    return registry_url()


def thread_world() -> World:
    """In this process."""
    log, codec = MemoryLog(), Codec(LocalSchemas())
    make = lambda entries_max: ThreadFolder(log.reader, codec, PROJECTION, entries_max)  # noqa: E731 - one line
    return World(codec, log.publisher(), log.reader, make)


def process_world(kafka: str, registry: str) -> World:
    """In two processes."""
    return World(
        Codec(RegistrySchemas(registry)),
        KafkaPublisher(kafka),
        lambda: KafkaReader(kafka),
        lambda entries_max: ProcessFolder(kafka, registry, PROJECTION, 2, entries_max),
    )


@pytest.fixture
async def processes(kafka: str, registry: str) -> AsyncIterator[World]:
    """In two processes."""
    world = process_world(kafka, registry)
    yield world
    await world.folder.close()
    world.publisher.close()


@pytest.fixture(params=["thread", pytest.param("processes", marks=pytest.mark.stack)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """One of them."""
    if request.param == "thread":
        world = thread_world()
    else:
        world = process_world(request.getfixturevalue("kafka"), request.getfixturevalue("registry"))
    yield world
    await world.folder.close()
    world.publisher.close()


async def test_what_is_folded_apart_is_the_fold_of_the_log(world: World) -> None:
    """Of every partition, up to the end that was asked for, and not of what came after it."""
    await world.spend(40)
    errands = world.errands()
    await world.spend(8)
    found = await world.folded(errands)

    assert {each.partition: each.end for each in errands} == {number: each.cursor for number, each in found.items()}
    for errand in errands:
        assert said(found[errand.partition].fold) == said(world.fold(errand))


async def test_what_was_set_aside_moves_nothing(world: World) -> None:
    """It is passed over, and the rest is folded."""
    await world.spend(4)
    aside = world.firsts[PARTITIONS[0]] + 1
    errands = world.errands(set_aside=(aside,))
    found = await world.folded(errands)

    assert found[PARTITIONS[0]].cursor == errands[0].end
    assert said(found[PARTITIONS[0]].fold) == said(world.fold(errands[0]))


@pytest.mark.parametrize("is_strict", [True, False])
async def test_a_record_nobody_set_aside_and_nobody_can_read_is_the_sinks_to_judge(
    world: World, *, is_strict: bool
) -> None:
    """The fold ends before it; where nothing is ever set aside, it is passed over."""
    await world.spend(4)
    number = partition_of(b"acme", BUDGETS.partitions)
    bad = world.ends()[number]
    await world.write(OutgoingRecord(BUDGETS.name, b"acme", b"\0", ()))
    await world.spend(4)
    errands = {each.partition: each for each in world.errands(is_strict=is_strict)}
    folded = (await world.folded(list(errands.values())))[number]

    assert folded.cursor == (bad if is_strict else errands[number].end)
    assert said(folded.fold) == said(world.fold(errands[number], folded.cursor))


async def test_an_unsound_record_ends_it_too(world: World) -> None:
    """One that can be read and not counted."""
    await world.spend(2)
    events = world.events["acme"]
    number = partition_of(b"acme", BUDGETS.partitions)
    bad = world.ends()[number]
    await world.write(outgoing(world.codec, events.placed("no uuid", leg(1))))
    errand = next(each for each in world.errands() if each.partition == number)
    folded = (await world.folded([errand]))[number]

    assert (folded.cursor, said(folded.fold)) == (bad, said(world.fold(errand, bad)))


async def test_an_offset_that_is_not_there_leaves_it_where_it_began(world: World) -> None:
    """It never jumps; nor does it fail."""
    await world.spend(2)
    errand = msgspec.structs.replace(world.errands()[0], first=10_000_000, end=10_000_001)
    folded = (await world.folded([errand]))[errand.partition]

    assert (folded.cursor, folded.fold.tenants) == (10_000_000, {})


async def test_memory_is_bounded(world: World) -> None:
    """With more holds than it may keep, it ends where it is, with what it has."""
    await world.spend(limits.REBUILD_SLICE_RECORDS, TENANTS[:1])
    folder = world.make_folder(2)
    errands = {each.partition: each for each in world.errands()}
    found = await results(folder.begin(list(errands.values())))
    await folder.close()

    assert any(each.cursor < errands[number].end for number, each in found.items())
    for number, folded in found.items():
        assert said(folded.fold) == said(world.fold(errands[number], folded.cursor))


async def test_nobody_who_waits_is_no_reason_to_go_on(world: World) -> None:
    """Results that are cancelled end the work; closing it waits for that, and leaves no process behind."""
    await world.spend(4)
    errands = [msgspec.structs.replace(each, end=each.end + 1_000_000) for each in world.errands()]
    aparts = world.folder.begin(errands)
    for apart in aparts:
        apart.result.cancel()
    await asyncio.wait_for(world.folder.close(), SECONDS)

    assert workers() == []


@pytest.mark.stack
async def test_a_process_that_is_killed_leaves_its_errands_where_they_began(processes: World) -> None:
    """The other one's are done."""
    await processes.spend(4)
    errands = processes.errands()
    # A longer one, so that it has a process of its own, which waits for what never comes.
    endless = msgspec.structs.replace(errands[0], end=errands[0].end + 1_000_000)
    aparts = processes.folder.begin([endless, *errands[1:]])
    done = await results([each for each in aparts if each.errand is not endless])
    for process in workers():
        process.kill()
    (folded,) = (await results([each for each in aparts if each.errand is endless])).values()

    assert (folded.cursor, folded.fold.tenants) == (endless.first, {})
    assert {number: each.cursor for number, each in done.items()} == {each.partition: each.end for each in errands[1:]}


@pytest.mark.stack
async def test_a_process_that_says_nothing_is_not_waited_for(processes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended, whatever it does."""
    monkeypatch.setattr(limits, "REBUILD_SILENCE_SECONDS", 0.01)
    await processes.spend(4)
    errand = processes.errands()[0]
    (folded,) = (await processes.folded([errand])).values()
    await processes.folder.close()

    assert (folded.cursor, folded.fold.tenants, workers()) == (errand.first, {}, [])


@pytest.mark.stack
async def test_a_process_whose_sink_was_killed_ends(kafka: str, registry: str, processes: World) -> None:
    """It finds nobody at the other end of its pipe."""
    await processes.spend(4)
    endless = msgspec.structs.replace(processes.errands()[0], end=10_000_000)
    job = worker.encode(Job(kafka, registry, PROJECTION, ENTRIES_MAX, (endless,)))
    # Whoever begins it stands for the sink: it hands the job over and dies at once, as by SIGKILL.
    given, told = os.pipe(), os.pipe()
    command = [sys.executable, "-P", "-m", worker.__name__]
    process = await asyncio.to_thread(subprocess.Popen, command, stdin=given[0], stdout=told[1])
    os.write(given[1], job)
    for end in (*given, *told):
        os.close(end)

    assert await asyncio.to_thread(process.wait, SECONDS) == 0


def workers() -> list[psutil.Process]:
    """Processes of this one that fold."""
    found = []
    for each in psutil.Process().children():
        # One that is over while we look.
        with contextlib.suppress(psutil.NoSuchProcess):
            if worker.__name__ in each.cmdline():
                found.append(each)
    return found
