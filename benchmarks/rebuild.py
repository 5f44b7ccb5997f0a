"""Rebuilding live budgets: from zero, and from a snapshot, from FLUSHALL to open admission.

    python -m benchmarks.rebuild [--events N] [--rate REQUESTS] [--age SECONDS]

Starts Kafka, the registry, Postgres and Valkey in a temporary folder and fills quaestor.budgets. A running sink process
without a snapshot loses Redis: that is the rebuild from zero. Then it keeps snapshots, as many events come as `rate`
requests make in `age` seconds (two each), and Redis is lost again. Time counts from FLUSHALL, the noticing included,
until every gate is open; what stands in the slots is compared with the fold of the log.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.events import REQUEST_MICROS, EventMaker
from benchmarks.filling import Filler, settings_of
from benchmarks.measure import cpu_seconds, machine
from benchmarks.sinks import QUAESTOR, peak_mebibytes
from infra.embedded.ports import PortPlan
from infra.embedded.stack import Stack
from schemas.events import BudgetEvent
from schemas.topics import BUDGETS, TOPICS
from sinks.postgres.migrations import migrate
from sinks.postgres.snapshots import PostgresSnapshots
from sinks.redis.check import check_budgets, read_states
from sinks.redis.client import RedisClient
from sinks.redis.reads import RedisReads
from streams.codec import Codec
from streams.kafka import KafkaReader, ensure_topics
from streams.log import Partition
from streams.registry import RegistrySchemas, register_all

SERVERS = ("kafka", "registry", "postgres", "redis")
EVENTS = 400_000
EVENTS_PER_REQUEST = 2
LOOK_SECONDS = 0.02
SECONDS_MAX = 600
METADATA_SECONDS = 20.0
OFTEN, NEVER = "2", "3600"
GOALS = "goals: >= 70,000 events/s from zero; <= 10 s from the last snapshot at 500 requests/s"


@dataclass(frozen=True)
class Row:
    """One rebuild."""

    what: str
    #: Read from the log.
    events: int
    #: Resolved holds in the snapshots.
    holds: int
    #: From FLUSHALL until the last gate was open, or until the last snapshot was kept.
    seconds: float
    #: Of the sink's process and of those it began.
    cpu_seconds: float
    #: Of the sink's process alone.
    peak_mebibytes: float
    #: What is wrong with the slots; empty when nothing is.
    wrong: str


class Bench:
    """A stack with budget events in its log."""

    def __init__(self, stack: Stack, data: Path, say: Callable[[str], None]) -> None:
        """`stack` runs on `data`."""
        self.data, self.say = data, say
        self.settings = settings_of(data, stack.settings())
        self.snapshots = PostgresSnapshots(self.settings.postgres_dsn)
        self._seed = 0

    def fill(self, count: int) -> None:
        """Record so many budget events, made as if they came just now."""
        self._seed += 1
        requests = count // EVENTS_PER_REQUEST
        filler = Filler(self.settings)
        maker = EventMaker(time.time_ns() // 1_000 - requests * REQUEST_MICROS, self._seed, ledger=False)
        for made in maker.requests(requests):
            filler.publish([event for event in made if isinstance(event, BudgetEvent)])
        filler.close()

    def ends(self) -> dict[int, int]:
        """End offsets of the budgets partitions that have events."""
        reader = KafkaReader(self.settings.kafka_bootstrap, "benchmark")
        try:
            partitions = reader.partitions([BUDGETS.name], METADATA_SECONDS)
            found = reader.end_offsets(partitions, METADATA_SECONDS)
        finally:
            reader.close()
        return {partition.number: end for partition, end in found.items()}

    @contextmanager
    def sink(self, snapshot_seconds: str) -> Iterator[psutil.Process]:
        """A sink process that takes snapshots this often."""
        more = {"QUAESTOR_DATA": str(self.data), "QUAESTOR_MONITOR_PORT": "0"}
        environment = os.environ | more | {"QUAESTOR_SNAPSHOT_SECONDS": snapshot_seconds}
        log = (self.data / "sink-redis.bench.log").open("ab")
        with (
            log,
            subprocess.Popen([str(QUAESTOR), "sink", "redis"], env=environment, stdout=log, stderr=log) as process,
        ):
            try:
                yield psutil.Process(process.pid)
            finally:
                process.terminate()
                process.wait(60)

    async def applied(self) -> float:
        """Wait until every gate is open at the end of the log; answers when."""
        ends = self.ends()
        reads = RedisReads(self.settings.redis_url)
        await reads.open()
        until = time.monotonic() + SECONDS_MAX
        try:
            while time.monotonic() < until:
                gates = {gate.partition: gate for gate in await reads.gates() if gate.is_open}
                now = time.monotonic()
                if all(number in gates and gates[number].cursor >= end for number, end in ends.items()):
                    return now
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await reads.close()
        raise RuntimeError(f"not open within {SECONDS_MAX} s: {_tail(self.data)}")

    async def keep(self, process: psutil.Process) -> Row:
        """The first snapshots of a sink that has nothing else to do: what one costs that reads the whole log."""
        await self.applied()
        self.say("first snapshots")
        before, started = cpu_seconds(process.pid), time.monotonic()
        holds = await self._kept()
        spent, seconds = cpu_seconds(process.pid) - before, time.monotonic() - started
        events = sum(self.ends().values())
        return Row("first snapshots, beside the sink", events, holds, seconds, spent, peak_mebibytes(process.pid), "")

    async def _kept(self) -> int:
        """Wait until there is a snapshot of the end of every partition; answers how many holds they remember."""
        reader = KafkaReader(self.settings.kafka_bootstrap, "benchmark")
        topic_id = (await asyncio.to_thread(reader.topic_ids, [BUDGETS.name], METADATA_SECONDS))[BUDGETS.name]
        reader.close()
        ends, until = self.ends(), time.monotonic() + SECONDS_MAX
        while time.monotonic() < until:
            found = {number: await self.snapshots.newest(number, topic_id) for number, end in ends.items() if end}
            if all(each and each[0].cursor >= ends[number] for number, each in found.items()):
                return sum(each[0].holds for each in found.values())
            await asyncio.sleep(LOOK_SECONDS)
        raise RuntimeError(f"no snapshots within {SECONDS_MAX} s: {_tail(self.data)}")

    async def lose(self, what: str, process: psutil.Process, events: int, holds: int) -> Row:
        """FLUSHALL, and what the running sink makes of it."""
        self.say(what)
        client = RedisClient(self.settings.redis_url)
        await client.open()
        before, started = cpu_seconds(process.pid), time.monotonic()
        await client.call("FLUSHALL")
        opened = await self.applied()
        spent = cpu_seconds(process.pid) - before
        await client.close()
        wrong = await self._wrong()
        return Row(what, events, holds, opened - started, spent, peak_mebibytes(process.pid), wrong)

    async def _wrong(self) -> str:
        reads = RedisReads(self.settings.redis_url)
        await reads.open()
        reader = KafkaReader(self.settings.kafka_bootstrap, "benchmark")
        try:
            codec = Codec(RegistrySchemas(self.settings.registry_url))
            applied = {Partition(BUDGETS.name, number): end for number, end in self.ends().items()}
            states = await read_states(reads)
            result = await asyncio.to_thread(check_budgets, states, reader, codec, applied=applied)
            return "" if result.ok and result.tenants else f"{len(result.differences)} differences"
        finally:
            reader.close()
            await reads.close()


async def measure(bench: Bench, events: int, rate: int, age_seconds: int) -> list[Row]:
    """Both rebuilds."""
    bench.say(f"filling the log with {events:,} events")
    bench.fill(events)
    with bench.sink(NEVER) as process:
        await bench.applied()
        rows = [await bench.lose("from zero", process, sum(bench.ends().values()), 0)]
    with bench.sink(OFTEN) as process:
        rows.append(await bench.keep(process))
    holds, more = rows[-1].holds, rate * age_seconds * EVENTS_PER_REQUEST
    bench.fill(more)
    with bench.sink(NEVER) as process:
        await bench.applied()
        what = f"from a snapshot, {age_seconds} s at {rate} requests/s ago"
        rows.append(await bench.lose(what, process, more, holds))
    await bench.snapshots.close()
    return rows


def run(events: int, rate: int, age_seconds: int, say: Callable[[str], None]) -> list[Row]:
    """All of it, on servers of its own."""
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="quaestor-rebuild-", ignore_cleanup_errors=True))
        Path(folder).chmod(0o711)
        data = Path(folder) / "data"
        data.mkdir(mode=0o711)
        stack = held.enter_context(Stack(data, PortPlan.auto(), servers=SERVERS))
        bench = Bench(stack, data, say)
        ensure_topics(bench.settings.kafka_bootstrap, TOPICS)
        register_all(bench.settings.registry_url)
        asyncio.run(migrate(bench.settings.postgres_dsn))
        return asyncio.run(measure(bench, events, rate, age_seconds))


def _tail(data: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-2_000:] for path in data.glob("*.bench.log"))


def main() -> int:
    """Run and print; exit code 1 when a slot differs from the fold of the log."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebuild")
    parser.add_argument("--events", type=int, default=EVENTS, help="budget events in the log")
    parser.add_argument("--rate", type=int, default=500, help="requests a second since the snapshot")
    parser.add_argument("--age", type=int, default=60, help="age of the snapshot, seconds")
    given = parser.parse_args()
    print(f"Machine: {machine()}\n\n{GOALS}\n")
    print("| what | events read | holds in snapshots | seconds | events/s | own CPU s | peak MiB | slots |")
    print("|---|---|---|---|---|---|---|---|")
    rows = run(given.events, given.rate, given.age, lambda what: print(f"measuring: {what}", file=sys.stderr))
    for row in rows:
        rate = f"{row.events / row.seconds:,.0f}"
        cells = (row.what, f"{row.events:,}", f"{row.holds:,}", f"{row.seconds:.2f}", rate)
        print(f"| {' | '.join(cells)} | {row.cpu_seconds:.1f} | {row.peak_mebibytes:.0f} | {row.wrong or 'the fold'} |")
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
