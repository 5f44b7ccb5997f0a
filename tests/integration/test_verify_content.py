"""Every field in real Postgres and in the embedded ClickHouse against the log; one spoilt column is named."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from api.verify.parity import rollup_agrees
from schemas import events
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.reads import ClickHouseReads
from sinks.clickhouse.tables import TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.reads import PostgresReads
from sinks.postgres.sink import PostgresSink
from sinks.runner.screen import Screen
from sinks.runner.seam import Batch, Decoded, Sink, Span
from streams.log import OutgoingRecord, Partition
from tests.support.clickhouse_sink import RememberedRanges, RememberingSink
from tests.support.databases import ClickHouseDatabases, postgres_databases
from tests.support.parity_world import CODEC, ParityWorld, audited
from tests.support.stories import START_MICROS, control_event, event_id, outgoing, request_story

pytestmark = pytest.mark.stack
COSTS = "quaestor.costs"
#: Values that stores turn into something else and back: floats of every size, nulls beside texts, maps, bytes, limits.
ODD: list[events.Event] = [
    events.RoutingDecision(
        event_id=event_id(1, "odd decision"), occurred_at=START_MICROS + 7, tenant_id="acme", actor="t",
        request_id="r-1", model_requested="ä\u2028\\ \"'", policy="p", policy_version="", probability=1e-9,
        candidates=(
            events.Candidate(provider_id="p", model="m", eligible=False, ruled_out_by="price", score=1e22),
            events.Candidate(provider_id="q", model="m", eligible=True, score=0.1, price_id="x"),
            events.Candidate(provider_id="r", model="m", eligible=True, score=-3.0),
        ),
    ),
    events.RequestEvent(
        event_id=event_id(2, "odd request"), occurred_at=START_MICROS + 999_999, tenant_id="acme", actor="t",
        request_id="r-2", kind=events.RequestKind.FAILED, operation=events.Operation.EMBEDDINGS, error_code="",
        error_detail="\t\n", tags={"b": "2", "a": "", "c": "'"}, sealed=b"\x00\xff", body_commitment=b"\x01" * 32,
        body_bytes=2**62, amount_nano=-1, status_code=0, duration_micros=0, started_at=START_MICROS,
    ),
    events.ProviderHealth(
        event_id=event_id(3, "odd health"), occurred_at=START_MICROS, tenant_id="_system", actor="t", provider_id="p",
        model="m", region="", window_start=START_MICROS, window_end=START_MICROS + 1, attempts=1, errors=0,
        timeouts=0, latency_p50_micros=1, latency_p95_micros=2, state=events.HealthState.HEALTHY,
    ),
    events.Alert(
        event_id=event_id(4, "odd alert"), occurred_at=START_MICROS, tenant_id="acme", actor="t",
        kind=events.AlertKind.THRESHOLD, severity=events.Severity.INFO, subject="s", title="t", detail="",
        window_start=0,
    ),
    control_event(5, events.ControlAction.CREATED, '{"a": 1.50}'),
]  # fmt: skip


def quarantined(world: ParityWorld) -> events.QuarantinedRecord:
    """A record of quaestor.quarantine, bytes, headers and all."""
    record = world.log.records[Partition(COSTS, 0)][0]._replace(headers=(("h", b"\x00\xfe"), ("a", b"")))
    return Screen(CODEC, "x@v1").poison(record, "topic", events.QuarantineReason.BUG, "test", START_MICROS).event


@pytest.fixture
def world() -> ParityWorld:
    """Forty requests and what else a schema allows; one event of each of some requests was produced twice."""
    made = ParityWorld([*(event for number in range(40) for event in request_story(number)), *ODD])
    made.produce(outgoing(CODEC, [event for number in range(3) for event in request_story(number)]))
    made.produce([OutgoingRecord("quaestor.quarantine", b"k", CODEC.encode(quarantined(made)), ())])
    return made


async def fill(sink: Sink, world: ParityWorld) -> None:
    """Let a sink apply the log."""
    ids = world.log.reader().topic_ids(list(world.log.counts), 1)
    await sink.open()
    for at, records in world.log.records.items():
        if at.topic not in sink.topics or not records:
            continue
        await sink.claim([at], ids)
        span = Span(at, ids[at.topic], 0, len(records))
        span.records += [
            Decoded(record.offset, CODEC.decode(record.topic, record.value or b""), record) for record in records
        ]
        await sink.write(Batch([span], 1))
    await sink.close()


@pytest.fixture
async def dsn() -> str:
    """An empty Postgres database."""
    return await postgres_databases().emptied("content")


@pytest.fixture
async def in_postgres(dsn: str, world: ParityWorld) -> AsyncIterator[PostgresReads]:
    """A database that has the log."""
    await fill(PostgresSink(dsn, "test"), world)
    reads = PostgresReads(dsn)
    yield reads
    await reads.close()


@pytest.fixture
def database(clickhouse: ClickHouseDatabases) -> str:
    """An empty ClickHouse database."""
    return clickhouse.name()


@pytest.fixture
async def in_clickhouse(
    clickhouse: ClickHouseDatabases, database: str, world: ParityWorld
) -> AsyncIterator[ClickHouseReads]:
    """A database that has the log."""
    sink = RememberingSink(ClickHouse(clickhouse.url, database), MemoryPlanStore(), RememberedRanges())
    await fill(sink, world)
    reads = ClickHouseReads(ClickHouse(clickhouse.url, database), MemoryPlanStore())
    yield reads
    await reads.close()


async def test_postgres_holds_every_field(world: ParityWorld, in_postgres: PostgresReads) -> None:
    """Whatever a schema allows comes back as the log has it, from every table."""
    assert not await world.difference(in_postgres)


async def test_clickhouse_holds_every_field(world: ParityWorld, in_clickhouse: ClickHouseReads) -> None:
    """Whatever a schema allows comes back as the log has it, from every fact table."""
    assert not await world.difference(in_clickhouse)
    assert set(TABLES) == {partition.topic for partition in world.log.records if partition.topic in TABLES}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE quaestor_v1.cost SET price_id = 'price_2' WHERE event_id = $1", "price_id is 'price_2' in store"),
        (
            "UPDATE quaestor_v1.cost SET amount_nano = amount_nano + 1 WHERE event_id = $1",
            "amount_nano is 1501 in store",
        ),
        ("UPDATE quaestor_v1.cost SET content_hash = 'x' WHERE event_id = $1", "content_hash is 78 in store"),
        ("UPDATE quaestor_v1.cost SET log_offset = log_offset + 4096 WHERE event_id = $1", "missing in store"),
        ("DELETE FROM quaestor_v1.cost WHERE event_id = $1", "missing in store"),
    ],
)
async def test_one_spoilt_column_in_postgres_is_named(
    world: ParityWorld, dsn: str, in_postgres: PostgresReads, change: str, words: str
) -> None:
    """What a superuser did past the triggers is found, with its place in the log."""
    victim = next(row for row in world.rows() if row.partition.topic == COSTS and row.offset > 3)
    connection = await asyncpg.connect(dsn)
    await connection.execute("ALTER TABLE quaestor_v1.cost DISABLE TRIGGER append_only")
    await connection.execute(change, victim.event_id)
    await connection.execute("ALTER TABLE quaestor_v1.cost ENABLE ALWAYS TRIGGER append_only")
    await connection.close()

    difference = await world.difference(in_postgres)

    assert difference.startswith(f"{victim.partition}@{victim.offset} event {victim.event_id}: {words}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "ALTER TABLE {db}.costs UPDATE meter = 'OUTPUT_TOKENS' WHERE event_id = '{id}'",
            "meter is 'OUTPUT_TOKENS'",
        ),
        ("ALTER TABLE {db}.costs UPDATE amount_nano = 1499 WHERE event_id = '{id}'", "amount_nano is 1499 in store"),
        ("ALTER TABLE {db}.costs DELETE WHERE event_id = '{id}'", "missing in store"),
        ("INSERT INTO {db}.costs SELECT * FROM {db}.costs WHERE event_id = '{id}'", "store has it 2 times"),
    ],
)
async def test_one_spoilt_column_in_clickhouse_is_named(
    world: ParityWorld,
    clickhouse: ClickHouseDatabases,
    database: str,
    in_clickhouse: ClickHouseReads,
    change: str,
    words: str,
) -> None:
    """A column changed, a row deleted or doubled by hand is found, with its place in the log."""
    victim = next(row for row in world.rows() if row.partition.topic == COSTS and row.offset > 3)
    client = ClickHouse(clickhouse.url, database)
    await client.command(f"{change.format(db=database, id=victim.event_id)} SETTINGS mutations_sync = 2")
    await client.close()

    difference = await world.difference(in_clickhouse)

    assert difference.startswith(f"{victim.partition}@{victim.offset} event {victim.event_id}: {words}")


#: Every id of one's request is one of the other's too.
ACME, GLOBEX = request_story(1, "acme"), request_story(1, "globex")
MISSED = "1 distinct events are missing"


async def test_postgres_is_asked_for_the_same_id_of_two_tenants() -> None:
    """Both rows are right; without one of them, the other does not stand for it."""
    both, found = ParityWorld([*ACME, *GLOBEX]), []
    for world in (both, ParityWorld(ACME)):
        dsn = await postgres_databases().emptied(f"tenants{len(found)}")
        await fill(PostgresSink(dsn, "test"), world)
        reads = PostgresReads(dsn)
        found.append(await both.compare(reads))
        await reads.close()

    assert ({}, MISSED) == (found[0], found[1][COSTS])


async def test_clickhouse_is_asked_for_the_same_id_of_two_tenants(clickhouse: ClickHouseDatabases) -> None:
    """Both rows are right; without one of them, the other does not stand for it."""
    both, found = ParityWorld([*ACME, *GLOBEX]), []
    for world in (both, ParityWorld(ACME)):
        name = clickhouse.name()
        await fill(RememberingSink(ClickHouse(clickhouse.url, name), MemoryPlanStore(), RememberedRanges()), world)
        reads = ClickHouseReads(ClickHouse(clickhouse.url, name), MemoryPlanStore())
        found.append(await both.compare(reads))
        await reads.close()

    assert ({}, MISSED) == (found[0], found[1][COSTS])


async def test_audit_entries_in_postgres_are_asked_for_the_same_id_of_two_tenants() -> None:
    """Both entries are right; without one of them, the other does not stand for it."""
    both, found = ParityWorld([*ACME, *GLOBEX]), []
    for world in (both, ParityWorld(ACME)):
        store = PostgresAuditStore(await postgres_databases().emptied(f"tenants{len(found)}"), "main")
        await store.open()
        found.append(await both.compare(await audited(world, store)))
        await store.close()

    assert ({}, MISSED) == (found[0], found[1][COSTS])


async def test_a_rollup_that_counted_twice_is_named(
    clickhouse: ClickHouseDatabases, database: str, in_clickhouse: ClickHouseReads
) -> None:
    """Facts that are right say nothing of what their views made of them."""
    before = [rollup_agrees(each) for each in await in_clickhouse.rollups()]
    client = ClickHouse(clickhouse.url, database)
    rollup = f"{database}.rollup_cost_hourly"
    await client.command(f"INSERT INTO {rollup} SELECT * FROM {rollup}")  # noqa: S608 - our own name
    await client.close()

    after = [rollup_agrees(each) for each in await in_clickhouse.rollups()]

    assert [True, True] == [check.ok for check in before]
    assert [False, True] == [check.ok for check in after]
    assert "events, quantity and money are 80, 800," in (after[0].first_difference or "")
