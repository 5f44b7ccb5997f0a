"""kill -9 of the audit sequencer under load, and two at once: every checkpoint is of one history, nothing is twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import asyncpg

from infra.embedded.ports import PortPlan
from infra.embedded.stack import Stack
from processors.audit import verify_inner_border, verify_rfc9162
from processors.audit.checkpoint import Checkpoint
from processors.audit.merkle import consistency_proof
from processors.audit.tiles import subtree_hash, tile_of_node
from schemas.errors import QuaestorError
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.layout import AuditLayout
from sinks.audit.lock import FileLockStore
from sinks.audit.process import make_sink, published
from sinks.audit.verify import verify_audit
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.migrations import migrate
from tests.faults.kills import Tick
from tests.faults.report import Row
from tests.faults.verdict import ENTERED_TWICE
from tests.support.audit import ORIGIN, PARTITIONS, TOPIC, TOPIC_ID

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60
#: How long one that owns the log lives on, at most.
BUSY_SECONDS = 0.6
#: Of rounds, one in so many has a second sequencer take the log from the first.
RIVALS_EVERY = 4
ROUNDS_BETWEEN_VERIFICATIONS = 20


def sequencers(folder: Path, random: Random, rounds: int, tick: Tick) -> list[Row]:
    """Kill the owner of a log at random moments; verify all of it every few rounds and at the end."""
    row = Row("kill -9 of the audit sequencer, and two at once")
    started, data = time.monotonic(), folder / "data"
    data.mkdir(mode=0o711)
    folder.chmod(0o711)
    try:
        with Stack(data, PortPlan.auto(), servers=("postgres",)) as stack:
            _hurt(_Log(data, stack.settings()["postgres_dsn"]), random, rounds, tick, row)
    except (AssertionError, OSError, QuaestorError, subprocess.SubprocessError) as error:
        row.first_difference = f"{type(error).__name__}: {error}"
    row.seconds = time.monotonic() - started
    return [row]


def _hurt(log: _Log, random: Random, rounds: int, tick: Tick, row: Row) -> None:
    asyncio.run(migrate(log.dsn))
    before = Checkpoint(ORIGIN, 0, b"")
    row.counts = {"entries": 0, "checkpoints": 0, "fenced": 0}
    for number in range(1, rounds + 1):
        with log.running() as owner:
            _wait(owner, random.random() * BUSY_SECONDS)
            if number % RIVALS_EVERY == 0:
                with log.running():
                    assert owner.wait(DEADLINE_SECONDS) != 0, "the first of two sequencers ended without a word"
                row.counts["fenced"] += 1
        after = log.published()
        log.check_consistent(before, after)
        row.counts["checkpoints"] += after.size > before.size
        before, row.rounds = after, number
        if number % ROUNDS_BETWEEN_VERIFICATIONS == 0 or number == rounds:
            row.counts["entries"] = asyncio.run(log.verify())
        tick()


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise AssertionError(f"the sequencer ended by itself with {process.wait(seconds)}")


class _Log:
    """The log, its files and its database."""

    def __init__(self, data: Path, dsn: str) -> None:
        self.layout, self.dsn = AuditLayout(data, "test", ORIGIN), dsn

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """A process that has claimed the log and feeds it; killed in the end."""
        command = [sys.executable, "-m", "tests.support.audit_program", str(self.layout.data), self.dsn]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as process:
            try:
                assert process.stdout is not None
                assert "claimed\n" in iter(process.stdout.readline, ""), "a sequencer could not claim the log"
                yield process
            finally:
                process.send_signal(signal.SIGKILL)

    def published(self) -> Checkpoint:
        return published(self.layout)[1]

    def check_consistent(self, old: Checkpoint, new: Checkpoint) -> None:
        """Every checkpoint ever published is the beginning of the next."""
        assert new.size >= old.size, f"the published checkpoint went back from {old.size} to {new.size}"
        if not old.size:
            return
        proof = consistency_proof(old.size, new.size, lambda level, index: self._node(level, index, new.size))
        for form in (verify_inner_border, verify_rfc9162):
            consistent = form.verify_consistency(old.size, new.size, proof, old.root, new.root)
            assert consistent, f"two histories: {old.size} and {new.size} entries"

    def _node(self, level: int, index: int, size: int) -> bytes:
        tile, first, height = tile_of_node(level, index, size)
        return subtree_hash(LogFiles(self.layout.directory).read(tile), first, height)

    async def verify(self) -> int:
        """Start in order, publish all, stop, derive everything again; answers the number of entries."""
        sink = make_sink(self.layout, PostgresAuditStore(self.dsn, "test"), "verdict")
        await sink.open()
        await sink.claim(PARTITIONS, {TOPIC: TOPIC_ID})
        await asyncio.wait_for(sink.drained(), DEADLINE_SECONDS)
        await sink.close()
        store = PostgresAuditStore(self.dsn, "test")
        await store.open()
        try:
            files, lock = LogFiles(self.layout.directory), FileLockStore(self.layout.lock_file)
            report = await verify_audit(store, files, lock, KeyRing(self.layout).load().chain)
        finally:
            await store.close()
        assert report.ok, report.first_difference
        assert report.size == report.sequenced, "what is sequenced is not published"
        await self._check_once()
        return report.size

    async def _check_once(self) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            doubled = await connection.fetchval(ENTERED_TWICE)
        finally:
            await connection.close()
        assert doubled == 0, f"{doubled} records are entered twice"
