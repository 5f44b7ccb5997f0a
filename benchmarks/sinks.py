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
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from api.cli.migrate import migrate_parts
from api.settings import Settings
from benchmarks import peers
from benchmarks.events import EventMaker
from benchmarks.measure import cpu_seconds, machine
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
EVENTS_WITHOUT_LEDGER = 8
BEGUN_MICROS_AGO = 3_600_000_000
#: One window of provider health per so many other events: far more than there are, to measure their path.
EVENTS_PER_WINDOW = 50
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
        for step in asyncio.run(migrate_parts(self.settings, 60.0)):
            if not step.ok:
                raise RuntimeError(f"{step.part}: {step.detail}")
        self.say(f"filling the log with {records:,} events")
        self.filled = fill(self.settings, records)

    def measure(self, sink: str) -> Row:
        """Run one sink to the end of the log."""
        self.say(sink)
        wanted = self.filled.of(_TOPICS[sink])
        return self._row(sink, sink, wanted)

    def measure_health(self, records: int) -> Row:
        """Redis again, with windows of provider health alone: state of which only the last is kept."""
        self.say("redis, health alone")
        fill_health(self.settings, records)
        return self._row("redis, last values", "redis", _ends(self.settings, (HEALTH.name,)))

    def _row(self, what: str, sink: str, wanted: Cursors) -> Row:
        with self._running(sink) as process:
            run = asyncio.run(self._follow(process, sink, wanted))
        wrong = asyncio.run(_CHECKS[sink](self, wanted)) if sink in _CHECKS else ""
        return Row(what, *run, wrong)

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
            begin = _applied(await ask(), wanted)
            first = await self._look(ask, process, wanted, lambda done, _: done > begin)
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
            done = _applied(held, wanted)
            if enough(done, total):
                return done, now
            await asyncio.sleep(LOOK_SECONDS)
        raise RuntimeError(f"the sink ended or took too long: {_tail(self.data)}")

    async def _cursors(self, sink: str) -> tuple[Callable[[], Awaitable[Cursors]], Callable[[], Awaitable[None]]]:
        dsn = self.settings.postgres_dsn
        if sink == "redis":
            redis = RedisReads(self.settings.redis_url)
            await redis.open()
            return (lambda: _read(redis)), redis.close
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
        return {"": cpu_seconds(process.pid), **{name: cpu_seconds(pid) for name, pid in pids.items()}}


_ALL = frozenset(topic.name for topic in TOPICS)
#: What each sink reads.
_TOPICS = {
    "postgres": _ALL,
    "clickhouse": frozenset(CLICKHOUSE_TABLES),
    "redis": frozenset((BUDGETS.name, HEALTH.name)),
    "audit": _ALL - {HEALTH.name},
}


async def _read(redis: RedisReads) -> Cursors:
    """Cursors, and where a rebuild from zero is that has not written its slots yet; at the end it has."""
    gates = {Partition(BUDGETS.name, gate.partition): gate for gate in await redis.gates()}
    cursors = await redis.cursors()
    return cursors | {each: max(gate.cursor, gate.read - (not gate.is_open)) for each, gate in gates.items()}


def _applied(held: Cursors, wanted: Cursors) -> int:
    return sum(min(held.get(partition, 0), end) for partition, end in wanted.items())


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


def fill(settings: Settings, records: int, *, ledger: bool = True) -> Filled:
    """Record about that many events and provider health; answers what every store must say of them."""
    amounts: dict[str, list[tuple[str, int]]] = {}
    filler = Filler(settings)
    maker = EventMaker(time.time_ns() // 1_000 - BEGUN_MICROS_AGO, ledger=ledger)
    for made in maker.requests(records // (EVENTS_PER_REQUEST if ledger else EVENTS_WITHOUT_LEDGER)):
        filler.publish(made)
        for event in made:
            amounts.setdefault(topic_of(event).name, []).append((event.event_id, getattr(event, "amount_nano", 0)))
    windows = list(maker.health(records // EVENTS_PER_WINDOW))
    filler.publish(windows)
    filler.close()
    totals = {topic: totals_of(pairs) for topic, pairs in amounts.items()}
    return Filled(_ends(settings), totals | {HEALTH.name: totals_of((each.event_id, 0) for each in windows)})


def fill_health(settings: Settings, records: int) -> None:
    """Record that many windows of provider health, later than all before."""
    filler = Filler(settings)
    maker = EventMaker(time.time_ns() // 1_000, seed=2)
    for window in maker.health(records):
        filler.publish([window])
    filler.close()


class Filler:
    """Publishes events, a bounded number at a time."""

    def __init__(self, settings: Settings) -> None:
        """Connects in the background; close it."""
        self._codec = Codec(RegistrySchemas(settings.registry_url))
        self._publisher = KafkaPublisher(settings.kafka_bootstrap, linger_milliseconds=20.0)
        self._room = threading.Semaphore(UNDER_WAY_MAX)
        self._faults: list[BaseException] = []

    def publish(self, made: Sequence[Event]) -> None:
        """Hand events over; waits while too many are under way."""
        records = [outgoing(self._codec, event) for event in made]
        # Not all at once: a group may be larger than what may be under way.
        for record in records:
            self._room.acquire()
            self._publisher.publish([record], self._done)

    def _done(self, fault: BaseException | None) -> None:
        self._room.release()
        if fault is not None:
            self._faults.append(fault)

    def close(self) -> None:
        """Wait until all are recorded; raises what one of them met."""
        self._publisher.flush(60.0)
        self._publisher.close()
        if self._faults:
            raise self._faults[0]


def _ends(settings: Settings, topics: Sequence[str] = tuple(topic.name for topic in TOPICS)) -> dict[Partition, int]:
    reader = KafkaReader(settings.kafka_bootstrap, "benchmark")
    try:
        partitions = reader.partitions(topics, METADATA_SECONDS)
        ends = reader.end_offsets(partitions, METADATA_SECONDS)
    finally:
        reader.close()
    return {partition: end for partition, end in ends.items() if end}


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
            if sink == "redis":
                rows.append(bench.measure_health(records))
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
