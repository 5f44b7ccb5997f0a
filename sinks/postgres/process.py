"""The Postgres sink's process: the sink, and the relay that publishes every sink's quarantined records."""

from __future__ import annotations

import asyncio
import os
import socket
from random import SystemRandom

from sinks.postgres.quarantine import PostgresQuarantine
from sinks.postgres.sink import PostgresSink
from sinks.postgres.tables import PROJECTION
from sinks.runner.beside import run_beside
from sinks.runner.process import drive
from sinks.runner.relay import relay_quarantine
from streams.codec import Codec
from streams.kafka import KafkaPublisher
from streams.log import Membership
from streams.monitor import Monitor
from streams.recorder import Recorder
from streams.registry import RegistrySchemas


async def run(
    dsn: str,
    bootstrap: str,
    registry_url: str,
    monitor: Monitor,
    stop: asyncio.Event,
    membership: Membership | None = None,
    yield_behind_seconds: float = 0.0,
) -> None:
    """Project every topic into Postgres until `stop`; raises what ends the process for good (start it again)."""
    outbox = PostgresQuarantine(dsn)
    publisher = KafkaPublisher(bootstrap, client_id="quarantine-relay")
    recorder = Recorder(publisher, Codec(RegistrySchemas(registry_url)))
    relay = asyncio.create_task(relay_quarantine(outbox, recorder, stop, SystemRandom()))
    try:
        sink = PostgresSink(dsn, owner())
        driven = drive(sink, bootstrap, registry_url, monitor, stop, outbox, membership, yield_behind_seconds)
        await run_beside(driven, [relay], monitor, stop)
        await relay
    finally:
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)
        await outbox.close()
        await asyncio.to_thread(publisher.close)


def owner() -> str:
    """What the cursor table says of this process, for people."""
    return f"{PROJECTION} on {socket.gethostname()}, process {os.getpid()}"
