"""The ClickHouse sink on the real front: crashes at every step, repeats, lost answers, kills."""

# ruff: noqa: S608 - names are this module's own

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import FencedError, IntegrityError, RejectedError, StoreUnavailableError
from schemas.events import Event
from sinks.clickhouse import sink as sink_module
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.migrations import Target, migrate
from sinks.clickhouse.plans import Plan
from sinks.clickhouse.reads import ClickHouseReads
from sinks.clickhouse.tables import TABLES
from sinks.runner.seam import Batch, Decoded, Span
from sinks.totals import NO_TOTALS, StoreTotals
from streams.log import Partition
from tests.contract.test_sink_contract import batch_of, claim
from tests.support.clickhouse_server import ClickHouseServer
from tests.support.clickhouse_sink import RememberedRanges, RememberingSink
from tests.support.databases import ClickHouseDatabases
from tests.support.sink_harnesses import FAR, expected
from tests.support.stories import TOPIC_ID, Offsets, request_story

STORIES = [request_story(number, "acme" if number % 3 else "beta", 1_000 + number) for number in range(40)]
EVENTS: list[Event] = [event for story in STORIES for event in story]
#: A write killed once is whole after very few repeats.
REPEATS_MAX = 10
CHARGED_NANO = sum(1_000 + number for number in range(40))


class CrashError(Exception):
    """The process dies here."""


class CrashingPlans(MemoryPlanStore):
    """Plans that outlive a process which dies at a chosen step."""

    def __init__(self) -> None:
        """Nothing crashes."""
        super().__init__()
        self.crash_before_settle = False
        self.age_seconds = 0.0

    async def settle(self, projection: str, plans: Sequence[Plan], epochs: Mapping[Partition, int]) -> None:
        """Die, or settle."""
        if self.crash_before_settle:
            raise CrashError
        await super().settle(projection, plans, epochs)

    async def left_open(self, projection: str, partitions: Sequence[Partition]) -> list[Plan]:
        """Plans as old as asked."""
        return [replace(plan, age_seconds=self.age_seconds) for plan in await super().left_open(projection, partitions)]


class HurtClickHouse(ClickHouse):
    """A connection to whose inserts, of columns or of blocks, something happens."""

    async def insert(self, table: str, *arguments: Any) -> None:
        """As the client does, hurt."""
        await self.hurt(table, super().insert(table, *arguments))

    async def insert_block(self, table: str, *arguments: Any) -> None:
        """As the client does, hurt."""
        await self.hurt(table, super().insert_block(table, *arguments))

    async def hurt(self, table: str, inserting: Coroutine[Any, Any, None]) -> None:
        """Await the insert, or do worse."""
        raise NotImplementedError


class LossyClickHouse(HurtClickHouse):
    """A connection that dies before or after an insert was applied."""

    before: Callable[[str], bool] = staticmethod(lambda _: False)
    after: Callable[[str], bool] = staticmethod(lambda _: False)

    async def hurt(self, table: str, inserting: Coroutine[Any, Any, None]) -> None:
        """Insert, or lose the request, or lose the answer."""
        if self.before(table):
            inserting.close()
            raise StoreUnavailableError("the request was lost")
        await inserting
        if self.after(table):
            raise StoreUnavailableError("the answer was lost")


class KillingClickHouse(HurtClickHouse):
    """A connection whose server is killed with SIGKILL while it inserts into one table."""

    def __init__(self, url: str, database: str, server: ClickHouseServer) -> None:
        """Nobody is killed yet."""
        super().__init__(url, database)
        self._server = server
        self.victim: str | None = None
        self.dead = asyncio.Event()
        self.kills = 0

    async def hurt(self, table: str, inserting: Coroutine[Any, Any, None]) -> None:
        """Insert beside a kill."""
        if table != self.victim:
            await inserting
            return
        self.victim = None
        self.kills += 1
        self.dead.clear()
        running = asyncio.ensure_future(inserting)
        await asyncio.to_thread(self._server.kill)
        self.dead.set()
        await running


class World:
    """One database, the plans and the log that outlive processes."""

    def __init__(self, url: str, database: str) -> None:
        """Empty."""
        self.url = url
        self.database = database
        self.plans = CrashingPlans()
        self.ranges = RememberedRanges()
        self.client = ClickHouse(url, database)
        self.reads = ClickHouseReads(self.client, self.plans)

    def sink(self, client: ClickHouse | None = None) -> RememberingSink:
        """A process."""
        return RememberingSink(client or ClickHouse(self.url, self.database), self.plans, self.ranges)

    async def totals(self) -> dict[str, StoreTotals]:
        """All topics that have rows."""
        found = await self.reads.totals({Partition(topic, number): FAR for topic in TABLES for number in range(6)})
        return {topic: totals for topic, totals in found.items() if totals != NO_TOTALS}

    async def one(self, sql: str) -> tuple[Any, ...]:
        """The one row of a query."""
        (row,) = await self.client.query(sql.replace("{db}", self.database))
        return row

    async def assert_whole(self) -> None:
        """Facts and rollups hold every event once."""
        assert {
            topic: expected(topic, STORIES) for topic in TABLES if topic != "quaestor.health"
        } == await self.totals()
        counts = [await self.one(f"SELECT count() FROM {{db}}.{table.name}") for table in TABLES.values()]
        assert len(EVENTS) == sum(rows for (rows,) in counts)
        assert (40, 400, Decimal(CHARGED_NANO) / 10**9) == await self.one(
            "SELECT sum(events), sum(quantity), sum(amount) FROM {db}.rollup_cost_hourly"
        )
        assert (40, 40, 400, Decimal(CHARGED_NANO) / 10**9) == await self.one(
            "SELECT sum(requests), sum(completed), sum(input_tokens), sum(amount) FROM {db}.rollup_requests_hourly"
        )


@pytest.fixture
async def world(clickhouse: ClickHouseDatabases) -> AsyncIterator[World]:
    """An empty database."""
    made = World(clickhouse.url, clickhouse.name())
    yield made
    await made.reads.close()


@pytest.fixture
def mortal() -> Iterator[ClickHouseServer]:
    """A front of a test's own, to be killed and started again."""
    made = ClickHouseServer()
    made.start()
    yield made
    made.remove()


def everything() -> Batch:
    """One batch of all events."""
    return batch_of(Offsets(), EVENTS)


async def test_a_plan_inserted_twice_counts_once(world: World) -> None:
    """The same token again changes neither facts nor rollups."""
    sink, batch = world.sink(), everything()
    await claim(sink, batch)
    world.plans.crash_before_settle = True
    for _ in range(3):
        with pytest.raises(CrashError):
            await sink.write(batch)
    world.plans.crash_before_settle = False
    await sink.write(batch)
    await sink.close()

    await world.assert_whole()
    assert 0 == world.ranges.reads


async def test_a_crash_between_insert_and_settle_is_completed_by_the_next_owner(world: World) -> None:
    """The successor inserts the planned range again, dropped as a duplicate, and stands behind it."""
    dying, successor, batch = world.sink(), world.sink(), everything()
    await claim(dying, batch)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await dying.write(batch)
    world.plans.crash_before_settle = False
    cursors = await claim(successor, batch)

    assert {span.partition: span.next_offset for span in batch.spans} == cursors
    assert world.ranges.reads == len(batch.spans)
    await world.assert_whole()
    with pytest.raises(FencedError):
        await dying.write(batch_of(Offsets(), EVENTS))
    await dying.close()
    await successor.close()


@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize("table", ["requests", "costs", "ledger"])
async def test_a_lost_insert_is_repeated_by_whoever_comes(world: World, lost: str, table: str) -> None:
    """Whether the request or its answer was lost, a repeat of the batch and a successor both end at once each."""
    client = LossyClickHouse(world.url, world.database)
    setattr(client, lost, lambda name: name == table)
    dying, successor, batch = world.sink(client), world.sink(), everything()
    await claim(dying, batch)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await dying.write(batch)
    await claim(successor, batch)

    await world.assert_whole()
    await dying.close()
    await successor.close()


async def test_partitions_of_one_plan_may_part(world: World) -> None:
    """Two owners that share an open plan each complete it and move their own cursors only."""
    dying, left, right, batch = world.sink(), world.sink(), world.sink(), everything()
    await claim(dying, batch)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await dying.write(batch)
    world.plans.crash_before_settle = False
    halves = [Batch([span for span in batch.spans if span.partition.number % 2 == odd], 1) for odd in (0, 1)]
    cursors = [await claim(sink, half) for sink, half in zip((left, right), halves, strict=True)]

    assert [{span.partition: span.next_offset for span in half.spans} for half in halves] == cursors
    assert [] == await world.plans.left_open(left.projection, [span.partition for span in batch.spans])
    await world.assert_whole()
    for sink in (dying, left, right):
        await sink.close()


async def test_a_repeat_cut_differently_keeps_the_planned_range(world: World) -> None:
    """A batch that grew meanwhile completes the open plan first and then its rest."""
    sink = world.sink()
    offsets = Offsets()
    small = batch_of(offsets, EVENTS[: len(EVENTS) // 2])
    large = batch_of(Offsets(), EVENTS)
    await claim(sink, large)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await sink.write(small)
    world.plans.crash_before_settle = False
    await sink.write(large)
    await sink.close()

    await world.assert_whole()


async def test_events_produced_twice_are_left_out(world: World) -> None:
    """A second copy, in the batch or later, is in the plan's exclusions, so neither facts nor rollups have it."""
    sink = world.sink()
    offsets = Offsets()
    for batch in (batch_of(offsets, [*EVENTS, *STORIES[0]]), batch_of(offsets, EVENTS)):
        await claim(sink, batch)
        await sink.write(batch)
    await sink.close()

    await world.assert_whole()


async def test_quarantined_offsets_stay_out_of_a_recovery(world: World) -> None:
    """A plan remembers what was poison when it was made."""
    dying, successor, batch = world.sink(), world.sink(), everything()
    span = batch.spans[0]
    whole = Batch([Span(span.partition, TOPIC_ID, span.first_offset, span.next_offset, list(span.records))], 1)
    world.ranges.remember(whole)
    poisoned = span.records.pop(1)
    span.poison.append(poison(poisoned))
    await claim(dying, batch)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await dying.write(batch)
    world.plans.crash_before_settle = False
    await claim(successor, batch)

    table = TABLES[span.partition.topic].name
    assert (0,) == await world.one(
        f"SELECT count() FROM {{db}}.{table} WHERE _part = {span.partition.number} AND _off = {poisoned.offset}"
    )
    await dying.close()
    await successor.close()


def poison(record: Decoded) -> Any:
    """What the sink looks at of a poison."""
    return type("Poison", (), {"offset": record.offset})()


async def test_an_old_plan_is_counted_before_it_is_inserted_again(world: World) -> None:
    """Outside of the window of deduplication a token proves nothing: rows that are there are not inserted again."""
    dying, successor, batch = world.sink(), world.sink(), everything()
    await claim(dying, batch)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await dying.write(batch)
    world.plans.crash_before_settle = False
    world.plans.age_seconds = sink_module.TRUSTED_AGE_SECONDS + 1.0
    await claim(successor, batch)

    assert 0 == world.ranges.reads
    await world.assert_whole()
    await dying.close()
    await successor.close()


async def test_an_old_plan_with_more_rows_than_it_has_stops(world: World) -> None:
    """Rows that are there twice are a fault that a person must look at; nothing is added to it."""
    dying, successor, batch = world.sink(), world.sink(), everything()
    await claim(dying, batch)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await dying.write(batch)
    world.plans.crash_before_settle = False
    world.plans.age_seconds = sink_module.TRUSTED_AGE_SECONDS + 1.0
    await world.client.command(f"INSERT INTO {world.database}.attempts SELECT * FROM {world.database}.attempts LIMIT 1")
    with pytest.raises(IntegrityError, match="rows, 41 are there"):
        await claim(successor, batch)
    await dying.close()
    await successor.close()


async def test_what_no_table_takes_is_named_before_anything_is_planned(world: World) -> None:
    """An id that is no UUID and a time out of range are rejections of their record."""
    sink, batch = world.sink(), everything()
    first, second = batch.spans[0].records[0], batch.spans[1].records[0]
    batch.spans[0].records[0] = first._replace(fields={**first.fields, "event_id": "seven"})
    batch.spans[1].records[0] = second._replace(fields={**second.fields, "occurred_at": -1})
    await claim(sink, batch)
    with pytest.raises(RejectedError) as refused:
        await sink.write(batch)
    await sink.close()

    places = [(batch.spans[0].partition, first.offset), (batch.spans[1].partition, second.offset)]
    assert places == [(Partition(each.topic, each.partition), each.offset) for each in refused.value.rejections]
    assert {} == await world.totals()


async def test_kill_9_of_the_server_loses_and_doubles_nothing(mortal: ClickHouseServer) -> None:
    """Each batch is killed at another table's insert and repeated until answered; every event counts once."""
    world = World(mortal.url, "killed")
    await migrate(mortal.url, Target("killed"))
    client = KillingClickHouse(world.url, world.database, mortal)
    sink = world.sink(client)
    offsets = Offsets()
    for start, table in zip(range(0, 40, 8), ("requests", "costs", "ledger", "budgets", "requests"), strict=True):
        batch = batch_of(offsets, [event for story in STORIES[start : start + 8] for event in story])
        await claim(sink, batch)
        client.victim = table
        for _ in range(REPEATS_MAX):
            try:
                await sink.write(batch)
                break
            except StoreUnavailableError:
                await client.dead.wait()
                mortal.start()
        await client.dead.wait()
        if not mortal.answers():
            mortal.start()
    await sink.close()

    assert 5 == client.kills
    await world.assert_whole()
    await world.reads.close()


async def test_reads_add_up(world: World) -> None:
    """Cost by team and model, hours, top models and latency come out as the events say."""
    sink, batch = world.sink(), everything()
    await claim(sink, batch)
    await sink.write(batch)
    await sink.close()
    acme = [number for number in range(40) if number % 3]
    spent = sum(1_000 + number for number in acme)

    (cost,) = await world.reads.cost_by_team_and_model("acme", 0)
    (hour,) = await world.reads.requests_by_hour("acme", 0)
    (model,) = await world.reads.top_models("acme", 0)
    (latency,) = await world.reads.latency("acme", 0)
    assert (spent, 10 * len(acme), "USD") == (cost.amount_nano, cost.tokens, cost.currency)
    assert (len(acme), len(acme), 0) == (hour.requests, hour.completed, hour.failed)
    assert (spent, len(acme)) == (model.amount_nano, model.attempts)
    assert len(acme) == latency.requests
    assert [] == await world.reads.cost_by_team_and_model("nobody", 0)


async def test_a_barrier_hides_what_is_behind_it(world: World) -> None:
    """Totals count rows below the end offset of their own partition only."""
    sink, batch = world.sink(), everything()
    await claim(sink, batch)
    await sink.write(batch)
    await sink.close()
    span = next(span for span in batch.spans if span.partition.topic == "quaestor.costs")
    below = await world.reads.totals({span.partition: span.next_offset - 1})

    assert span.next_offset - 1 == below["quaestor.costs"].records


async def test_migrations_are_idempotent_and_guarded(world: World) -> None:
    """A second run applies nothing; a changed file is refused."""
    assert [] == await migrate(world.url, Target(world.database))
    await world.client.command(
        f"INSERT INTO {world.database}.migrations (version, name, checksum, applied_at) VALUES (1, 'x', 'x', now() + 1)"
    )
    with pytest.raises(IntegrityError, match="changed"):
        await migrate(world.url, Target(world.database))


async def test_a_server_that_is_away_is_unavailable() -> None:
    """What passes by itself is StoreUnavailableError, which the runner repeats."""
    client = ClickHouse("http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError):
        await client.open()
    await client.close()


GUIDE = Path(__file__).parents[2] / "docs/guides/analysts.md"
QUESTIONS = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
#: What acme's requests among STORIES were charged.
ACME_NANO = sum(1_000 + number for number in range(40) if number % 3)


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
async def test_the_questions_of_the_guide_are_answered(world: World, question: str) -> None:
    """Every query of docs/guides/analysts.md runs on the tables as they are."""
    sink, batch = world.sink(), everything()
    await claim(sink, batch)
    await sink.write(batch)
    await sink.close()
    rows = await world.client.query(question.replace("quaestor.", f"{world.database}."))

    if "AS rollup" in question:
        assert [(Decimal(ACME_NANO) / 10**9,) * 2] == rows
