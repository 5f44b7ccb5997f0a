"""What retention drops in real stores: months of events, partitions of audit rows; and who may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import asyncpg
import msgspec
import pytest

from api.verify.expected import Expected
from api.verify.kept import KeptEvents
from api.verify.log_scan import take_barrier
from api.verify.parity import NamedStore, compare_totals, rollup_agrees
from processors.audit.entry import Sealed, seal
from schemas import events
from schemas.errors import IntegrityError
from schemas.topics import TOPICS
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.retention import EntryRows
from sinks.audit.sequencer import sources_of
from sinks.audit.store import AuditStore
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.reads import ClickHouseReads
from sinks.clickhouse.retention import ClickHouseRetention
from sinks.clickhouse.tables import TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.connect import APP_ROLE, READER_ROLE
from sinks.postgres.reads import PostgresReads
from sinks.postgres.retention import RETENTION_ROLE, PostgresRetention
from sinks.postgres.sink import PostgresSink
from sinks.retention import RETAINED_TOPICS, MemoryMonthStore, MonthStore, StoredMonth
from tests.integration.test_verify_content import fill
from tests.support.audit import PARTITIONS, SALTS, TOPIC_ID, spans_of
from tests.support.clickhouse_sink import RememberedRanges, RememberingSink
from tests.support.databases import ClickHouseDatabases, postgres_databases
from tests.support.parity_world import CODEC, ParityWorld
from tests.support.stories import outgoing, request_story

pytestmark = pytest.mark.stack
#: 2025-05-10 and 2025-07-10, and the first moment of the month between.
OLD_MICROS, NEWER_MICROS, CUT_MICROS = 1_746_860_000_000_000, 1_752_130_000_000_000, 1_748_736_000_000_000


def story_at(number: int, at: int) -> list[events.Event]:
    """One request's story at a time of its own."""
    return [msgspec.structs.replace(event, occurred_at=at) for event in request_story(number)]


@pytest.fixture
def world() -> ParityWorld:
    """Requests of two months; one of the old month was produced twice."""
    old = [event for number in range(5) for event in story_at(number, OLD_MICROS)]
    newer = [event for number in range(5, 12) for event in story_at(number, NEWER_MICROS)]
    return ParityWorld([*old, *newer, *story_at(0, OLD_MICROS)])


@pytest.fixture
async def dsn() -> str:
    """A database of the test's own: more than rows change."""
    return await postgres_databases().copied("retention")


@pytest.fixture(params=["memory", "postgres", "clickhouse"])
async def months(
    request: pytest.FixtureRequest, world: ParityWorld, dsn: str, clickhouse: ClickHouseDatabases
) -> AsyncIterator[MonthStore]:
    """Each store in turn, with the months of the log."""
    made: MonthStore
    if request.param == "memory":
        tables = ("attempt", "decision", "request_event")
        kept = [StoredMonth("memory", each, date(2025, month, 1), 1, 1) for each in tables for month in (5, 7)]
        made = MemoryMonthStore("memory", kept)
    elif request.param == "postgres":
        await fill(PostgresSink(dsn, "test"), world)
        made = PostgresRetention(dsn, "main")
    else:
        database = clickhouse.name()
        await fill(RememberingSink(ClickHouse(clickhouse.url, database), MemoryPlanStore(), RememberedRanges()), world)
        made = ClickHouseRetention(ClickHouse(clickhouse.url, database))
    yield made
    await made.close()


async def test_a_month_goes_once(months: MonthStore) -> None:
    """Every retained table shows its months; one that is dropped is gone, dropped again it is no fault."""
    found = await months.months(date(2025, 8, 1))
    assert found[::2] == await months.months(date(2025, 7, 1))
    assert [(2025, 5), (2025, 7)] * 3 == [(each.month.year, each.month.month) for each in found]
    assert all(each.store == months.name and each.rows > 0 and each.bytes > 0 for each in found)

    await months.drop(found[0])
    await months.drop(found[0])

    assert found[1:] == await months.months(date(2025, 8, 1))


async def compared(world: ParityWorld, named: NamedStore, reads: PostgresReads | ClickHouseReads) -> list[str]:
    """What totals and every field say of a store that retention cut; empty when nothing differs."""
    expected = Expected({}, named.kept.is_gone)
    fold = world.fold(expected)
    checks = await compare_totals(named, take_barrier(world.log.reader()), fold, expected)
    assert len(RETAINED_TOPICS) == sum(check.name.endswith(" from 2025-06 on") for check in checks)
    words = [f"{check.name}: {check.first_difference}" for check in checks if not check.ok]
    deep = await world.difference(reads, kept=named.kept)
    return [*words, deep] if deep else words


async def drop_before_june(retention: MonthStore) -> None:
    """Cut as retention does."""
    for month in await retention.months(date(2025, 6, 1)):
        await retention.drop(month)


def produce_late(world: ParityWorld) -> None:
    """An event of the old month comes when that is gone."""
    world.produce(outgoing(CODEC, story_at(99, OLD_MICROS)))


async def test_postgres_agrees_with_the_log_above_the_cut(world: ParityWorld, dsn: str) -> None:
    """With the old month gone, and with a late event that made it again, what stays is compared and equal."""
    await fill(PostgresSink(dsn, "test"), world)
    retention, whole, cut = PostgresRetention(dsn, "main"), PostgresReads(dsn), PostgresReads(dsn, CUT_MICROS)
    named = NamedStore("postgres", tuple(topic.name for topic in TOPICS), cut, cut, "", KeptEvents(CUT_MICROS))
    await drop_before_june(retention)

    assert "missing" in await world.difference(whole)
    assert [] == await compared(world, named, cut)
    produce_late(world)
    await fill(PostgresSink(dsn, "late"), world)
    assert {date(2025, 5, 1), date(2025, 7, 1)} == {each.month for each in await retention.months(date(2025, 8, 1))}
    assert [] == await compared(world, named, cut)
    for each in (whole, cut, retention):
        await each.close()


async def test_clickhouse_agrees_with_the_log_above_the_cut(
    world: ParityWorld, clickhouse: ClickHouseDatabases
) -> None:
    """The same, and the rollup of requests, which stays whole, is compared with the facts that stay."""
    database, plans, ranges = clickhouse.name(), MemoryPlanStore(), RememberedRanges()

    def client() -> ClickHouse:
        return ClickHouse(clickhouse.url, database)

    await fill(RememberingSink(client(), plans, ranges), world)
    retention, whole = ClickHouseRetention(client()), ClickHouseReads(client(), plans)
    cut = ClickHouseReads(client(), plans, events_since=CUT_MICROS)
    named = NamedStore("clickhouse", tuple(TABLES), cut, cut, "", KeptEvents(CUT_MICROS))
    await drop_before_june(retention)

    assert "missing" in await world.difference(whole)
    assert [False, True] == sorted(rollup_agrees(each).ok for each in await whole.rollups())
    assert [] == await compared(world, named, cut)
    produce_late(world)
    await fill(RememberingSink(client(), plans, ranges), world)
    assert [] == await compared(world, named, cut)
    assert all(rollup_agrees(each).ok for each in await cut.rollups())
    for each in (whole, cut, retention):
        await each.close()


@pytest.mark.parametrize(
    ("table", "month"),
    [("cost", date(2020, 1, 1)), ("transfer", date(2020, 1, 1)), ("control_event", date(2020, 1, 1)),
     ("request_event", date(2099, 1, 1)), ("request_event; DROP", date(2020, 1, 1))],
)  # fmt: skip
async def test_books_and_young_months_do_not_go(dsn: str, table: str, month: date) -> None:
    """The database refuses, whatever the caller planned."""
    retention = PostgresRetention(dsn, "main")

    with pytest.raises(IntegrityError, match="can't be dropped"):
        await retention.drop(StoredMonth("postgres", table, month, 0, 0))
    await retention.close()


@pytest.mark.parametrize(
    ("role", "sql"),
    [
        *((role, "SELECT quaestor.drop_month('request_event', '2020-01-01')") for role in (APP_ROLE, READER_ROLE)),
        *((role, "SELECT quaestor.drop_audit_entries('main', 65536)") for role in (APP_ROLE, READER_ROLE)),
        (RETENTION_ROLE, "SELECT count(*) FROM quaestor_v1.request_event"),
        (RETENTION_ROLE, "DROP TABLE quaestor.audit_entry"),
        (RETENTION_ROLE, "DELETE FROM quaestor.audit_entry"),
        (RETENTION_ROLE, "UPDATE quaestor.audit_log SET integrated_size = 0"),
        (RETENTION_ROLE, "CREATE FUNCTION quaestor.f() RETURNS integer LANGUAGE sql AS 'SELECT 1'"),
    ],
)
async def test_who_may_drop(dsn: str, role: str, sql: str) -> None:
    """Sinks and readers may not drop; who may drop may do nothing else."""
    connection = await asyncpg.connect(dsn, server_settings={"role": role})
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(sql)
    finally:
        await connection.close()


#: Entries of a table partition: of the fake here, and of Postgres always.
SMALL, WHOLE = 64, 1_048_576
#: How many of them stand before and after its end.
BEFORE, AFTER = 64, 10


async def enter(store: AuditStore, first_seq: int) -> list[Sealed]:
    """Entries across the end of a partition, integrated."""
    state = await store.claim("test", dict.fromkeys(PARTITIONS, TOPIC_ID))
    spans = spans_of(0, (BEFORE + AFTER) // 2)
    sealed = seal([source for span in spans for source in sources_of(span, SALTS)], first_seq, {})
    await store.append(state.epoch, sealed, {}, [])
    await store.integrated(state.epoch, first_seq + len(sealed), bytes(32))
    return sealed


@pytest.fixture(params=["memory", "postgres"])
async def border(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[tuple[AuditStore, EntryRows, int]]:
    """A log with entries on both sides of the end of its first table partition, and where that is."""
    if request.param == "memory":
        memory = MemoryAuditStore()
        memory.partition_entries = SMALL
        await enter(memory, 0)
        yield memory, memory, SMALL
        return
    store, rows = PostgresAuditStore(dsn, "test"), PostgresRetention(dsn, "test")
    await store.open()
    await stand_at(dsn, WHOLE - BEFORE)
    await enter(store, WHOLE - BEFORE)
    yield store, rows, WHOLE
    await rows.close()
    await store.close()


async def stand_at(dsn: str, next_seq: int) -> None:
    """Put a log there without a million entries."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("UPDATE quaestor.audit_log SET next_seq = $1 WHERE log = 'test'", next_seq)
    finally:
        await connection.close()


async def test_a_partition_goes_when_all_of_it_is_below(border: tuple[AuditStore, EntryRows, int]) -> None:
    """Once, with its rows and no others."""
    store, rows, end = border
    later = await store.entries(end, end + 100)

    assert (1, 0) == (await rows.drop_entries(end), await rows.drop_entries(end))
    assert (AFTER, later) == (len(later), await store.entries(end - BEFORE, end + 100))


async def test_rows_beside_entries_that_stay_stay(dsn: str) -> None:
    """A position within a partition drops nothing of it, nor does one that another log stands below."""
    store, other, rows = (
        PostgresAuditStore(dsn, "test"), PostgresAuditStore(dsn, "other"), PostgresRetention(dsn, "test"),
    )  # fmt: skip
    await store.open()
    await other.open()
    await stand_at(dsn, WHOLE - BEFORE)
    await enter(store, WHOLE - BEFORE)

    assert 0 == await rows.drop_entries(WHOLE - 65_536)
    await enter(other, 0)
    assert 0 == await rows.drop_entries(WHOLE)
    assert BEFORE + AFTER == len(await store.entries(0, 2 * WHOLE))
    for each in (store, other, rows):
        await each.close()


@pytest.mark.parametrize("below", [0, -65_536, 65_537, 2 * WHOLE])
async def test_a_log_does_not_end_below_its_minimum_index(dsn: str, below: int) -> None:
    """What is no position of a cut, or beyond the log's entries, is refused by the database."""
    store, rows = PostgresAuditStore(dsn, "test"), PostgresRetention(dsn, "test")
    await store.open()
    await stand_at(dsn, WHOLE - BEFORE)
    await enter(store, WHOLE - BEFORE)

    with pytest.raises(IntegrityError, match="can't be dropped"):
        await rows.drop_entries(below)
    await rows.close()
    await store.close()
