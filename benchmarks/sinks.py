"""Sinks: from a filled log to durable rows, one sink process at a time, on servers of its own.

    python -m benchmarks.sinks [--records N] [--sinks postgres,clickhouse,redis,audit] [--peer-python PYTHON]

Starts the embedded servers in a temporary folder, fills the topics with what the gateway and the ledger stream record,
then runs each real sink process to the end offsets and compares what its store says with what was sent. With the Python
of an environment that has sentry-arroyo, its per-message loop reads the same topics in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from api.cli.migrate import migrate_all
from api.settings import Settings
from benchmarks import peers
from benchmarks.events import EventMaker
from benchmarks.measure import machine
from infra.embedded.ports import PortPlan
from infra.embedded.stack import Stack
from schemas.events import Event
from schemas.topics import BUDGETS, HEALTH, TOPICS, topic_of
from sinks.clickhouse.process import open_reads
from sinks.clickhouse.tables import TABLES as CLICKHOUSE_TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.plans import PostgresPlanStore
from sinks.postgres.reads import PostgresReads
from sinks.redis.check import check_budgets, read_states
from sinks.redis.reads import RedisReads
from sinks.totals import StoreTotals, totals_of
from streams.codec import Codec
from streams.kafka import KafkaPublisher, KafkaReader
from streams.log import Partition
from streams.records import outgoing
from streams.registry import RegistrySchemas

QUAESTOR = Path(sys.executable).parent / "quaestor"
RECORDS = 200_000
EVENTS_PER_REQUEST = 14
#: One window of provider health per so many other events: far more than there are, to measure their path.
EVENTS_PER_WINDOW = 50
GROUP_REQUESTS = 200
UNDER_WAY_MAX = 20_000
LOOK_SECONDS = 0.1
SECONDS_MAX = 900
METADATA_SECONDS = 20.0
Cursors = Mapping[Partition, int]


@dataclass(frozen=True)
class Filled:
    """What stands in the log."""

    ends: dict[Partition, int]
    #: What every store must say of each topic.
    totals: dict[str, StoreTotals]

    def of(self, topics: frozenset[str]) -> dict[Partition, int]:
        """End offsets of some topics."""
        return {partition: end for partition, end in self.ends.items() if partition.topic in topics}


@dataclass(frozen=True)
class Row:
    """One sink's line."""

    what: str
    events: int
    seconds: float
    #: Of the sink's process, seconds per million events.
    own_cpu: float
    #: Of the servers it uses, by name, seconds per million events.
    server_cpu: dict[str, float]
    peak_mebibytes: float
    #: What is wrong with the store; empty when all is there, once.
    wrong: str

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


class Bench:
    """A stack with a filled log."""

    def __init__(self, stack: Stack, data: Path, say: Callable[[str], None]) -> None:
        """`stack` runs on `data`."""
        self.stack, self.data, self.say = stack, data, say
        self.settings = Settings(**{"data": data, **stack.settings()})
        self.environment = os.environ | {"QUAESTOR_DATA": str(data), "QUAESTOR_MONITOR_PORT": "0"}
        self.filled = Filled({}, {})

    def prepare(self, records: int) -> None:
        """Topics, schemas, tables, and events."""
        for step in asyncio.run(migrate_all(self.settings, 60.0)):
            if not step.ok:
                raise RuntimeError(f"{step.part}: {step.detail}")
        self.say(f"filling the log with {records:,} events")
        self.filled = fill(self.settings, records)

    def measure(self, sink: str) -> Row:
        """Run one sink to the end of the log."""
        self.say(sink)
        topics = frozenset(topic.name for topic in TOPICS)
        wanted = self.filled.of({"clickhouse": frozenset(CLICKHOUSE_TABLES), "redis": REDIS}.get(sink, topics))
        if sink == "audit":
            wanted = self.filled.of(topics - {HEALTH.name})
        with self._running(sink) as process:
            run = asyncio.run(self._follow(process, sink, wanted))
        wrong = asyncio.run(_CHECKS[sink](self, wanted)) if sink in _CHECKS else ""
        return Row(sink, *run, wrong)

    @contextmanager
    def _running(self, sink: str) -> Iterator[psutil.Process]:
        log = (self.data / f"sink-{sink}.bench.log").open("wb")
        command = [str(QUAESTOR), "sink", sink]
        with log, subprocess.Popen(command, env=self.environment, stdout=log, stderr=log) as process:
            try:
                yield psutil.Process(process.pid)
            finally:
                process.terminate()
                process.wait(60)

    async def _follow(
        self, process: psutil.Process, sink: str, wanted: Cursors
    ) -> tuple[int, float, float, dict[str, float], float]:
        """Watch its cursors from the first batch to the last: events, seconds, CPU and memory."""
        ask, close = await self._cursors(sink)
        try:
            first = await self._look(ask, process, wanted, lambda done, _: done > 0)
            before = self._cpu(process)
            last = await self._look(ask, process, wanted, lambda done, total: done >= total)
            after = self._cpu(process)
        finally:
            await close()
        events, seconds = last[0] - first[0], last[1] - first[1]
        spent = {name: (after[name] - before[name]) / events * 1e6 for name in after}
        own = spent.pop("")
        return events, seconds, own, spent, peak_mebibytes(process.pid)

    async def _look(
        self,
        ask: Callable[[], Awaitable[Cursors]],
        process: psutil.Process,
        wanted: Cursors,
        enough: Callable[[int, int], bool],
    ) -> tuple[int, float]:
        """Events applied, and when, once there are enough."""
        total, until = sum(wanted.values()), time.monotonic() + SECONDS_MAX
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            held = await ask()
            now = time.monotonic()
            done = sum(min(held.get(partition, 0), end) for partition, end in wanted.items())
            if enough(done, total):
                return done, now
            await asyncio.sleep(LOOK_SECONDS)
        raise RuntimeError(f"the sink ended or took too long: {_tail(self.data)}")

    async def _cursors(self, sink: str) -> tuple[Callable[[], Awaitable[Cursors]], Callable[[], Awaitable[None]]]:
        dsn = self.settings.postgres_dsn
        if sink == "redis":
            redis = RedisReads(self.settings.redis_url)
            await redis.open()
            return redis.cursors, redis.close
        if sink == "clickhouse":
            plans = PostgresPlanStore(dsn, "benchmark")
            return (lambda: plans.cursors("clickhouse@v1")), plans.close
        if sink == "audit":
            audit = PostgresAuditStore(dsn, self.settings.audit_log)
            await audit.open()
            return audit.cursors, audit.close
        postgres = PostgresReads(dsn)
        return postgres.cursors, postgres.close

    def _cpu(self, process: psutil.Process) -> dict[str, float]:
        pids = {name: entry.pid for name, entry in self.stack.endpoints().processes.items() if entry.pid}
        return {"": _spent(process.pid), **{name: _spent(pid) for name, pid in pids.items()}}


REDIS = frozenset((BUDGETS.name, HEALTH.name))


async def _check_postgres(bench: Bench, wanted: Cursors) -> str:
    reads = PostgresReads(bench.settings.postgres_dsn)
    try:
        return _differences(bench.filled, await reads.totals(wanted), wanted)
    finally:
        await reads.close()


async def _check_clickhouse(bench: Bench, wanted: Cursors) -> str:
    reads = open_reads(bench.settings.clickhouse_url, bench.settings.postgres_dsn)
    try:
        return _differences(bench.filled, await reads.totals(wanted), wanted)
    finally:
        await reads.close()


async def _check_redis(bench: Bench, _wanted: Cursors) -> str:
    reads = RedisReads(bench.settings.redis_url)
    await reads.open()
    reader = KafkaReader(bench.settings.kafka_bootstrap, "benchmark")
    try:
        states = await read_states(reads)
        codec = Codec(RegistrySchemas(bench.settings.registry_url))
        result = await asyncio.to_thread(check_budgets, states, reader, codec)
        return "" if result.ok and result.tenants else f"{len(result.differences)} differences"
    finally:
        reader.close()
        await reads.close()


def _differences(filled: Filled, found: Mapping[str, StoreTotals], wanted: Cursors) -> str:
    topics = {partition.topic for partition in wanted} & filled.totals.keys()
    return ", ".join(sorted(topic for topic in topics if found.get(topic) != filled.totals[topic]))


_CHECKS: dict[str, Callable[[Bench, Cursors], Awaitable[str]]] = {
    "postgres": _check_postgres,
    "clickhouse": _check_clickhouse,
    "redis": _check_redis,
}


def fill(settings: Settings, records: int) -> Filled:
    """Record that many events and what belongs to them; answers what every store must say of them."""
    codec = Codec(RegistrySchemas(settings.registry_url))
    publisher = KafkaPublisher(settings.kafka_bootstrap, linger_milliseconds=20.0)
    amounts: dict[str, list[tuple[str, int]]] = {}
    room = threading.Semaphore(UNDER_WAY_MAX)
    faults: list[BaseException] = []

    def publish(made: list[Event]) -> None:
        for event in made:
            amounts.setdefault(topic_of(event).name, []).append((event.event_id, getattr(event, "amount_nano", 0)))
            room.acquire()

        def done(fault: BaseException | None) -> None:
            room.release(len(made))
            if fault is not None:
                faults.append(fault)

        publisher.publish([outgoing(codec, event) for event in made], done)

    maker = EventMaker(time.time_ns() // 1_000 - 3_600_000_000)
    for made in maker.requests(records // EVENTS_PER_REQUEST):
        publish(made)
    publish(list(maker.health(records // EVENTS_PER_WINDOW)))
    publisher.flush(60.0)
    publisher.close()
    if faults:
        raise faults[0]
    return Filled(_ends(settings), {topic: totals_of(pairs) for topic, pairs in amounts.items()})


def _ends(settings: Settings) -> dict[Partition, int]:
    reader = KafkaReader(settings.kafka_bootstrap, "benchmark")
    try:
        partitions = reader.partitions([topic.name for topic in TOPICS], METADATA_SECONDS)
        ends = reader.end_offsets(partitions, METADATA_SECONDS)
    finally:
        reader.close()
    return {partition: end for partition, end in ends.items() if end}


def _spent(pid: int) -> float:
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in [process, *process.children(recursive=True)]]
    return sum(each.user + each.system for each in times)


def peak_mebibytes(pid: int) -> float:
    """The most memory a process has had resident."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _tail(data: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-2_000:] for path in data.glob("*.bench.log"))


def run(records: int, sinks: list[str], peer_python: str | None, say: Callable[[str], None]) -> list[Row]:
    """All rows."""
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="quaestor-sinks-", ignore_cleanup_errors=True))
        Path(folder).chmod(0o711)
        data = Path(folder) / "data"
        data.mkdir(mode=0o711)
        stack = held.enter_context(Stack(data, PortPlan.auto()))
        bench = Bench(stack, data, say)
        bench.prepare(records)
        rows = []
        for sink in sinks:
            rows.append(bench.measure(sink))
            show_row(rows[-1])
        if peer_python:
            partitions = sum(end for partition, end in bench.filled.ends.items() if partition.topic != HEALTH.name)
            peers.show(peers.run(peer_python, bench.settings, partitions, say))
        return rows


def show_row(row: Row) -> None:
    """Print one line of the Markdown table."""
    servers = ", ".join(f"{name} {spent:.1f}" for name, spent in row.server_cpu.items() if spent >= 0.1)  # noqa: PLR2004
    right = f"WRONG: {row.wrong}" if row.wrong else "all there, once"
    cells = (
        row.what,
        f"{row.events:,}",
        f"{row.rate:,.0f}",
        f"{row.own_cpu:.1f}",
        servers,
        f"{row.peak_mebibytes:.0f}",
    )
    print(f"| {' | '.join(cells)} | {right} |", flush=True)


def main() -> int:
    """Run and print; exit code 1 when a store differs from the log."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sinks")
    parser.add_argument("--records", type=int, default=RECORDS, help="events in the log")
    parser.add_argument("--sinks", default="postgres,clickhouse,redis,audit")
    parser.add_argument("--peer-python", help="Python of an environment that has sentry-arroyo and fastavro")
    given = parser.parse_args()
    print(f"Machine: {machine()}\n")
    print("| sink | events | events/s | own CPU s per million | servers' CPU s per million | peak MiB | rows |")
    print("|---|---|---|---|---|---|---|")

    def say(what: str) -> None:
        sys.stderr.write(f"measuring: {what}\n")

    rows = run(given.records, [each for each in given.sinks.split(",") if each], given.peer_python, say)
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
