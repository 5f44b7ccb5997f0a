"""`quaestor stream guardrails`: the loop with everything it holds, opened in order and closed in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from random import SystemRandom

import structlog

from api.alerts.courier import Courier
from api.alerts.forecaster import Forecaster
from api.alerts.http import HttpOutlet
from api.alerts.mail import MailOutlet
from api.alerts.notes import HourNotes
from api.alerts.outlets import Outlet
from api.alerts.service import Guardrails
from api.alerts.watcher import Watcher
from api.providers.secrets import Secrets
from schemas.errors import LogUnavailableError
from schemas.events import Alert
from sinks.postgres.hours import PostgresHours
from sinks.redis.reads import RedisReads
from streams.codec import Codec
from streams.control import ControlFollower
from streams.kafka import KafkaGroupReader, KafkaPublisher, KafkaReader
from streams.log import Membership
from streams.monitor import Monitor
from streams.recorder import Recorder
from streams.registry import RegistrySchemas
from streams.waiting import prepared

CLIENT = "quaestor-guardrails"
GROUP = "stream-guardrails"
RETRY_SECONDS = 1.0
log = structlog.get_logger(__name__)


async def run(
    bootstrap: str,
    registry_url: str,
    redis_url: str,
    postgres_dsn: str,
    monitor: Monitor,
    stop: asyncio.Event,
    membership: Membership,
) -> None:
    """Watch and tell until `stop`; raises what Guardrails.run raises."""
    codec = Codec(RegistrySchemas(registry_url))
    if not await prepared(codec, monitor, stop):
        return
    async with contextlib.AsyncExitStack() as held:
        publisher = KafkaPublisher(bootstrap, client_id=CLIENT)
        held.push_async_callback(asyncio.to_thread, publisher.close)
        control = ControlFollower(lambda: KafkaReader(bootstrap, CLIENT), codec)
        control.start()
        held.push_async_callback(asyncio.to_thread, control.stop)
        reads = RedisReads(redis_url)
        await reads.connect()
        held.push_async_callback(reads.close)
        kept = PostgresHours(postgres_dsn)
        held.push_async_callback(kept.close)
        recorder = Recorder(publisher, codec)
        courier = Courier(
            outlets(), Secrets().resolve, _telling(recorder), _now_micros, SystemRandom().random, monitor.metrics
        )
        held.push_async_callback(courier.close)
        alerts, budgets = KafkaGroupReader(bootstrap, GROUP, CLIENT, membership), KafkaReader(bootstrap, CLIENT)
        held.push_async_callback(asyncio.to_thread, budgets.close)
        held.push_async_callback(asyncio.to_thread, alerts.close)
        guardrails = Guardrails(
            alerts,
            budgets,
            recorder,
            codec,
            lambda: control.state if control.caught_up else None,
            Watcher(reads),
            Forecaster(reads, HourNotes(reads.hours, kept)),
            courier,
            monitor,
        )
        await guardrails.run(stop)
        monitor.set(state="stopping")


def outlets() -> Mapping[str, Outlet]:
    """An outlet for each kind of channel; made inside the loop that will use them."""
    http = HttpOutlet()
    return {"slack": http, "webhook": http, "email": MailOutlet()}


def _telling(recorder: Recorder) -> Callable[[Alert], Awaitable[None]]:
    async def tell(alert: Alert) -> None:
        """Record it, however long the log is away; raises RecordRefusedError or CodecError where that never works."""
        while True:
            try:
                await recorder.record([alert])
            except LogUnavailableError as error:
                log.warning("delivery_waits", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    return tell


def _now_micros() -> int:
    return time.time_ns() // 1_000
