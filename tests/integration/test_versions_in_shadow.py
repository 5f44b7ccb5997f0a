"""A second version of a projection beside the first, on real stores, from offset 0: neither meets the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from processors.budgets import BudgetFold
from schemas.errors import ConfigurationError
from schemas.events import HealthState, ProviderHealth
from schemas.topics import BUDGETS, HEALTH
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.migrations import Target, migrate
from sinks.clickhouse.process import open_reads, open_sink
from sinks.clickhouse.tables import TABLES
from sinks.projections import clickhouse_database, redis_group
from sinks.redis.keys import Names
from sinks.redis.reads import RedisReads, compare
from sinks.redis.sink import RedisSink
from sinks.runner.seam import Batch, Decoded, Span
from sinks.totals import NO_TOTALS, StoreTotals
from streams.log import LogRecord, Partition
from tests.budget_world import NOW_MICROS, TENANT, Events, hold_id, leg
from tests.contract.test_sink_contract import batch_of, claim
from tests.support.clickhouse_server import ClickHouseServer
from tests.support.clickhouse_sink import RememberedRanges
from tests.support.databases import postgres_databases
from tests.support.live_budgets import PARTITION
from tests.support.sink_harnesses import FAR, expected
from tests.support.stories import TOPIC_ID, Offsets, codec, event_id, outgoing, request_story
from tests.valkey import Valkey

CODEC = codec()
AT, HEALTH_AT = Partition(BUDGETS.name, PARTITION), Partition(HEALTH.name, 0)
STORIES = [request_story(number, "acme" if number % 3 else "beta", 1_000 + number) for number in range(20)]
ROLLUPS = {"rollup_cost_hourly": "sum(events), sum(quantity)", "rollup_requests_hourly": "sum(requests)"}
HALVES = (STORIES[:10], STORIES[10:])


class ClickHouseVersions:
    """One server and one Postgres, on which every version of the projection finds its own."""

    def __init__(self, url: str, dsn: str) -> None:
        """Nothing is migrated."""
        self.url, self.dsn = url, dsn

    async def write(self, projection: str, *batches: Batch) -> None:
        """A process of this version, from where it stands."""
        await migrate(self.url, Target.of(projection))
        ranges = RememberedRanges()
        sink = open_sink(self.url, self.dsn, ranges, projection)
        for batch in batches:
            ranges.remember(batch)
            await claim(sink, batch)
            await sink.write(batch)
        await sink.close()

    async def totals(self, projection: str) -> dict[str, StoreTotals]:
        """What a version says of every topic."""
        reads = open_reads(self.url, self.dsn, projection)
        found = await reads.totals({Partition(topic, number): FAR for topic in TABLES for number in range(6)})
        await reads.close()
        return {topic: totals for topic, totals in found.items() if totals != NO_TOTALS}

    async def owned(self, projection: str) -> tuple[Mapping[Partition, int], list[Any]]:
        """Its cursors, and what is in the tables and rollups of its database."""
        reads, client = open_reads(self.url, self.dsn, projection), ClickHouse(self.url)
        cursors = await reads.cursors()
        asked = [f"count() FROM {clickhouse_database(projection)}.{table.name}" for table in TABLES.values()]
        asked += [f"{sums} FROM {clickhouse_database(projection)}.{name}" for name, sums in ROLLUPS.items()]
        rows = [await client.query(f"SELECT {what}") for what in asked]
        await client.close()
        await reads.close()
        return cursors, rows


@pytest.fixture
async def versions() -> AsyncIterator[ClickHouseVersions]:
    """A server of the test's own: a version decides the name of its database."""
    server = ClickHouseServer()
    server.start()
    yield ClickHouseVersions(server.url, await postgres_databases().emptied("versions"))
    server.remove()


def everything(offsets: Offsets, half: int) -> Batch:
    """A half of the log."""
    return batch_of(offsets, [event for story in HALVES[half] for event in story])


async def test_clickhouse_v2_has_everything_beside_v1(versions: ClickHouseVersions) -> None:
    """What v1 has met is no repeat to v2: both hold the whole log."""
    offsets = Offsets()
    batches = [everything(offsets, half) for half in (0, 1)]
    await versions.write("clickhouse@v1", *batches)
    await versions.write("clickhouse@v2", *batches)

    whole = {topic: expected(topic, STORIES) for topic in TABLES if topic != HEALTH.name}
    assert [whole, whole] == [await versions.totals("clickhouse@v1"), await versions.totals("clickhouse@v2")]


async def test_clickhouse_v2_leaves_v1_alone(versions: ClickHouseVersions) -> None:
    """v1 stands half-way: cursors, rows and rollups stay what they are while v2 reads everything, and the reverse."""
    offsets = Offsets()
    first, second = (everything(offsets, half) for half in (0, 1))
    await versions.write("clickhouse@v1", first)
    before = await versions.owned("clickhouse@v1")
    await versions.write("clickhouse@v2", first, second)
    assert before == await versions.owned("clickhouse@v1")

    of_second = await versions.owned("clickhouse@v2")
    await versions.write("clickhouse@v1", second)
    assert of_second == await versions.owned("clickhouse@v2") == await versions.owned("clickhouse@v1")


def budget_batch() -> Batch:
    """Two holds of one tenant, placed, charged and released, and a window of health."""
    made = Events()
    placed = [made.placed(hold_id(number), leg(10)) for number in (1, 2)]
    movements = [*placed, made.committed(placed[0], 3), made.released(placed[1])]
    return Batch([span_of(AT, movements), span_of(HEALTH_AT, [window()])], NOW_MICROS)


def span_of(at: Partition, events: list[Any]) -> Span:
    """Records of these events at offsets from 0 on."""
    found = []
    for offset, record in enumerate(outgoing(CODEC, events)):
        entry = LogRecord(at.topic, at.number, offset, NOW_MICROS // 1_000, record.key, record.value, ())
        found.append(Decoded(offset, CODEC.decode(at.topic, record.value), entry))
    return Span(at, TOPIC_ID, 0, len(found), found)


def window() -> ProviderHealth:
    """A closed one."""
    return ProviderHealth(
        event_id=event_id(1, "health"), occurred_at=NOW_MICROS, tenant_id="_system", actor="watcher/test",
        provider_id="p1", model="m1", region="r1", window_start=NOW_MICROS - 60_000_000, window_end=NOW_MICROS,
        attempts=1, errors=0, timeouts=0, latency_p50_micros=1, latency_p95_micros=2, state=HealthState.HEALTHY,
    )  # fmt: skip


class RedisVersions:
    """One server, and what every version has there."""

    def __init__(self, valkey: Valkey) -> None:
        """Empty."""
        self._valkey = valkey

    async def write(self, projection: str) -> None:
        """A process of this version from offset 0 to the end, with its gate open."""
        batch = budget_batch()
        sink = RedisSink(self._valkey.url, projection=projection)
        await sink.open()
        await sink.claim([AT, HEALTH_AT], {BUDGETS.name: TOPIC_ID, HEALTH.name: TOPIC_ID})
        await sink.write(batch)
        await sink.heartbeat({AT: batch.spans[0].next_offset})
        await sink.close()

    async def assert_is_whole(self, projection: str) -> None:
        """Slots are the fold of the log, the window is there, the cursors stand at the end, the gate is open."""
        fold, batch = BudgetFold(), budget_batch()
        made = Events()
        placed = [made.placed(hold_id(number), leg(10)) for number in (1, 2)]
        for event in (*placed, made.committed(placed[0], 3), made.released(placed[1])):
            fold.apply(event)
        reads = RedisReads(self._valkey.url, projection)
        await reads.open()
        state, windows, cursors = await reads.tenant_state(TENANT), await reads.provider_health(), await reads.cursors()
        await reads.close()
        assert [] == compare(fold.sums, fold.open_holds, state)
        assert state.is_open
        assert ["1"] == [each["attempts"] for each in windows]
        assert {span.partition: span.next_offset for span in batch.spans} == cursors

    async def keys(self) -> dict[str, bytes]:
        """Everything on the server, by key."""
        reads = RedisReads(self._valkey.url)
        await reads.open()
        names = [each.decode() for each in await reads._client.call("KEYS", "*")]
        found = {name: await reads._client.call("DUMP", name) for name in names}
        await reads.close()
        return found


@pytest.fixture
def redis(valkey: Valkey) -> RedisVersions:
    """On a server of the test's own."""
    return RedisVersions(valkey)


async def test_redis_v2_has_everything_beside_v1(redis: RedisVersions) -> None:
    """Holds that v1 has applied are new to v2: both are the fold of the log."""
    for projection in ("redis@v1", "redis@v2"):
        await redis.write(projection)
    for projection in ("redis@v1", "redis@v2"):
        await redis.assert_is_whole(projection)


async def test_redis_v2_leaves_v1_alone(redis: RedisVersions) -> None:
    """No byte of any key of v1 changes, and every new key has v2 in its name."""
    await redis.write("redis@v1")
    before = await redis.keys()
    await redis.write("redis@v2")
    after = await redis.keys()
    assert before == {name: after[name] for name in before}
    assert {True} == {name.startswith(("budgets@v2:", "health@v2:")) for name in after.keys() - before.keys()}


def test_the_first_version_keeps_its_names() -> None:
    """What was released is found where it was."""
    names = Names("redis@v1")
    assert ("quaestor", "sink-redis") == (clickhouse_database("clickhouse@v1"), redis_group("redis@v1"))
    assert ("budgets@v1:{acme}:state", "budgets@v1:gate:{p3}") == (names.slot("acme").state, names.gate(3))


@pytest.mark.parametrize("name", ["clickhouse", "clickhouse@2", "clickhouse@v0", "redis@v2", "clickhouse@v2; DROP"])
def test_what_is_no_version_is_refused(name: str) -> None:
    """A name decides a database, so it has to be one."""
    with pytest.raises(ConfigurationError, match="clickhouse@v2"):
        clickhouse_database(name)
