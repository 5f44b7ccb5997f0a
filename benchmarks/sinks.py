"""Sinks: from a filled log to durable rows, one sink process at a time, on servers of its own.

    python -m benchmarks.sinks [--records N] [--sinks postgres,clickhouse,redis,audit] [--peer-python PYTHON]

Starts the embedded servers in a temporary folder, fills the topics with what the gateway and the ledger stream record,
then runs each real sink process to the end offsets and compares what its store says with what was sent
(sink_checks.py). Redis is measured three times: rebuilt from an empty server, where all is folded in memory; with its
gates open, where each hold's movement goes into its slot by a script; and with last values alone. With the Python of an
environment that has sentry-arroyo, its per-message loop reads the topics of each row after it, from their first record.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil

from api.cli.migrate import migrate_parts
from benchmarks import peers
from benchmarks.filling import Filled, fill, fill_budgets, fill_health, log_ends, settings_of
from benchmarks.measure import cpu_seconds, machine
from benchmarks.sink_checks import CHECKS, Check, Cursors, check_holds, check_windows
from infra.embedded.ports import PortPlan
from infra.embedded.stack import Stack
from schemas.topics import BUDGETS, HEALTH, TOPICS
from sinks.clickhouse.sink import PROJECTION as CLICKHOUSE
from sinks.clickhouse.tables import TABLES as CLICKHOUSE_TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.plans import PostgresPlanStore
from sinks.postgres.reads import PostgresReads
from sinks.redis.reads import RedisReads
from streams.log import Partition

QUAESTOR = Path(sys.executable).parent / "quaestor"
RECORDS = 200_000
LOOK_SECONDS = 0.1
SECONDS_MAX = 900


@dataclass(frozen=True)
class Row:
    """One sink's line."""

    what: str
    #: What it read.
    topics: frozenset[str]
    events: int
    seconds: float
    #: Of the sink's process and those it began, seconds per million events.
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
        self.settings = settings_of(data, stack.settings())
        self.environment = os.environ | {"QUAESTOR_DATA": str(data), "QUAESTOR_MONITOR_PORT": "0"}
        self.filled = Filled({}, {}, {})

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
        what = "redis, rebuilt from an empty server" if sink == "redis" else sink
        return self._row(what, sink, _TOPICS[sink], CHECKS[sink])

    def measure_holds(self, records: int) -> Row:
        """Redis again, its gates open: budgets alone, each movement by the script of its slot."""
        what = "redis, holds one by one"
        self.say(what)
        before = asyncio.run(self._generations())
        fill_budgets(self.settings, records)
        row = self._row(what, "redis", frozenset((BUDGETS.name,)), check_holds)
        # A generation that began meanwhile was folded in memory, and nothing was measured of the script.
        if before is None or asyncio.run(self._generations()) != before:
            row = replace(row, wrong=", ".join(filter(None, (row.wrong, "the gates did not stay open"))))
        return row

    def measure_health(self, records: int) -> Row:
        """Redis again, with windows of provider health alone: state of which only the last is kept."""
        what = "redis, last values"
        self.say(what)
        self.filled = replace(self.filled, windows=fill_health(self.settings, records))
        return self._row(what, "redis", frozenset((HEALTH.name,)), check_windows)

    def measurements(self, sinks: list[str], records: int) -> Iterator[Callable[[], Row]]:
        """One per row; what adds to the log comes last, where it is no other sink's work."""
        for sink in sinks:
            yield partial(self.measure, sink)
        if "redis" in sinks:
            yield partial(self.measure_holds, records)
            yield partial(self.measure_health, records)

    def in_log(self, topics: frozenset[str]) -> int:
        """Records of these topics."""
        return sum(log_ends(self.settings, sorted(topics)).values())

    async def _generations(self) -> list[str] | None:
        """Of every partition of budgets, or None while one is closed."""
        reads = RedisReads(self.settings.redis_url)
        await reads.open()
        try:
            gates = await reads.gates()
        finally:
            await reads.close()
        return [gate.generation for gate in gates] if gates and all(gate.is_open for gate in gates) else None

    def _row(self, what: str, sink: str, topics: frozenset[str], check: Check) -> Row:
        wanted = log_ends(self.settings, sorted(topics))
        with self._running(sink) as process:
            run = asyncio.run(self._follow(process, sink, wanted))
        return Row(what, topics, *run, asyncio.run(check(self.settings, self.filled, wanted)))

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
        if not events:
            raise RuntimeError("all was there at the first look: there is nothing to measure; take more --records")
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
            return (lambda: plans.cursors(CLICKHOUSE)), plans.close
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
        rows: list[Row] = []
        compared: list[peers.PeerRow] = []
        for measure in bench.measurements(sinks, records):
            rows.append(measure())
            show_row(rows[-1])
            if peer_python:
                topics = rows[-1].topics
                compared += peers.run(peer_python, bench.settings, sorted(topics), bench.in_log(topics), rows[-1], say)
        peers.show(compared)
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
