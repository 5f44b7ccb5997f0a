"""`quaestor dlq` on real Postgres, with the real Postgres sink at work: what a person does about poison, end to end."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
import structlog
from typer.testing import CliRunner, Result

from api.cli.main import application
from api.verify.expected import Expected
from api.verify.log_scan import LogScan, take_barrier
from processors.parity.checks import store_holds_topic
from processors.parity.totals import TopicTotals
from schemas import limits
from schemas.errors import SchemaUnknownError
from schemas.topics import COSTS, QUARANTINE, REQUESTS, TOPICS
from sinks.postgres.quarantine import PostgresQuarantine
from sinks.postgres.reads import PostgresReads
from sinks.postgres.sink import PostgresSink
from sinks.postgres.tables import PROJECTION
from sinks.runner import BatchPolicy
from sinks.runner.progress import MonitorProgress
from sinks.runner.relay import relay_quarantine
from sinks.runner.runner import run_sink
from streams.codec import Codec, LocalSchemas
from streams.log import OutgoingRecord
from streams.memory import MemoryLog
from streams.monitor import Monitor
from streams.recorder import Recorder
from tests.support.databases import postgres_databases
from tests.support.stories import codec, outgoing, request_story

pytestmark = pytest.mark.stack
ENCODER = codec()
DEADLINE_SECONDS = 30
NEW_SCHEMA = 99
NOWHERE = "127.0.0.1:9"
POLICY = BatchPolicy(
    age_milliseconds=10, poll_milliseconds=10, heartbeat_milliseconds=50, tend_milliseconds=50, keeps_poison=True
)


class Registry(LocalSchemas):
    """Learns of a producer's schema too late."""

    def __init__(self) -> None:
        """It does not know it yet."""
        self.knows = False

    def schema_text(self, schema_id: int) -> str:
        """As the seam says."""
        if schema_id != NEW_SCHEMA:
            return super().schema_text(schema_id)
        if not self.knows:
            raise SchemaUnknownError(schema_id)
        return super().schema_text(super().id_of(REQUESTS.name))


class World:
    """A log, the sink on it with its relay, and the command line beside."""

    def __init__(self, dsn: str) -> None:
        """Nothing runs yet."""
        self.dsn = dsn
        self.log = MemoryLog({topic.name: 1 for topic in TOPICS})
        self.registry = Registry()
        self.codec = Codec(self.registry)
        self.reads = PostgresReads(dsn)
        self.monitor = Monitor("sink-postgres")
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start sink and relay."""
        self.quarantine = PostgresQuarantine(self.dsn)
        sink = PostgresSink(self.dsn, "test", POLICY)
        reader, progress = self.log.group_reader(PROJECTION), MonitorProgress(self.monitor, PROJECTION)
        running = run_sink(sink, reader, self.codec, progress, self._stop, Random(1), self.quarantine)
        recorder = Recorder(self.log.publisher(), self.codec)
        relaying = relay_quarantine(self.quarantine, recorder, self._stop, Random(1))
        self._tasks = [asyncio.create_task(running), asyncio.create_task(relaying)]

    async def stop(self) -> None:
        """Stop them."""
        self._stop.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*self._tasks)
        await self.quarantine.close()
        await self.reads.close()

    def publish(self, *records: OutgoingRecord) -> None:
        """Write records into the log."""
        self.log.publisher().publish(records, lambda _: None)

    async def settled(self) -> None:
        """Wait until the sink stands at the end of the log."""
        await until(self._at_end)

    async def _at_end(self) -> bool:
        cursors = await self.reads.cursors()
        return all(cursors.get(at) == self.log.end(at) for at in self.log.records)

    async def dlq(self, *arguments: str, code: int = 0) -> Any:
        """What `quaestor dlq … --json` answers."""
        result = await asyncio.to_thread(run, "dlq", *arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What Postgres answers."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def differences(self) -> list[str]:
        """What `verify` would find: every topic of the store against the log without what was set aside."""
        reader = self.log.reader()
        scan = LogScan(reader, self.codec)
        barrier = take_barrier(reader)
        expected = Expected(await self.reads.set_aside(PROJECTION))
        fold = scan.fold(barrier, [expected.take], lambda *_: None)
        totals = await self.reads.totals(barrier)
        found = [f"{at}@{offset} is nowhere" for at, offset in expected.lost]
        for topic, stored in totals.items():
            held = TopicTotals(stored.records, stored.id_digest, stored.amount_nano)
            check = store_holds_topic("postgres", topic, expected.totals(topic, fold), held)
            found += [] if check.ok else [f"{topic}: {check.first_difference}"]
        return found


def run(*arguments: str) -> Result:
    """What a command says."""
    return CliRunner().invoke(application(list(arguments)), arguments)


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - the conditions are facts of a store, which signals nobody
            await asyncio.sleep(0.02)


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log lines: commands and sink share this process's standard output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
async def world(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    quiet: None,
) -> AsyncIterator[World]:
    """Sink and relay at work on an empty database."""
    dsn = await postgres_databases().emptied("dlq")
    monkeypatch.setenv("QUAESTOR_DATA", str(tmp_path))
    monkeypatch.setenv("QUAESTOR_POSTGRES_DSN", dsn)
    monkeypatch.setenv("QUAESTOR_KAFKA_BOOTSTRAP", NOWHERE)
    made = World(dsn)
    made.start()
    yield made
    await made.stop()


def requests(number: int) -> list[OutgoingRecord]:
    """RECEIVED and COMPLETED of one request."""
    return [record for record in outgoing(ENCODER, request_story(number)) if record.topic == REQUESTS.name]


def too_new(record: OutgoingRecord) -> OutgoingRecord:
    """The record under a schema that the registry does not know yet."""
    return record._replace(value=b"\0" + struct.pack(">I", NEW_SCHEMA) + record.value[5:])


def garbage(record: OutgoingRecord) -> OutgoingRecord:
    """A record with the same key that nobody can read."""
    return record._replace(value=b"garbage")


async def test_a_schema_that_came_late_is_redriven(world: World) -> None:
    """Listed, shown, redriven by fingerprint in the order of its key, at its own offsets; again does nothing."""
    received, completed = requests(1)
    world.publish(too_new(received), completed, *requests(2))
    await world.settled()
    listed = (await world.dlq("list"))["records"]
    assert [(each["offset"], each["state"], each["reason"]) for each in listed] == [
        (0, "QUARANTINED", "SCHEMA_UNKNOWN"),
        (1, "PARKED", "UNKNOWN"),
    ]
    shown = await world.dlq("show", listed[0]["event_id"])
    assert (shown["schema_id"], shown["value"]) == (NEW_SCHEMA, too_new(received).value.hex())
    fingerprint = listed[0]["fingerprint"]
    failed = await world.dlq("redrive", "--fingerprint", fingerprint, code=1)
    assert [(each["state"], each["attempts"]) for each in failed["records"]] == [("QUARANTINED", 2)]
    world.registry.knows = True
    redriven = await world.dlq("redrive", "--fingerprint", fingerprint)
    assert redriven["redriven"] == 1
    await until(lambda: none_left(world))
    assert await world.dlq("redrive", "--all") == {"records": [], "redriven": 0}
    offsets = await world.rows("SELECT log_offset FROM quaestor_v1.request_event ORDER BY 1")
    assert offsets == [(0,), (1,), (2,), (3,)]
    assert await world.differences() == []


async def none_left(world: World) -> bool:
    """Whether nothing is unresolved."""
    return not (await world.dlq("list"))["records"]


async def test_giving_a_record_up_stands_in_the_log(world: World) -> None:
    """Discarded with a reason: an event with the actor on the topic, the follower applied, the books balanced."""
    received, completed = requests(1)
    world.publish(garbage(received), completed)
    await world.settled()
    (head, _) = (await world.dlq("list"))["records"]
    assert await world.dlq("discard", head["event_id"], "--reason", "made by a test") == {"discarded": 1}
    await until(lambda: none_left(world))
    told = "SELECT kind, actor LIKE 'cli/%', note FROM quaestor_v1.quarantine WHERE kind = 'DISCARDED'"
    await until(lambda: world.rows(told))
    assert await world.rows(told) == [("DISCARDED", True, "made by a test")]
    assert await world.rows("SELECT log_offset FROM quaestor_v1.request_event") == [(1,)]
    assert (await world.dlq("redrive", head["event_id"]))["records"] == []
    await world.settled()
    assert await world.differences() == []


async def test_the_books_balance_whatever_became_of_poison(world: World) -> None:
    """Distinct ids in the log = rows + quarantined + parked + discarded; redriven ones are rows."""
    everything = [record for number in range(8) for record in outgoing(ENCODER, request_story(number))]
    bad = [requests(number)[0] for number in (1, 3, 5)]
    cost = next(record for record in everything if record.topic == COSTS.name)
    spoiled = [garbage(each) if each in bad[:1] else too_new(each) if each in bad else each for each in everything]
    world.publish(*spoiled, cost._replace(key=b"another/key"), cost)
    await world.settled()
    assert len((await world.dlq("list"))["records"]) == 7
    assert await world.differences() == []
    late = [each for each in (await world.dlq("list"))["records"] if each["reason"] == "SCHEMA_UNKNOWN"]
    world.registry.knows = True
    await world.dlq("redrive", late[0]["event_id"])
    await world.dlq("discard", late[1]["event_id"], "--reason", "test")
    await until(lambda: three_left(world))
    await world.settled()
    assert await world.differences() == []


async def three_left(world: World) -> bool:
    """The garbage, what waits behind it, and the record with another's key."""
    return len((await world.dlq("list"))["records"]) == 3


async def test_a_partition_that_stands_still_is_resumed(world: World) -> None:
    """Too much poison pauses it, in `list`, /status and an alert; `resume --past` lets it by, all of it kept."""
    count = limits.POISON_IN_A_ROW_MAX + 20
    world.publish(*(garbage(requests(number)[0]) for number in range(count)), *requests(count))
    await until(lambda: is_paused(world))
    assert world.monitor.status()["state"] == "degraded"
    assert list(world.monitor.status()["paused"]) == ["quaestor.requests/0"]
    (paused,) = (await world.dlq("list"))["paused"]
    assert paused["offset"] == limits.POISON_IN_A_ROW_MAX
    refused = await asyncio.to_thread(run, "dlq", "resume", "--past", "soon")
    assert (refused.exit_code, refused.stderr) == (1, "quaestor: --past 'soon' is neither an offset nor 'end'\n")
    await world.dlq("resume", "--topic", REQUESTS.name, "--past", str(count))
    await world.settled()
    assert len((await world.dlq("list", "--limit", "1000"))["records"]) == count

    async def both_alerts() -> bool:
        alerts = await world.rows("SELECT kind, severity FROM quaestor_v1.alert ORDER BY occurred_at")
        return alerts == [("PARTITION_PAUSED", "CRITICAL"), ("PARTITION_PAUSED", "INFO")]

    await until(both_alerts)
    assert await world.differences() == []


async def is_paused(world: World) -> bool:
    """Whether a partition stands still."""
    return bool((await world.dlq("list"))["paused"])


async def test_a_record_left_by_a_person_keeps_its_reason(world: World) -> None:
    """`park` takes it out of what must be looked at; what waits behind it waits on."""
    received, completed = requests(1)
    world.publish(garbage(received), completed)
    await world.settled()
    assert await world.dlq("park", "--all", "--reason", "waits for release 2") == {"parked": 1}
    assert (await world.dlq("list", "--state", "quarantined"))["records"] == []
    states = [(each["state"], each["note"]) for each in (await world.dlq("list"))["records"]]
    assert states == [("PARKED", "waits for release 2"), ("PARKED", None)]
    assert await world.rows("SELECT log_offset FROM quaestor_v1.request_event") == []


async def test_what_is_set_aside_is_on_its_topic(world: World) -> None:
    """Quarantined and parked records are told to the log, each once, with their bytes."""
    received, completed = requests(1)
    world.publish(garbage(received), completed)
    await until(lambda: world.rows("SELECT 1 FROM quaestor_v1.quarantine OFFSET 1"))
    (partition,) = [at for at in world.log.records if at.topic == QUARANTINE.name]
    kinds = [ENCODER.decode(QUARANTINE.name, record.value or b"")["kind"] for record in world.log.records[partition]]
    assert kinds == ["QUARANTINED", "PARKED"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("redrive",), "name records by id or by a filter, or say --all"),
        (("discard", "--reason", "x"), "name records by id or by a filter, or say --all"),
        (("discard", "--all", "--reason", " "), "--reason is empty: say why these records are given up"),
        (("discard", "--all", "--reason", "x" * 257), "the reason must be printable, at most 256 characters"),
        (("park", "--all", "--reason", "a\nb"), "the reason must be printable, at most 256 characters"),
        (("list", "--since", "yesterday"), "'yesterday' is no time: say 2h, 30m, 7d or 2026-11-21T08:00"),
        (
            ("list", "--state", "lost"),
            "there is no state 'lost'; choose quarantined, parked, redriven, discarded, or all",
        ),
        (("show", "7"), "'7' is not an event id; `quaestor dlq list --json` shows them whole"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """What was not understood, and what to say instead."""
    monkeypatch.setenv("QUAESTOR_DATA", str(tmp_path))
    monkeypatch.setenv("QUAESTOR_POSTGRES_DSN", postgres_databases().dsn("none"))
    result = run("dlq", *arguments)
    assert (result.exit_code, result.stderr) == (1, f"quaestor: {words}\n")
