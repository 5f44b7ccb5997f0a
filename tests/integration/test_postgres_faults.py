"""Sink processes on real Kafka and Postgres, killed, stopped, their server crashed: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from random import Random
from typing import Any

import pytest

from schemas.errors import StoreUnavailableError
from schemas.topics import TOPICS
from sinks.postgres.migrations import migrate
from sinks.postgres.reads import PostgresReads
from sinks.totals import StoreTotals, totals_of
from streams.kafka import KafkaPublisher, KafkaReader
from streams.log import LogReader, Partition
from tests.support.kafka_server import fresh_product_topics
from tests.support.postgres_server import PostgresServer
from tests.support.postgres_sink_program import SESSION_SECONDS
from tests.support.stories import codec, outgoing, price_book, request_story

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
ENCODER = codec()
NAMES = [topic.name for topic in TOPICS]
DEADLINE_SECONDS = 120.0
METADATA_SECONDS = 10.0
SEED = 20_261_121


@pytest.fixture(scope="module")
def bootstrap() -> str:
    """A broker whose topics hold these tests' events alone."""
    return fresh_product_topics()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A Postgres of the test's own."""
    made = PostgresServer()
    made.start()
    yield made
    made.remove()


class Load:
    """Publishes stories at a steady pace from a thread of its own; every tenth is published twice."""

    def __init__(self, bootstrap: str, start: int) -> None:
        """Begin with story `start`."""
        self._publisher = KafkaPublisher(bootstrap)
        self._stop = threading.Event()
        self.published = 0
        self._start = start
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._thread.start()

    def _publish(self) -> None:
        number = self._start
        self._publisher.publish(outgoing(ENCODER, [price_book()]), lambda _: None)
        self.published += 1
        while not self._stop.wait(0.01):
            for _ in range(2 if number % 10 == 0 else 1):
                self._publisher.publish(
                    outgoing(ENCODER, request_story(number, f"tenant_{number % 7}")), lambda _: None
                )
                self.published += 1
            number += 1

    def end(self) -> None:
        """Stop and wait until everything is acknowledged."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        assert self._publisher.flush(30) == 0
        self._publisher.close()


class Processes:
    """The sink processes of one test."""

    def __init__(self, dsn: str, bootstrap: str) -> None:
        """None runs."""
        self._command = [sys.executable, "-m", "tests.support.postgres_sink_program", dsn, bootstrap]
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start one more."""
        self.running.append(subprocess.Popen(self._command))

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL."""
        process.kill()
        process.wait()
        self.running.remove(process)

    def end(self) -> list[int]:
        """Stop all gracefully; returns their exit codes."""
        for process in self.running:
            process.terminate()
        return [process.wait(60) for process in self.running]


class World:
    """Kafka, Postgres, sink processes and the log's own totals."""

    def __init__(self, dsn: str, bootstrap: str) -> None:
        """Everything is empty."""
        self.reads = PostgresReads(dsn)
        self.processes = Processes(dsn, bootstrap)
        self.reader: LogReader = KafkaReader(bootstrap)
        self.load: Load | None = None

    def ends(self) -> dict[Partition, int]:
        """End offsets of every partition."""
        return self.reader.end_offsets(self.reader.partitions(NAMES, METADATA_SECONDS), METADATA_SECONDS)

    async def applied(self) -> int:
        """Offsets applied in all."""
        return sum((await self.reads.cursors()).values())

    async def caught_up(self) -> bool:
        """Whether the store stands at the end of every partition."""
        cursors = await self.reads.cursors()
        return all(cursors.get(at, 0) == end for at, end in self.ends().items())

    def expected(self) -> dict[str, StoreTotals]:
        """The totals of distinct events in the log."""
        ends = self.ends()
        amounts: dict[str, list[tuple[str, str, int]]] = {name: [] for name in NAMES}
        self.reader.assign(dict.fromkeys(ends, 0))
        left = sum(ends.values())
        while left:
            for record in self.reader.consume(1_000, 1.0):
                fields = ENCODER.decode(record.topic, record.value or b"")
                name = fields["tenant_id"], fields["event_id"]
                amounts[record.topic].append((*name, fields.get("amount_nano") or 0))
                left -= 1
        return {name: totals_of(found) for name, found in amounts.items()}

    async def verify(self) -> None:
        """Wait until all is applied; then the store has exactly what the log has, and the ledger's invariants hold."""
        with contextlib.suppress(TimeoutError):
            await until(self.caught_up)
        cursors = await self.reads.cursors()
        assert {at: cursors.get(at, 0) for at in self.ends()} == self.ends()
        assert await self.reads.totals(self.ends()) == self.expected()
        assert [result.name for result in await self.reads.verify_ledger() if not result.ok] == []


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait for a condition, with a deadline; a store that is away is no answer."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(StoreUnavailableError):
            if await condition():
                return
        await asyncio.sleep(0.1)
    raise TimeoutError


@pytest.fixture
async def world(server: PostgresServer, bootstrap: str) -> AsyncIterator[World]:
    """A migrated database and nothing running."""
    dsn = server.dsn("faults")
    await migrate(dsn)
    made = World(dsn, bootstrap)
    yield made
    if made.load is not None:
        made.load.end()
    codes = made.processes.end()
    await made.reads.close()
    made.reader.close()
    assert set(codes) <= {0}


async def grows(world: World, records: int) -> None:
    """Wait until so many more records are applied."""
    seen: list[int] = []

    async def grown() -> bool:
        seen.append(await world.applied())
        return seen[-1] >= seen[0] + records

    await until(grown)


async def test_killed_processes_lose_and_double_nothing(world: World, bootstrap: str) -> None:
    """SIGKILL of sink processes at random moments under load, two at a time sharing partitions."""
    random = Random(SEED)
    load = world.load = Load(bootstrap, 0)
    world.processes.start()
    world.processes.start()
    for _ in range(4):
        await grows(world, random.randint(1, 1_000))
        world.processes.kill(random.choice(world.processes.running))
        world.processes.start()
    load.end()
    await world.verify()


async def test_a_resumed_zombie_changes_nothing(world: World, bootstrap: str) -> None:
    """A process stopped for longer than its session, then resumed, is fenced; the other has taken over."""
    load = world.load = Load(bootstrap, 1_000_000)
    world.processes.start()
    world.processes.start()
    await grows(world, 2_000)
    zombie = world.processes.running[0]
    os.kill(zombie.pid, signal.SIGSTOP)
    taken_over = time.monotonic() + 2 * SESSION_SECONDS

    async def time_has_come() -> bool:
        return time.monotonic() > taken_over

    await until(time_has_come)
    await grows(world, 500)
    os.kill(zombie.pid, signal.SIGCONT)
    await grows(world, 500)
    load.end()
    await world.verify()


async def test_postgres_that_crashes_is_waited_for(world: World, server: PostgresServer, bootstrap: str) -> None:
    """Postgres crashes and comes back under load: the sink waits, says so, and nothing is lost or doubled."""
    load = world.load = Load(bootstrap, 2_000_000)
    world.processes.start()
    for _ in range(2):
        await grows(world, 1_000)
        server.stop("immediate")
        server.start()
    load.end()
    await world.verify()
