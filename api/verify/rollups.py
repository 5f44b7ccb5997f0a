"""ClickHouse's rollups compared with their facts hour by hour, and made anew where they differ."""

from __future__ import annotations

import asyncio

from api.settings import Settings
from api.verify.kept import control_range, events_kept_from
from api.verify.log_scan import LogScan, take_barrier
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.rollups import Rollups
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.registry import RegistrySchemas


async def mend_rollups(settings: Settings) -> dict[str, int]:
    """How many hours of tenants were made anew, by the rollup's name; sinks may go on beside it.

    Months whose requests retention has cut are left as they are. Raises LogUnavailableError and StoreUnavailableError.
    """
    since = await asyncio.to_thread(_kept_from, settings)
    clickhouse = ClickHouse(settings.clickhouse_url)
    try:
        return await Rollups(clickhouse).mend_all(since)
    finally:
        await clickhouse.close()


def _kept_from(settings: Settings) -> int:
    codec = Codec(RegistrySchemas(settings.registry_url))
    reader = KafkaReader(settings.kafka_bootstrap, "quaestor-rollups")
    try:
        return events_kept_from(LogScan(reader, codec).read(control_range(take_barrier(reader))), codec)
    finally:
        reader.close()
