"""`quaestor audit retention` and `hold` at the true border: real Postgres and files, the audit sink at work beside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from api.cli import audit_holds, audit_retention
from api.cli.main import application
from api.cli.times import now_micros
from api.control.session import ControlSession
from api.verify.content import ContentComparison
from api.verify.expected import Expected, ExpectedContent
from api.verify.kept import KeptEntries
from api.verify.log_scan import LogScan, take_barrier
from api.verify.parity import NamedStore, compare_totals
from processors.control.months import MICROS_PER_DAY
from processors.parity.digest import KEY_BYTES, RowHasher
from sinks.audit.files import LogFiles
from sinks.audit.keys import load_salts
from sinks.audit.layout import AUDITED_TOPICS
from sinks.audit.reads import AuditReads
from sinks.runner.progress import MonitorProgress
from sinks.runner.runner import run_sink
from streams.memory import MemoryLog
from streams.monitor import Monitor
from tests.integration.test_audit_sink import ENCODER, Log, publish, run_over
from tests.support.audit import ORIGIN
from tests.support.databases import postgres_databases
from tests.support.stories import outgoing, request_story

pytestmark = pytest.mark.stack
#: Of eleven records each: more than one block of entries.
STORIES = 6_100
BLOCK = 65_536
LATER_DAYS = 500


class Commands:
    """The command line over a log and the Kafka of a test."""

    def __init__(self, log: Log, patch: pytest.MonkeyPatch) -> None:
        """Commands run in the far future: the log's own entries are of today."""
        self.log, self.kafka = log, MemoryLog()
        for module in (audit_retention, audit_holds):
            patch.setattr(module, "control_session", self._session)
        patch.setattr(audit_retention, "now_micros", lambda: now_micros() + LATER_DAYS * MICROS_PER_DAY)
        settings = {"DATA": str(log.layout.data), "POSTGRES_DSN": log.dsn, "AUDIT_LOG": "test", "AUDIT_ORIGIN": ORIGIN}
        for name, value in settings.items():
            patch.setenv(f"QUAESTOR_{name}", value)

    @contextmanager
    def _session(self, _settings: object) -> Iterator[ControlSession]:
        session = ControlSession(self.kafka.publisher(), self.kafka.reader(), ENCODER, "cli/0")
        session.refresh()
        yield session

    async def json(self, *arguments: str, code: int = 0) -> Any:
        """What `quaestor audit … --json` answers."""
        return json.loads(await self.run(*arguments, "--json", code=code))

    async def run(self, *arguments: str, code: int = 0) -> str:
        """What `quaestor audit …` prints."""
        line = ["audit", *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, application(line), line)
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[None]:
        """An audit sink at work."""
        sink, stop = self.log.sink(), asyncio.Event()
        progress = MonitorProgress(Monitor("sink-audit"), sink.projection)
        reader = self.kafka.group_reader(sink.projection)
        task = asyncio.create_task(run_sink(sink, reader, ENCODER, progress, stop, Random(1)))
        yield
        stop.set()
        await task

    async def parity(self) -> list[str]:
        """What `quaestor verify parity --deep` says of the audit log, but for `ok`."""
        layout, reader = self.log.layout, self.kafka.reader()
        kept = LogFiles(layout.directory).kept()
        async with self.log.reading() as store:
            reads = AuditReads(store, load_salts(layout.salt_file), kept.minimum_index)
            named = NamedStore("audit", AUDITED_TOPICS, reads, reads, "", KeptEntries(kept))
            barrier, scan = take_barrier(reader), LogScan(reader, ENCODER)
            of_log = ExpectedContent(reads, Expected({}, named.kept.is_gone), RowHasher(bytes(KEY_BYTES)))
            fold = scan.fold(barrier, [of_log.take], lambda _done, _all: None)
            checks = await compare_totals(named, barrier, fold, of_log.expected)
            assert all(check.name.endswith(f" from entry {BLOCK} on") for check in checks)
            checks += await ContentComparison("audit", of_log, named.part(barrier), scan.read).checks(
                lambda _done: None
            )
        return [f"{check.name}: {check.first_difference}" for check in checks if not check.ok]


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log lines: commands and sink share this process's standard output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
async def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: None) -> Commands:
    """The command line over a new log."""
    return Commands(Log(tmp_path, await postgres_databases().copied("retention")), monkeypatch)


async def test_a_block_goes_and_the_log_goes_on(commands: Commands) -> None:
    """Held, it stays and the plan says why; released, it goes; what is left verifies, agrees with Kafka and grows."""
    log, kafka = commands.log, commands.kafka
    publish(kafka, [record for number in range(STORIES) for record in outgoing(ENCODER, request_story(number))])
    await run_over(log, kafka)
    await commands.run("retention", "set", "audit", "--keep-days", "400", "--reason", "policy 3")
    hold = (await commands.json("hold", "add", "--tenant", "acme", "--reason", "case 7"))["hold"]["id"]

    (held,) = (await commands.json("retention", "plan", "audit"))["plans"]
    assert (0, 0, hold, [], f"hold {hold} (case 7) covers entry 0") == (
        held["from"], held["to"], held["hold"], held["drops"], held["why_no_more"],
    )  # fmt: skip
    await commands.run("hold", "release", hold)
    assert {"holds": []} == await commands.json("hold", "list")
    (due,) = (await commands.json("retention", "plan", "audit"))["plans"]
    assert (BLOCK, BLOCK, True) == (due["to"], due["rows"], due["bytes"] > BLOCK)
    bundles = log.layout.directory / "tile/entries"
    assert {"000", "255"} <= {path.name for path in bundles.iterdir()}

    async with commands.sink():
        (done,) = (await commands.json("retention", "apply", "audit", "--yes"))["applied"]
    assert [f"entries below {BLOCK}: 256 bundles; their hashes stay"] == done["gone"]
    assert "256" == min(path.name for path in bundles.iterdir())
    for _ in range(2):
        publish(kafka, outgoing(ENCODER, request_story(STORIES + len(kafka.records))))
        await run_over(log, kafka)
        found = await commands.json("verify")
        assert (True, BLOCK) == (found["ok"], found["minimum_index"]), found
    assert BLOCK == (await commands.json("info"))["minimum_index"]
    assert [] == await commands.parity()
    shown = (await commands.json("retention", "show"))["retention"]
    assert [("audit", 400, BLOCK), ("events", None, 0)] == [
        (each["class"], each["keep_days"], each["kept_from"]) for each in shown
    ]
