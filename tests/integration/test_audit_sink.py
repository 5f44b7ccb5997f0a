"""The audit log on real Postgres: through the runner, against its superuser, killed, doubled, restored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import asyncpg
import pytest

from api.verify.log_scan import LogScan
from processors.audit.trust import Trust
from schemas.errors import FencedError, IntegrityError, StoreUnavailableError
from schemas.topics import TOPICS
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.keys import load_salts
from sinks.audit.layout import AUDITED_TOPICS, AuditLayout
from sinks.audit.lock import FileLockStore
from sinks.audit.process import make_sink
from sinks.audit.reader import DirectoryLog
from sinks.audit.rebuild import Rebuilt, rebuild
from sinks.audit.replay import replay
from sinks.audit.sink import AuditSink
from sinks.audit.verify import AuditReport, verify_audit
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.connect import READER_ROLE
from sinks.postgres.migrations import migrate
from sinks.runner.progress import MonitorProgress
from sinks.runner.runner import run_sink
from sinks.runner.seam import Batch
from sinks.totals import totals_of
from streams.log import OutgoingRecord
from streams.memory import MemoryLog
from streams.monitor import Monitor
from tests.support.audit import ORIGIN, PARTITIONS, TOPIC, TOPIC_ID, spans_of
from tests.support.databases import postgres_databases
from tests.support.postgres_server import PostgresServer
from tests.support.stories import codec, outgoing, request_story

pytestmark = pytest.mark.stack
ENCODER = codec()
DEADLINE_SECONDS = 30


class Log:
    """One audit log: its folder and its database."""

    def __init__(self, data: Path, dsn: str) -> None:
        """Nothing runs."""
        self.layout, self.dsn = AuditLayout(data, "test", ORIGIN), dsn

    def sink(self) -> AuditSink:
        """A new process's sink."""
        return make_sink(self.layout, PostgresAuditStore(self.dsn, "test"), "test")

    async def claimed(self) -> AuditSink:
        """A sink that owns the log."""
        sink = self.sink()
        try:
            await sink.open()
            await sink.claim(PARTITIONS, {TOPIC: TOPIC_ID})
        except IntegrityError:
            await sink.close()
            raise
        return sink

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[PostgresAuditStore]:
        """The rows, under the role that can't write."""
        store = PostgresAuditStore(self.dsn, "test", READER_ROLE)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def verify(self) -> AuditReport:
        """What verification says now."""
        files, lock = LogFiles(self.layout.directory), FileLockStore(self.layout.lock_file)
        async with self.reading() as store:
            return await verify_audit(store, files, lock, KeyRing(self.layout).load().chain)

    async def as_superuser(self, *statements: str) -> None:
        """What nothing in the database stops."""
        connection = await asyncpg.connect(self.dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture
async def log(tmp_path: Path) -> Log:
    """A new log; a copy, since tests do more to it than change rows."""
    return Log(tmp_path, await postgres_databases().copied("log"))


@pytest.fixture
async def grown(log: Log) -> Log:
    """A log with 600 published entries, closed in order."""
    return await grow(log)


async def grow(log: Log) -> Log:
    """Enter and publish them."""
    sink = await log.claimed()
    for start in (0, 100, 200):
        await sink.write(Batch(spans_of(start, 100), 1))
    await sink.close()
    return log


@pytest.fixture
def mortal() -> Iterator[PostgresServer]:
    """A server of a test's own, to be crashed."""
    made = PostgresServer()
    made.start()
    yield made
    made.remove()


def differing(report: AuditReport) -> dict[str, str]:
    """Each red check's words."""
    return {check.name: check.first_difference or "" for check in report.checks if not check.ok}


def junk(partition_key: bytes) -> OutgoingRecord:
    """A record nobody can decode."""
    return OutgoingRecord("quaestor.costs", partition_key, b"\xffjunk", ())


async def run_over(log: Log, kafka: MemoryLog) -> None:
    """Drive a sink until every record is under a published checkpoint; then stop it in order."""
    sink, stop = log.sink(), asyncio.Event()
    progress = MonitorProgress(Monitor("sink-audit"), sink.projection)
    reader = kafka.group_reader(sink.projection)
    task = asyncio.create_task(run_sink(sink, reader, ENCODER, progress, stop, Random(1)))
    ends = {at: len(kept) for at, kept in kafka.records.items() if at.topic in AUDITED_TOPICS and kept}
    keys = KeyRing(log.layout).load().chain
    async with asyncio.timeout(DEADLINE_SECONDS), log.reading() as store:
        while True:
            note = LogFiles(log.layout.directory).checkpoint()
            snapshot = await store.snapshot()
            entered = ends == {at: end for at, end in snapshot.cursors.items() if end}
            if note is not None and entered and keys.open_checkpoint(note).size == snapshot.state.next_seq:
                break
            assert not task.done()
            await asyncio.sleep(0.02)
    stop.set()
    await task


def publish(kafka: MemoryLog, records: Sequence[OutgoingRecord]) -> None:
    """Write records into the log."""
    kafka.publisher().publish(records, lambda _: None)


async def test_every_audited_record_is_entered_through_the_runner(log: Log) -> None:
    """Decoded ones with their ids, junk as a commitment, over two runs; the totals are those of the log."""
    kafka = MemoryLog()
    publish(kafka, [record for number in range(40) for record in outgoing(ENCODER, request_story(number))])
    await run_over(log, kafka)
    publish(kafka, [junk(b"acme/1"), *outgoing(ENCODER, request_story(7)), *outgoing(ENCODER, request_story(77))])
    await run_over(log, kafka)

    report = await log.verify()
    assert report.ok, report.first_difference
    assert report.tenants == 2
    barrier = {at: kafka.end(at) for at in kafka.records if at.topic in AUDITED_TOPICS}
    async with log.reading() as store:
        totals, counts = await store.totals(barrier), await store.counts(barrier)
    for topic in (topic.name for topic in TOPICS if topic.name in AUDITED_TOPICS):
        records = [record for at, kept in kafka.records.items() if at.topic == topic for record in kept]
        values = [record.value for record in records if record.value and record.value[:1] == b"\0"]
        decoded = [ENCODER.decode(topic, value) for value in values]
        expected = ((each["tenant_id"], each["event_id"], each.get("amount_nano") or 0) for each in decoded)
        assert totals[topic] == totals_of(expected)
        assert counts[topic] == len(records)


async def test_a_request_is_found_in_the_log(log: Log) -> None:
    """The entries of one request, each with its place in Kafka."""
    kafka = MemoryLog()
    story = request_story(3)
    publish(kafka, [record for number in range(5) for record in outgoing(ENCODER, request_story(number))])
    await run_over(log, kafka)

    async with log.reading() as store:
        places = await store.of_request(story[0].request_id or "")
    assert {event.event_id for event in story} == {place.event_id for place in places}
    assert [place.seq for place in places] == sorted(place.seq for place in places)


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ("entry = overlay(entry placing '\\x00' from 100)", "rows", "entry 123: column leaf"),
        ("leaf = decode(repeat('00', 32), 'hex')", "rows", "entry 123: column leaf"),
        ("chain = decode(repeat('00', 32), 'hex')", "rows", "entry 123: column chain"),
        ("tenant_id = 'other'", "rows", "entry 123: column tenant_id"),
        ("amount_nano = coalesce(amount_nano, 0) + 1", "rows", "entry 123: column amount_nano"),
    ],
)
async def test_a_superuser_changes_a_row(grown: Log, change: str, check: str, words: str) -> None:
    """With the triggers off a superuser can change a row, and verification names it and what differs."""
    await grown.as_superuser(
        "ALTER TABLE quaestor.audit_entry DISABLE TRIGGER ALL",
        "ALTER TABLE quaestor.audit_entry_000000 DISABLE TRIGGER ALL",
        f"UPDATE quaestor.audit_entry SET {change} WHERE seq = 123",  # noqa: S608 - the parameters above
    )

    found = differing(await grown.verify())
    assert found[check].startswith(words.rsplit(" column", 1)[0])
    assert list(found) == [check]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE quaestor.audit_entry SET tseq = 9 WHERE seq = 1",
        "DELETE FROM quaestor.audit_entry WHERE seq = 599",
        "TRUNCATE quaestor.audit_entry_000000",
        "UPDATE quaestor.audit_checkpoint SET note = ''",
    ],
)
@pytest.mark.parametrize("role", ["origin", "replica"])
async def test_a_mistake_is_refused(grown: Log, statement: str, role: str) -> None:
    """The guards refuse changes, also where ordinary triggers would not fire."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await grown.as_superuser(f"SET session_replication_role = {role}", statement)


@pytest.mark.parametrize("statement", ["UPDATE quaestor.audit_entry SET tseq = 9", "DROP TABLE quaestor.audit_entry"])
async def test_the_sinks_role_may_not_change_entries(grown: Log, statement: str) -> None:
    """The role that writes the log can only add to it."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await grown.as_superuser("SET ROLE quaestor_app", statement)


async def test_a_restored_backup_is_refused(grown: Log) -> None:
    """A database put back to before the last checkpoint does not run: the process ends, saying why."""
    await grown.as_superuser(
        "ALTER TABLE quaestor.audit_entry_000000 DISABLE TRIGGER ALL",
        "DELETE FROM quaestor.audit_entry_000000 WHERE seq >= 400",
        "UPDATE quaestor.audit_log SET next_seq = 400, integrated_size = 400",
    )
    with pytest.raises(IntegrityError, match="older backup"):
        await grown.claimed()

    assert "older backup" in differing(await grown.verify())["rows"]


async def test_two_sequencers_one_is_fenced(grown: Log) -> None:
    """The first to claim loses its next write and knows it; the log has no fork."""
    first = await grown.claimed()
    second = await grown.claimed()
    with pytest.raises(FencedError):
        await first.write(Batch(spans_of(300, 10), 1))
    with pytest.raises(FencedError):
        await asyncio.wait_for(first.failure(), DEADLINE_SECONDS)
    await second.write(Batch(spans_of(300, 10), 1))
    await asyncio.wait_for(second.drained(), DEADLINE_SECONDS)
    await first.close()
    await second.close()

    report = await grown.verify()
    assert (True, 624) == (report.ok, report.size), report.first_difference


async def test_a_database_that_goes_and_comes_back(mortal: PostgresServer, tmp_path: Path) -> None:
    """While Postgres is away nothing is lost; the same batch is applied when it is back, and published."""
    await migrate(mortal.dsn("log"))
    grown = await grow(Log(tmp_path, mortal.dsn("log")))
    sink = await grown.claimed()
    mortal.stop("immediate")
    batch = Batch(spans_of(300, 50), 1)
    with pytest.raises(StoreUnavailableError):
        await sink.write(batch)
    mortal.start()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                await sink.write(batch)
                break
            except StoreUnavailableError:  # the pool drops its dead connections one by one
                await asyncio.sleep(0.02)
        await sink.drained()
    await sink.close()

    report = await grown.verify()
    assert (True, 704) == (report.ok, report.size), report.first_difference


async def put_back(log: Log) -> Rebuilt:
    """Rebuild the database from the log's files."""
    files, lock = LogFiles(log.layout.directory), FileLockStore(log.layout.lock_file).latest()
    store = PostgresAuditStore(log.dsn, "test")
    await store.open()
    try:
        return await rebuild(store, DirectoryLog(files), lock, trust_of(log), "test", None, lambda _done, _total: None)
    finally:
        await store.close()


def trust_of(log: Log) -> Trust:
    """The log's key."""
    return Trust(KeyRing(log.layout).load().chain.keys)


async def made_again(log: Log, kafka: MemoryLog) -> int:
    """Replay the log from Kafka's records; how many entries gave the signed root."""
    scan, salts = LogScan(kafka.reader(), ENCODER), load_salts(log.layout.salt_file)
    source = DirectoryLog(LogFiles(log.layout.directory))
    return (await replay(source, trust_of(log), salts, scan.read, lambda _done, _total: None)).size


@pytest.mark.parametrize("backup", [True, False])
async def test_a_database_is_put_back_from_the_logs_own_files(log: Log, tmp_path: Path, *, backup: bool) -> None:
    """Lost, or restored from a backup: the message names the command, and the log goes on without a fork."""
    kafka = MemoryLog()
    publish(kafka, [record for number in range(40) for record in outgoing(ENCODER, request_story(number))])
    await run_over(log, kafka)
    older = await postgres_databases().backed_up(log.dsn, "backup")
    publish(kafka, [junk(b"acme/1"), *outgoing(ENCODER, request_story(77))])
    await run_over(log, kafka)
    signed = await log.verify()
    log.dsn = older if backup else await postgres_databases().copied("lost")
    with pytest.raises(IntegrityError, match="quaestor audit rebuild"):
        await log.claimed()

    done = await put_back(log)
    assert (signed.size, signed.size) == (done.signed.size, done.kept + done.added)
    assert bool(done.kept) == backup
    report = await log.verify()
    assert (True, signed.size, signed.root) == (report.ok, report.size, report.root), report.first_difference
    assert signed.size == await made_again(log, kafka)
    publish(kafka, list(outgoing(ENCODER, request_story(99))))
    await run_over(log, kafka)
    report = await log.verify()
    assert report.ok, report.first_difference
    assert report.size == await made_again(log, kafka) > signed.size


async def test_a_replay_finds_what_kafka_no_longer_has_as_it_was(log: Log) -> None:
    """A record that was changed, or is gone, is named by its entry."""
    kafka = MemoryLog()
    publish(kafka, [record for number in range(9) for record in outgoing(ENCODER, request_story(number))])
    await run_over(log, kafka)
    at, kept = next((at, kept) for at, kept in kafka.records.items() if at.topic in AUDITED_TOPICS and len(kept) > 1)
    sound = kept[1]
    other = next(each for each in kept if each.value != sound.value)
    kept[1] = sound._replace(value=other.value)

    with pytest.raises(IntegrityError, match=rf"the record at {at.topic}/{at.number}@1 gives another "):
        await made_again(log, kafka)
    kept[1] = sound
    kafka.truncate(at, 1)
    with pytest.raises(IntegrityError):
        await made_again(log, kafka)
