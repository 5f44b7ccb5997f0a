"""What a sink left in its store, compared with what was sent: a benchmark's figures are worth nothing otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from api.settings import Settings
from benchmarks.filling import Filled, Windows
from schemas.events import ProviderHealth
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.process import open_reads
from sinks.clickhouse.tables import TABLES
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.reads import PostgresReads
from sinks.redis.check import check_budgets, read_states
from sinks.redis.reads import RedisReads
from sinks.totals import StoreTotals
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.log import Partition
from streams.registry import RegistrySchemas

Cursors = Mapping[Partition, int]
#: What is wrong with a store once it has reached these offsets; empty when all is there, once.
Check = Callable[[Settings, Filled, Cursors], Coroutine[Any, Any, str]]


async def check_postgres(settings: Settings, filled: Filled, wanted: Cursors) -> str:
    """Distinct ids, their digest and sums of every topic; a unique key keeps ids from standing twice."""
    reads = PostgresReads(settings.postgres_dsn)
    try:
        return differences(filled, await reads.totals(wanted), wanted)
    finally:
        await reads.close()


async def check_clickhouse(settings: Settings, filled: Filled, wanted: Cursors) -> str:
    """The same of the fact topics; no id has two rows, and each rollup is the sum of its facts."""
    reads, clickhouse = open_reads(settings.clickhouse_url, settings.postgres_dsn), ClickHouse(settings.clickhouse_url)
    try:
        wrong = [differences(filled, await reads.totals(wanted), wanted)]
        for topic, table in TABLES.items():
            sql = f"SELECT count() - uniqExact(tenant_id, event_id) FROM {clickhouse.database}.{table.name}"  # noqa: S608
            ((doubled,),) = await clickhouse.query(sql)
            wrong.append(f"{topic}: {doubled} rows twice" if doubled else "")
        wrong += [each.name for each in await reads.rollups() if not each.agrees]
        return ", ".join(filter(None, wrong))
    finally:
        await clickhouse.close()
        await reads.close()


async def check_audit(settings: Settings, filled: Filled, wanted: Cursors) -> str:
    """An entry for every record, each of its own offset: as many as offsets, with the ids and sums that were sent."""
    store = PostgresAuditStore(settings.postgres_dsn, settings.audit_log)
    await store.open()
    try:
        wrong = differences(filled, await store.totals(wanted), wanted)
        counts = await store.counts(wanted)
    finally:
        await store.close()
    ends: dict[str, int] = {}
    for partition, end in wanted.items():
        ends[partition.topic] = ends.get(partition.topic, 0) + end
    miscounted = (f"{topic}: {counts[topic]} entries of {end}" for topic, end in ends.items() if counts[topic] != end)
    return ", ".join(filter(None, (wrong, *miscounted)))


async def check_redis(settings: Settings, filled: Filled, wanted: Cursors) -> str:
    """Budgets are the fold of the log, and of every provider the last window is kept."""
    checks = [await check(settings, filled, wanted) for check in (check_holds, check_windows)]
    return ", ".join(filter(None, checks))


async def check_holds(settings: Settings, _filled: Filled, wanted: Cursors) -> str:
    """Every slot is the fold of its events, every tenant of them has one, and none is behind."""
    reads = RedisReads(settings.redis_url)
    await reads.open()
    reader = KafkaReader(settings.kafka_bootstrap, "benchmark")
    try:
        states = await read_states(reads)
        codec = Codec(RegistrySchemas(settings.registry_url))
        result = await asyncio.to_thread(check_budgets, states, reader, codec, applied=wanted)
        return "" if result.ok and result.tenants else f"{len(result.differences)} differences"
    finally:
        reader.close()
        await reads.close()


async def check_windows(settings: Settings, filled: Filled, _wanted: Cursors) -> str:
    """Of each provider, model and region, the window that ended last stands there, field by field."""
    reads = RedisReads(settings.redis_url)
    await reads.open()
    try:
        found = await reads.provider_health()
    finally:
        await reads.close()
    return window_differences(filled.windows, found)


def window_differences(sent: Windows, found: list[dict[str, str]]) -> str:
    """Names whose kept window is not the last one sent."""
    kept = {f"{each.get('provider_id')}/{each.get('model')}/{each.get('region')}": each for each in found}
    wrong = [name for name, window in sent.items() if not _is_kept(window, kept.get(name, {}))]
    return ", ".join(sorted({*wrong, *(kept.keys() - sent.keys())}))


def _is_kept(window: ProviderHealth, fields: Mapping[str, str]) -> bool:
    """Whether what stands there is this window."""
    return bool(fields) and all(value == _worded(getattr(window, name)) for name, value in fields.items())


def _worded(value: object) -> str:
    return "" if value is None else str(value)


def differences(filled: Filled, found: Mapping[str, StoreTotals], wanted: Cursors) -> str:
    """Topics of which a store says something else than what was sent."""
    topics = {partition.topic for partition in wanted} & filled.totals.keys()
    return ", ".join(sorted(topic for topic in topics if found.get(topic) != filled.totals[topic]))


CHECKS: Mapping[str, Check] = {
    "postgres": check_postgres,
    "clickhouse": check_clickhouse,
    "redis": check_redis,
    "audit": check_audit,
}
