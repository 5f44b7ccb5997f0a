"""What a fault left behind: `quaestor verify`, and a count of rows that no id guards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from api.verify.run import SCOPES, Verification
from processors.parity.checks import Check
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.tables import TABLES as CLICKHOUSE_TABLES
from sinks.postgres.connect import READER_ROLE, connect
from sinks.postgres.tables import SCHEMA
from sinks.postgres.tables import TABLES as POSTGRES_TABLES
from tests.faults.world import STORES, StuckError, World

#: Entries of one place in Kafka; the log's own have none.
ENTERED_TWICE = """
SELECT count(*) - count(DISTINCT (topic, partition, "offset")) FROM quaestor.audit_entry WHERE topic <> ''
"""
#: Which store a check of `quaestor verify` is about, by the first word of its name.
STORE_OF_CHECK: Mapping[str, str] = {
    "postgres": "postgres",
    "ledger:": "postgres",
    "clickhouse": "clickhouse",
    "redis": "redis",
    "audit": "audit",
    "audit:": "audit",
}


@dataclass(frozen=True)
class Verdict:
    """Events lost and doubled in one store, and the first thing that differs."""

    lost: int = 0
    doubled: int = 0
    first_difference: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was."""
        return not (self.lost or self.doubled or self.first_difference)

    def __add__(self, other: Verdict) -> Verdict:
        """Both together."""
        first = self.first_difference or other.first_difference
        return Verdict(self.lost + other.lost, self.doubled + other.doubled, first)


async def judge(world: World, stores: Sequence[str] = STORES) -> dict[str, Verdict]:
    """Pause the load, wait until the stores have everything, and compare; the load goes on afterwards."""
    await asyncio.to_thread(world.load.pause)
    try:
        late = await _late(world, stores)
        if late:
            return {store: late.get(store, Verdict()) for store in stores}
        checks = await Verification(world.settings, lambda *_: None).run(SCOPES, None, deep=True)
        verdicts = {store: Verdict() for store in stores}
        for check in checks:
            store = STORE_OF_CHECK.get(check.name.split(" ", 1)[0], stores[0])
            if not check.ok and store in verdicts:
                verdicts[store] += _of(check)
        for store, count in _COUNTS.items():
            if store in verdicts:
                verdicts[store] += await count(world)
        return verdicts
    finally:
        world.load.resume()


async def _late(world: World, stores: Sequence[str]) -> dict[str, Verdict]:
    """Stores that do not catch up."""
    ended = await asyncio.gather(*(world.reaches(store) for store in stores), return_exceptions=True)
    late: dict[str, Verdict] = {}
    for store, outcome in zip(stores, ended, strict=True):
        if isinstance(outcome, StuckError):
            late[store] = Verdict(lost=1, first_difference=str(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
    return late


def _of(check: Check) -> Verdict:
    """A check that failed: what is missing where both sides are counts, else one of each is wrong."""
    lost = 1
    if isinstance(check.expected, int) and isinstance(check.actual, int) and check.expected > check.actual:
        lost = check.expected - check.actual
    return Verdict(lost=lost, first_difference=f"{check.name}: {check.first_difference}")


async def _postgres_doubles(world: World) -> Verdict:
    connection = await connect(world.settings.postgres_dsn, READER_ROLE)
    verdict = Verdict()
    try:
        for topic, table in POSTGRES_TABLES.items():
            sql = f"SELECT count(*) - count(DISTINCT (tenant_id, event_id)) FROM {SCHEMA}.{table.name}"  # noqa: S608 - our own names
            verdict += _doubled(await connection.fetchval(sql), f"postgres {topic}")
    finally:
        await connection.close()
    return verdict


async def _audit_doubles(world: World) -> Verdict:
    connection = await connect(world.settings.postgres_dsn, READER_ROLE)
    try:
        return _doubled(await connection.fetchval(ENTERED_TWICE), "audit entries")
    finally:
        await connection.close()


async def _clickhouse_doubles(world: World) -> Verdict:
    clickhouse = ClickHouse(world.settings.clickhouse_url)
    verdict = Verdict()
    try:
        for topic, table in CLICKHOUSE_TABLES.items():
            distinct = "uniqExact(_topic_id, _part, _off), uniqExact(tenant_id, event_id)"
            ((rows, offsets, ids),) = await clickhouse.query(
                f"SELECT count(), {distinct} FROM {clickhouse.database}.{table.name}"  # noqa: S608 - our own names
            )
            verdict += _doubled(max(rows - offsets, rows - ids), f"clickhouse {topic}")
    finally:
        await clickhouse.close()
    return verdict


def _doubled(rows: int, where: str) -> Verdict:
    """Rows too many."""
    return Verdict(doubled=rows, first_difference=f"{where}: {rows} rows too many") if rows else Verdict()


_COUNTS: Mapping[str, Callable[[World], Awaitable[Verdict]]] = {
    "postgres": _postgres_doubles,
    "audit": _audit_doubles,
    "clickhouse": _clickhouse_doubles,
}
