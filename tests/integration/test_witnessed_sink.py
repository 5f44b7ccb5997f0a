"""The audit sink with witnesses that are processes: killed, started again, and the log that waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.audit.witness_client import HttpWitnesses
from api.cli.main import application
from api.cli.serve import _witnessing
from api.settings import load_settings
from processors.audit.note import parse_vkey, signatures_of
from schemas.errors import ConfigurationError
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.keys import load_or_make_signer
from sinks.audit.layout import AuditLayout
from sinks.audit.lock import FileLockStore
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.process import make_cosigners, make_sink
from sinks.audit.sink import AuditSink
from sinks.audit.store import AuditStore
from sinks.audit.verify import verify_audit
from sinks.audit.witnesses import Witnessing, WitnessTimes
from sinks.runner.seam import Batch
from streams.monitor import Monitor
from tests.support.audit import ORIGIN, PARTITIONS, TOPIC, TOPIC_ID, spans_of
from tests.support.witnesses import WitnessProcess, witness_process

DEADLINE_SECONDS = 30


class HeardMonitor(Monitor):
    """A monitor whose changes can be waited for."""

    def __init__(self) -> None:
        """All is well."""
        super().__init__("sink-audit")
        self.changed = asyncio.Event()
        self.set(state="running")

    def set(self, **fields: Any) -> None:
        """As ever, and tell it."""
        super().set(**fields)
        self.changed.set()

    async def says(self, state: str) -> None:
        """Return when it says so."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.status()["state"] != state:
                self.changed.clear()
                await self.changed.wait()


class Log:
    """A log with a policy of one witness."""

    def __init__(self, data: Path) -> None:
        """Nothing runs; the log's key is there."""
        self.layout = AuditLayout(data, "test", ORIGIN)
        self.vkey = load_or_make_signer(self.layout.key_file, ORIGIN).verifier.vkey
        self.policy = data / "policy"
        self.store: AuditStore = MemoryAuditStore()
        self.monitor = HeardMonitor()

    def trust(self, witness: WitnessProcess) -> None:
        """Write the policy."""
        self.policy.write_text(f"log {self.vkey}\nwitness one {witness.vkey} {witness.url}\nquorum one\n")

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[AuditSink]:
        """A process's sink, which owns the log."""
        witnessing = Witnessing(
            self.policy, HttpWitnesses(), WitnessTimes(ask_seconds=10, hold_seconds=1, unwitnessed_seconds=0)
        )
        cosigners = make_cosigners(self.layout, self.monitor, witnessing)
        sink = make_sink(self.layout, self.store, "test", cosigners=cosigners)
        await sink.open()
        await sink.claim(PARTITIONS, {TOPIC: TOPIC_ID})
        try:
            yield sink
        finally:
            await sink.close()
            await cosigners.close()

    async def verifies(self) -> bool:
        """Whether nothing differs."""
        files, lock = LogFiles(self.layout.directory), FileLockStore(self.layout.lock_file)
        report = await verify_audit(self.store, files, lock, KeyRing(self.layout).load().chain)
        return report.ok

    def published(self, witness: WitnessProcess) -> bool:
        """Whether the published checkpoint carries the witness's signature."""
        note = LogFiles(self.layout.directory).checkpoint()
        return note is not None and bool(signatures_of(note, [parse_vkey(witness.vkey)])[1])


def witness_of(log: Log, data: Path, port: int = 0) -> AbstractContextManager[WitnessProcess]:
    """A witness that follows the log, in a folder of its own."""
    (data / "witness").mkdir(exist_ok=True)
    return witness_process(data / "witness", "one.example/witness", [log.vkey], port)


async def test_a_witness_that_dies_and_comes_back(tmp_path: Path) -> None:
    """While it is away records are entered, nothing is published, and an alarm says so; then all of it is."""
    log = Log(tmp_path)
    with witness_of(log, tmp_path) as witness:
        log.trust(witness)
        async with log.sink() as sink:
            await sink.write(Batch(spans_of(0, 100), 1))
            await asyncio.wait_for(sink.drained(), DEADLINE_SECONDS)
            before = LogFiles(log.layout.directory).checkpoint()
            witness.process.kill()
            witness.process.wait()
            await sink.write(Batch(spans_of(100, 100), 1))
            await log.monitor.says("degraded")
            await sink.write(Batch(spans_of(200, 100), 1))
            assert before == LogFiles(log.layout.directory).checkpoint()
            port = int(witness.url.rstrip("/").rsplit(":", 1)[1])
            with witness_of(log, tmp_path, port) as again:
                await asyncio.wait_for(sink.drained(), DEADLINE_SECONDS)
                await log.monitor.says("running")
                assert (True, again.vkey) == (log.published(again), witness.vkey)
    assert await log.verifies()


async def test_a_log_that_was_stopped_without_its_witness_is_published_at_its_next_start(tmp_path: Path) -> None:
    """Signed, locked, not published: the next process has it cosigned first."""
    log = Log(tmp_path)
    with witness_of(log, tmp_path) as witness:
        log.trust(witness)
    async with log.sink() as sink:
        await sink.write(Batch(spans_of(0, 100), 1))
        await log.monitor.says("degraded")
        draining = asyncio.create_task(sink.drained())
        await asyncio.sleep(0)
        assert not draining.done()  # signed is not enough
        draining.cancel()
    assert LogFiles(log.layout.directory).checkpoint() is None
    assert FileLockStore(log.layout.lock_file).latest() is not None
    port = int(witness.url.rstrip("/").rsplit(":", 1)[1])
    with witness_of(log, tmp_path, port) as again:
        async with log.sink() as sink:
            await asyncio.wait_for(sink.drained(), DEADLINE_SECONDS)
        assert log.published(again)
    assert await log.verifies()


def test_who_signed_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`quaestor audit info` says which witnesses have signed, when, and whether they are a quorum."""
    log = Log(tmp_path)
    monkeypatch.setenv("QUAESTOR_AUDIT_LOG", "test")
    monkeypatch.setenv("QUAESTOR_AUDIT_ORIGIN", ORIGIN)
    monkeypatch.setenv("QUAESTOR_AUDIT_WITNESS_POLICY", str(log.policy))
    with witness_of(log, tmp_path) as witness:
        log.trust(witness)
        shown = [info(tmp_path)]
        asyncio.run(published_once(log))
        shown.append(info(tmp_path))

    assert "missing one" in shown[0]
    assert "has not signed" in shown[0]
    assert "met" in shown[1]
    assert "20" in shown[1].rsplit("one.example/witness", 1)[1]
    assert '"quorum": "met"' in info(tmp_path, "--json")


async def published_once(log: Log) -> None:
    """Enter and publish a few records."""
    async with log.sink() as sink:
        await sink.write(Batch(spans_of(0, 3), 1))
        await asyncio.wait_for(sink.drained(), DEADLINE_SECONDS)


def info(data: Path, *options: str) -> str:
    """What the command prints."""
    command = ["audit", "info", "--data", str(data), *options]
    found = CliRunner().invoke(application(command), command)
    assert 0 == found.exit_code, found.output
    return found.output


def test_the_sinks_settings_reach_its_witnesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing without a policy; with one its file and both times."""
    assert _witnessing(load_settings(tmp_path)) is None
    monkeypatch.setenv("QUAESTOR_AUDIT_WITNESS_POLICY", str(tmp_path / "policy"))
    monkeypatch.setenv("QUAESTOR_AUDIT_WITNESS_SECONDS", "3")
    monkeypatch.setenv("QUAESTOR_AUDIT_UNWITNESSED_SECONDS", "7")

    witnessing = _witnessing(load_settings(tmp_path))
    assert witnessing is not None
    assert tmp_path / "policy" == witnessing.policy_file
    assert (3, 7) == (witnessing.times.ask_seconds, witnessing.times.unwitnessed_seconds)


def test_a_policy_that_can_not_be_met_ends_the_process(tmp_path: Path) -> None:
    """Before anything is claimed."""
    log = Log(tmp_path)
    log.policy.write_text("quorum what\n")

    with pytest.raises(ConfigurationError, match=r"policy, line 1: 'what' is not defined"):
        make_cosigners(log.layout, log.monitor, Witnessing(log.policy, HttpWitnesses()))
