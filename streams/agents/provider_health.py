"""The agent that watches providers: attempts in, the health of closed windows out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog

from processors.health import HealthWindows
from schemas.errors import CodecError, LogUnavailableError
from schemas.events import ProviderAttempt
from schemas.topics import ATTEMPTS, HEALTH
from streams.agents.application import CONCURRENCY, lag_events, raw_topic
from streams.codec import Codec
from streams.monitor import Monitor
from streams.records import outgoing

CLOSE_SECONDS = 1.0
RETRY_SECONDS = 1.0
MICROS_PER_SECOND = 1_000_000
log = structlog.get_logger(__name__)


def provider_health(application: Any, codec: Codec, monitor: Monitor) -> None:
    """Add the agent to an application."""
    windows = HealthWindows()
    health = raw_topic(application, HEALTH.name)
    age_micros = 0

    @application.agent(raw_topic(application, ATTEMPTS.name), concurrency=CONCURRENCY, name="provider-health")  # type: ignore[untyped-decorator] # faust has no types
    async def watch(runs: AsyncIterator[Sequence[bytes]]) -> None:
        nonlocal age_micros
        async for values in runs:
            now = _now_micros()
            for value in values:
                attempt = await _decoded(codec, value)
                if attempt is None:
                    windows.missed += 1
                else:
                    windows.observe(attempt, now)
                    age_micros = max(now - attempt.occurred_at, 0)

    @application.task  # type: ignore[untyped-decorator] # likewise
    async def begin() -> None:
        # Whoever waits for this process need not wait for the timer's first turn as well.
        monitor.set(state="running")

    @application.timer(CLOSE_SECONDS)  # type: ignore[untyped-decorator] # likewise
    async def close() -> None:
        for event in windows.close(_now_micros()):
            record = outgoing(codec, event)
            sent = await health.send(key=record.key, value=record.value, headers=list(record.headers))
            await sent
        freshness_seconds = round(age_micros / MICROS_PER_SECOND, 3)
        behind = await lag_events(application)
        monitor.set(state="running", lag_events=behind, freshness_seconds=freshness_seconds, missed=windows.missed)


async def _decoded(codec: Codec, value: bytes) -> ProviderAttempt | None:
    """The attempt, or None for what can't be read: the sinks quarantine it. Waits while the registry is away."""
    while True:
        try:
            event = codec.decode_event(ATTEMPTS.name, value)
        except LogUnavailableError as error:
            log.warning("stream_waits", processor="health", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        except CodecError as error:
            log.debug("record_passed_over", topic=ATTEMPTS.name, error=str(error))
            return None
        else:
            return event if isinstance(event, ProviderAttempt) else None


def _now_micros() -> int:
    return time.time_ns() // 1_000
