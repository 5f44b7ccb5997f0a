"""The world of the fault suite: servers in a folder of its own, sink processes to hurt, and how far each store is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from api.cli.migrate import migrate_parts
from api.settings import Settings, load_settings
from infra.embedded.ports import PortPlan, free_ports
from infra.embedded.process import Child, Launch
from infra.embedded.servers.clickhouse import python_path
from infra.embedded.servers.probes import http_json
from infra.embedded.stack import Stack
from schemas.errors import LogUnavailableError, QuaestorError, StoreUnavailableError
from schemas.topics import BUDGETS, HEALTH, TOPICS
from sinks.audit.layout import AUDITED_TOPICS
from sinks.clickhouse.sink import PROJECTION as CLICKHOUSE_PROJECTION
from sinks.clickhouse.tables import TABLES as CLICKHOUSE_TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.plans import PostgresPlanStore
from sinks.postgres.reads import PostgresReads
from sinks.redis.reads import RedisReads
from streams.kafka import KafkaReader
from streams.log import Partition
from tests.faults.load import Load, Spoil, honest

STORES = ("postgres", "redis", "clickhouse", "audit")
TOPICS_OF: Mapping[str, tuple[str, ...]] = {
    "postgres": tuple(topic.name for topic in TOPICS),
    "redis": (BUDGETS.name, HEALTH.name),
    "clickhouse": tuple(CLICKHOUSE_TABLES),
    "audit": AUDITED_TOPICS,
}
#: Sinks of which one process works at a time: the newest claim wins and earlier ones end.
ALONE = frozenset({"audit"})
#: What the processes of the suite are told instead of ten seconds.
SESSION_SECONDS = 1.5
STORIES_PER_SECOND = 40.0
DEADLINE_SECONDS = 240.0
POLL_SECONDS = 0.1
METADATA_SECONDS = 10.0
STOP_SECONDS = 30.0
SERVER_TRIES = 5
Cursors = Mapping[Partition, int]


class StuckError(Exception):
    """Something that had to happen did not within its deadline."""


@dataclass
class SinkProcess:
    """One process of a sink: the product's own command."""

    store: str
    child: Child
    monitor_port: int
    log: Path
    #: Started again when it ends by itself, as a supervisor does; None when nobody does.
    again: Callable[[], SinkProcess] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.child.exit_code is None

    def kill(self) -> None:
        """SIGKILL."""
        self.again = None
        self.child.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        os.kill(self.child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to finish its batch and end; raises StuckError when it does not."""
        self.again = None
        if not self.child.stop(signal.SIGTERM, STOP_SECONDS):
            raise StuckError(f"sink {self.store} did not stop within {STOP_SECONDS:.0f} s: see {self.log}")

    async def partitions_owned(self) -> int:
        """Partitions it works on, as it says itself."""
        status = await asyncio.to_thread(self.status)
        return int(status.get("partitions", 0))

    def status(self) -> Mapping[str, Any]:
        """What it says of itself; empty when it does not answer."""
        return http_json(self.monitor_port, "/status")


@dataclass
class World:
    """Real servers, migrated; `random` decides everything that is left to chance."""

    folder: Path
    random: Random
    stack: Stack = field(init=False)
    settings: Settings = field(init=False)
    load: Load = field(init=False)
    processes: list[SinkProcess] = field(default_factory=list)
    #: The module that is the product's command line.
    program: str = "api.cli.main"
    #: Processes that ended by themselves and were started again.
    restarts: int = 0
    _started: int = 0

    async def start(self, stories_per_second: float = STORIES_PER_SECOND, spoil: Spoil = honest) -> None:
        """Servers, topics, schemas, tables, and load."""
        self.stack = Stack(self.folder / "data", PortPlan.auto())
        await asyncio.to_thread(self.stack.start)
        self.settings = load_settings(self.stack.data)
        failed = [step for step in await migrate_parts(self.settings, METADATA_SECONDS) if not step.ok]
        if failed:
            raise StuckError(f"migration: {failed[0].part}: {failed[0].detail}")
        self._reads = PostgresReads(self.settings.postgres_dsn)
        self._plans = PostgresPlanStore(self.settings.postgres_dsn, "faults")
        self._audit = PostgresAuditStore(self.settings.postgres_dsn, self.settings.audit_log)
        self._redis = RedisReads(self.settings.redis_url)
        self._reader = KafkaReader(self.settings.kafka_bootstrap, "faults")
        self._asking = {store: asyncio.Lock() for store in STORES}
        self._log_asking = asyncio.Lock()
        settings = self.settings
        self.load = Load(settings.kafka_bootstrap, settings.registry_url, self.random, stories_per_second, spoil)

    async def close(self) -> None:
        """Stop everything, whatever state it is in."""
        if hasattr(self, "load"):
            self.load.end()
            for each in (self._reads, self._plans, self._audit, self._redis):
                with contextlib.suppress(QuaestorError):
                    await each.close()
            self._reader.close()
        for process in self.processes:
            process.kill()
        await asyncio.to_thread(self.stack.close)

    def sink(self, store: str, instance: str = "", settings: Mapping[str, str] | None = None) -> SinkProcess:
        """Start one more process of a sink; `settings` are variables without their prefix."""
        self._started += 1
        port = free_ports(1)[0]
        variables = {
            "PYTHONPATH": python_path(),
            "QUAESTOR_DATA": str(self.stack.data),
            "QUAESTOR_SESSION_SECONDS": str(SESSION_SECONDS),
            "QUAESTOR_MONITOR_PORT": str(port),
            "QUAESTOR_INSTANCE": instance,
        }
        variables |= {f"QUAESTOR_{name.upper()}": value for name, value in (settings or {}).items()}
        log = self.folder / "sinks" / f"{store}-{self._started:04}.log"
        command = (sys.executable, "-P", "-m", self.program, "sink", store)
        child = self.stack.spawner.spawn(Launch(f"sink-{store}", command, log, environment=variables))
        process = SinkProcess(store, child, port, log)
        self.processes = [each for each in self.processes if each.alive or each.again] + [process]
        return process

    def keep(self, store: str, settings: Mapping[str, str] | None = None) -> SinkProcess:
        """One process of a sink instead of any before, started again whenever it ends by itself."""
        self.kill_sinks(store)
        return self._kept(store, settings)

    def _kept(self, store: str, settings: Mapping[str, str] | None) -> SinkProcess:
        process = self.sink(store, instance="one", settings=settings)
        process.again = lambda: self._kept(store, settings)
        return process

    def tend(self, process: SinkProcess, instance: str) -> None:
        """Start it again whenever it ends by itself, from now on."""

        def again() -> SinkProcess:
            other = self.sink(process.store, instance)
            self.tend(other, instance)
            return other

        process.again = again

    def _tend(self) -> None:
        """Start what ended by itself again."""
        for process in self.processes:
            if process.again is not None and not process.alive:
                again, process.again = process.again, None
                self.restarts += 1
                again()

    def running(self, store: str) -> list[SinkProcess]:
        """Its processes that run."""
        return [each for each in self.processes if each.store == store and each.alive]

    def kill_sinks(self, store: str) -> None:
        """SIGKILL all its processes."""
        for process in self.processes:
            if process.store == store:
                process.kill()

    async def all_work(self, store: str, processes: Sequence[SinkProcess]) -> None:
        """Wait until each of them owns partitions; raises StuckError."""

        async def working() -> bool:
            return all([await each.partitions_owned() for each in processes])

        await self.until(working, f"{len(processes)} processes of sink {store} share its partitions")

    async def one_ends(self, one: SinkProcess, other: SinkProcess) -> SinkProcess:
        """Wait until one of two has ended by itself, with an error; answers the other. Raises StuckError."""

        async def ended() -> bool:
            return not (one.alive and other.alive)

        await self.until(ended, f"one of two processes of sink {one.store} ends: see {one.log} and {other.log}")
        gone, stays = (other, one) if one.alive else (one, other)
        if gone.child.exit_code == 0:
            raise StuckError(f"a replaced process of sink {one.store} ended as if nothing was: see {gone.log}")
        return stays

    async def cursors(self, store: str) -> Cursors:
        """Where a store stands; raises StoreUnavailableError."""
        async with self._asking[store]:
            if store == "postgres":
                return await self._reads.cursors()
            if store == "clickhouse":
                return await self._plans.cursors(CLICKHOUSE_PROJECTION)
            if store == "audit":
                await self._audit.open()
                return await self._audit.cursors()
            await self._redis.open()
            return await self._redis.cursors()

    async def ends(self, store: str) -> Cursors:
        """End offsets of what a store projects; raises LogUnavailableError."""
        async with self._log_asking:
            return await asyncio.to_thread(self._ends, TOPICS_OF[store])

    def _ends(self, topics: tuple[str, ...]) -> Cursors:
        partitions = self._reader.partitions(topics, METADATA_SECONDS)
        return self._reader.end_offsets(partitions, METADATA_SECONDS)

    async def applied(self, store: str) -> int:
        """Offsets a store has applied in all; raises StoreUnavailableError."""
        return sum((await self.cursors(store)).values())

    async def grows(self, store: str, records: int = 1) -> None:
        """Wait until a store has applied so many more; raises StuckError."""
        seen: list[int] = []

        async def grown() -> bool:
            seen.append(await self.applied(store))
            return seen[-1] >= seen[0] + records

        await self.until(grown, f"sink {store} applies {records} more records")

    async def reaches(self, store: str, ends: Cursors | None = None, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until a store stands at these ends, or at those of now; raises StuckError with the first that lags."""
        wanted = ends
        lagging: dict[Partition, int] = {}

        async def reached() -> bool:
            nonlocal wanted, lagging
            if wanted is None:
                wanted = await self.ends(store)
            cursors = await self.cursors(store)
            lagging = {each: end - cursors.get(each, 0) for each, end in wanted.items() if cursors.get(each, 0) < end}
            return not lagging

        try:
            await self.until(reached, f"sink {store} catches up", seconds)
        except StuckError as error:
            raise StuckError(f"{error}; lagging: {_worded(lagging)}") from None

    async def until(
        self, condition: Callable[[], Awaitable[bool]], what: str, seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Poll a condition until it holds; a store or log that is away is no answer. Raises StuckError."""
        deadline = time.monotonic() + seconds
        away = ""
        while time.monotonic() < deadline:
            try:
                if await condition():
                    return
                away = ""
            except (StoreUnavailableError, LogUnavailableError) as error:
                away = f" ({error})"
            self._tend()
            await asyncio.sleep(POLL_SECONDS)
        raise StuckError(f"not within {seconds:.0f} s: {what}{away}")

    def crash_servers(self, names: Iterable[str]) -> None:
        """SIGKILL servers with everything they started."""
        for name in names:
            child = self.stack.servers[name].child
            if child is not None:
                child.kill()

    async def restart_servers(self, names: Iterable[str]) -> None:
        """Start crashed servers again, side by side."""
        await asyncio.gather(*(asyncio.to_thread(self._restart, name) for name in names))

    def _restart(self, name: str) -> None:
        """As the supervisor does: again, when what the crash left behind is still in the way."""
        for attempt in range(SERVER_TRIES):
            try:
                self.stack.restart(name)
            except QuaestorError:
                if attempt == SERVER_TRIES - 1:
                    raise
                time.sleep(0.5)
            else:
                return


def _worded(lagging: Mapping[Partition, int]) -> str:
    return ", ".join(f"{partition} by {events}" for partition, events in sorted(lagging.items())[:4])
