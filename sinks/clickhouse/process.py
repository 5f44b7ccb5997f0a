"""The ClickHouse sink's process, and its reads, put together from URLs."""

from __future__ import annotations

import asyncio
import os
import socket

from sinks.clickhouse.client import ClickHouse, leave_data_frames_out
from sinks.clickhouse.ranges import LogRangeReader, RangeReader
from sinks.clickhouse.reads import ClickHouseReads
from sinks.clickhouse.sink import PROJECTION, ClickHouseSink
from sinks.postgres.plans import PostgresPlanStore
from sinks.postgres.quarantine import PostgresQuarantine
from sinks.projections import clickhouse_database
from sinks.runner.process import drive
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.log import Membership
from streams.monitor import Monitor
from streams.registry import RegistrySchemas


async def run(
    clickhouse_url: str,
    dsn: str,
    bootstrap: str,
    registry_url: str,
    monitor: Monitor,
    stop: asyncio.Event,
    membership: Membership | None = None,
    yield_behind_seconds: float = 0.0,
    projection: str = PROJECTION,
) -> None:
    """Project the fact topics into ClickHouse until `stop`; plans and quarantine stand in Postgres (`dsn`).

    Raises what ends the process for good: start it again.
    """
    leave_data_frames_out()
    quarantine = PostgresQuarantine(dsn)
    ranges = LogRangeReader(
        lambda: KafkaReader(bootstrap, f"ranges-{projection}"), Codec(RegistrySchemas(registry_url))
    )
    sink = open_sink(clickhouse_url, dsn, ranges, projection)
    try:
        await drive(sink, bootstrap, registry_url, monitor, stop, quarantine, membership, yield_behind_seconds)
    finally:
        await quarantine.close()


def open_sink(clickhouse_url: str, dsn: str, ranges: RangeReader, projection: str = PROJECTION) -> ClickHouseSink:
    """A sink of one version, on that version's database."""
    clickhouse = ClickHouse(clickhouse_url, clickhouse_database(projection))
    return ClickHouseSink(clickhouse, PostgresPlanStore(dsn, owner(projection)), ranges, projection=projection)


def open_reads(clickhouse_url: str, dsn: str, projection: str = PROJECTION) -> ClickHouseReads:
    """Reads of one version that connect at first use; close them."""
    clickhouse = ClickHouse(clickhouse_url, clickhouse_database(projection))
    return ClickHouseReads(clickhouse, PostgresPlanStore(dsn, owner(projection)), projection)


def owner(projection: str) -> str:
    """What the cursor table says of this process, for people."""
    return f"{projection} on {socket.gethostname()}, process {os.getpid()}"
