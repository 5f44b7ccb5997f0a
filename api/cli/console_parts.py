"""The console's parts, put together from the settings."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from api.cli.audit_parts import Trail, open_trail, seen_in_kafka
from api.cli.control_session import control_session
from api.cli.handles import handle
from api.cli.times import now_micros
from api.console.control import ControlPlane
from api.console.log import PublicLog
from api.console.parts import Parts, ReceiptFile
from api.console.server import run as serve
from api.control.standings import LimitStanding
from api.settings import Settings
from api.why.tell import Story, tell
from infra.embedded.secret_files import ADMIN_TOKEN_SHOWN, is_admin_token, mint_admin_token
from processors.audit.checkpoint import Checkpoint
from processors.audit.note import Verifier
from processors.control import Limit
from schemas.errors import StoreUnavailableError
from schemas.ids import RANDOM_BYTES_PER_UUID7, uuid7
from sinks.audit.receipts import BuiltReceipt
from sinks.audit.search import AuditSearch
from sinks.postgres.reads import PostgresReads
from streams.monitor import Monitor


def run(settings: Settings, monitor: Monitor) -> Callable[[asyncio.Event], Awaitable[None]]:
    """Serve until stopped; raises ConfigurationError when the address is taken.

    A data directory without an admin token gets one, shown once, as `quaestor up` does.
    """

    def listening(_port: int) -> None:
        monitor.set(state="running")

    async def work(stop: asyncio.Event) -> None:
        token = mint_admin_token(settings.data)
        if token is not None:
            sys.stderr.write(ADMIN_TOKEN_SHOWN.format(token=token))
        reads = PostgresReads(settings.postgres_dsn)
        try:
            async with open_trail(settings) as trail:
                parts = _parts(settings, monitor, reads, trail)
                try:
                    await serve(parts, settings.console_host, settings.console_port, stop, listening)
                finally:
                    await parts.control.close()
        finally:
            await reads.close()

    return work


def _parts(settings: Settings, monitor: Monitor, reads: PostgresReads, trail: Trail) -> Parts:
    seen = seen_in_kafka(settings)

    async def ready() -> Mapping[str, bool]:
        try:
            await reads.ping()
        except StoreUnavailableError:
            return {"postgres": False}
        return {"postgres": True}

    async def tell_one(request_id: str) -> Story:
        return await tell(request_id, reads, trail.marker(), seen)

    async def receipts_of(request_id: str) -> list[ReceiptFile]:
        from api.audit.receipts import request_receipts  # noqa: PLC0415 - the console is small until somebody asks

        found = await request_receipts(settings, request_id, 0.0, lambda _covered, _all: None)
        return [] if found is None else [_receipt_file(built) for built in found.receipts]

    async def published_now() -> tuple[Verifier, Checkpoint]:
        from sinks.audit.process import published  # noqa: PLC0415 - loads what the sequencer needs

        keys, checkpoint = await asyncio.to_thread(published, trail.layout)
        return keys.today.verifier, checkpoint

    async def standings(limits: Sequence[Limit], now: int) -> list[LimitStanding]:
        from api.cli.control_usage import live_standings  # noqa: PLC0415 - likewise

        return await live_standings(settings.redis_url, limits, now)

    async def handle_of(tenant_id: str, user: str) -> str:
        erasures = (await plane.state()).erasures
        return await handle(settings, tenant_id, user, erasures)

    plane = ControlPlane(lambda: control_session(settings, "console", "quaestor-console"))
    return Parts(
        is_admin=lambda token: is_admin_token(settings.data, token),
        log=PublicLog(trail.layout.log, trail.files),
        log_is_public=settings.audit_log_public,
        search=AuditSearch(trail.store, reads.actors),
        published=published_now,
        tell=tell_one,
        receipts=receipts_of,
        control=plane,
        standings=standings,
        handle_of=handle_of,
        tags_allowed=settings.tags_allowed,
        ready=ready,
        new_id=lambda: uuid7(now_micros(), secrets.token_bytes(RANDOM_BYTES_PER_UUID7)),
        now_micros=now_micros,
        metrics=monitor.metrics,
    )


def _receipt_file(built: BuiltReceipt) -> ReceiptFile:
    source = built.entry.source
    return ReceiptFile(built.name, built.entry.seq, source.topic, source.kind, built.data.decode("utf-8"))
