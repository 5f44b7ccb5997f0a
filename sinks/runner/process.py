"""One sink process on Kafka: what entry points start, whatever the store."""

from __future__ import annotations

import asyncio
import gc
from random import SystemRandom

from sinks.runner.progress import MonitorProgress
from sinks.runner.runner import run_sink
from sinks.runner.seam import QuarantineStore, Sink
from streams.codec import Codec
from streams.kafka import KafkaGroupReader
from streams.log import Membership
from streams.monitor import Monitor
from streams.registry import RegistrySchemas

#: Every record makes a dictionary that lives as long as its batch; the default of 700 would scan them again and again.
COLLECT_AFTER_ALLOCATIONS = 50_000


async def drive(
    sink: Sink,
    bootstrap: str,
    registry_url: str,
    monitor: Monitor,
    stop: asyncio.Event,
    quarantine: QuarantineStore | None = None,
    membership: Membership | None = None,
) -> None:
    """Drive a sink over Kafka until `stop`; the group is named after its projection. Raises as run_sink does."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS, 20, 100)
    reader = KafkaGroupReader(bootstrap, sink.projection, f"sink-{sink.projection}", membership)
    codec = Codec(RegistrySchemas(registry_url))
    progress = MonitorProgress(monitor, sink.projection)
    await run_sink(sink, reader, codec, progress, stop, SystemRandom(), quarantine)
