"""One sink process on Kafka: what entry points start, whatever the store."""

from __future__ import annotations

import asyncio
import sys
from random import SystemRandom

from sinks.runner.priority import Courtesy, SessionPriority
from sinks.runner.progress import MonitorProgress
from sinks.runner.runner import run_sink
from sinks.runner.seam import QuarantineStore, Sink
from streams.codec import Codec
from streams.garbage import collect_seldom
from streams.kafka import KafkaGroupReader
from streams.log import Membership
from streams.monitor import Monitor
from streams.registry import RegistrySchemas

#: A thread that decodes hands the interpreter over after so long. At the default of 5 ms the loop waits that long after
#: every answer of the store: forty round trips of a batch would take longer than its rows.
SWITCH_SECONDS = 0.0005


def prepare_process() -> None:
    """Set the interpreter up for a process that decodes in one thread and writes in another."""
    collect_seldom()
    sys.setswitchinterval(SWITCH_SECONDS)


async def drive(
    sink: Sink,
    bootstrap: str,
    registry_url: str,
    monitor: Monitor,
    stop: asyncio.Event,
    quarantine: QuarantineStore | None = None,
    membership: Membership | None = None,
    yield_behind_seconds: float = 0.0,
) -> None:
    """Drive a sink over Kafka until `stop`; the group is named after its projection. Raises as run_sink does.

    From `yield_behind_seconds` of age of its oldest unapplied event on it gives way to others; 0: never.
    """
    prepare_process()
    reader = KafkaGroupReader(bootstrap, sink.projection, f"sink-{sink.projection}", membership)
    codec = Codec(RegistrySchemas(registry_url))
    progress = MonitorProgress(monitor, sink.projection)
    courtesy = Courtesy(SessionPriority(), yield_behind_seconds) if yield_behind_seconds else None
    await run_sink(sink, reader, codec, progress, stop, SystemRandom(), quarantine, courtesy)
