"""One worker: everything a gateway process holds, opened in order, served by uvicorn, closed in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

import structlog
import uvicorn
from prometheus_client import generate_latest

from api.gateway.app import Gateway
from api.gateway.counting import Counting
from api.gateway.eraser import Eraser
from api.gateway.grace import Grace
from api.gateway.journal import Journal
from api.gateway.meters import Meters
from api.gateway.options import GatewayOptions
from api.gateway.parts import Parts
from api.gateway.protocol import GatewayProtocol
from api.gateway.readiness import Readiness
from api.gateway.spool import Spool, waiting_bytes
from api.gateway.subjects import Subjects
from api.gateway.vault_keys import open_vault
from api.providers.openai import HttpUpstream
from api.providers.tiktoken import TiktokenCounter
from schemas.errors import CodecError, LogError
from schemas.topics import ATTEMPTS, BUDGETS, COSTS, DECISIONS, REQUESTS
from sinks.redis.store import RedisHoldStore
from streams.codec import Codec, SchemaSource
from streams.control import ControlFollower
from streams.kafka import KafkaReader, LoopPublisher, LoopRecorder
from streams.monitor import Monitor
from streams.registry import RegistrySchemas

log = structlog.get_logger(__name__)

KEEP_ALIVE_SECONDS = 75
STATUS_SECONDS = 1.0
SCHEMAS_RETRY_SECONDS = 0.5
BACKLOG = 1_024
#: Garbage collection looks at young objects once per so many; what start-up made is frozen.
COLLECT_AFTER_OBJECTS = 50_000
WRITTEN_TOPICS = (REQUESTS, DECISIONS, ATTEMPTS, COSTS, BUDGETS)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class SchemasKnown:
    """Asks the registry for the ids of what we write, in a thread, before anything is written in the event loop."""

    def __init__(self, source: SchemaSource) -> None:
        """Nothing is asked yet."""
        self._source = source
        self._stop = threading.Event()
        self.known = False

    def start(self) -> None:
        """Ask until they are known."""
        threading.Thread(target=self._ask, name="schema-ids", daemon=True).start()

    def stop(self) -> None:
        """Give up."""
        self._stop.set()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                for topic in WRITTEN_TOPICS:
                    self._source.id_of(topic.name)
            except (LogError, CodecError) as error:
                log.warning("schemas_unknown", error=str(error))
                self._stop.wait(SCHEMAS_RETRY_SECONDS)
            else:
                self.known = True
                return


class Worker:
    """The parts of one process. `async with` opens and closes them."""

    def __init__(self, options: GatewayOptions, monitor: Monitor, *, shared: bool) -> None:
        """`shared`: whether other workers serve the same address."""
        self._options, self._monitor, self._shared = options, monitor, shared
        self._closers = contextlib.AsyncExitStack()
        self.gateway: Gateway
        self.readiness: Readiness
        self.eraser: Eraser
        self._parts: Parts

    async def __aenter__(self) -> Self:
        """Open everything; what is away is waited for in the background and told by /readyz."""
        async with contextlib.AsyncExitStack() as opened:
            await self._open(opened)
            self._closers = opened.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything, in the reverse order."""
        await self._closers.aclose()

    async def _open(self, opened: contextlib.AsyncExitStack) -> None:
        options, instance = self._options, f"{socket.gethostname()}-{os.getpid()}"
        schemas = RegistrySchemas(options.registry_url)
        known = SchemasKnown(schemas)
        known.start()
        opened.callback(known.stop)
        publisher = LoopPublisher(options.kafka_bootstrap, client_id="quaestor-gateway")
        opened.push_async_callback(publisher.close)
        control = ControlFollower(lambda: KafkaReader(options.kafka_bootstrap, "quaestor-gateway"), Codec(schemas))
        control.start()
        await _closing(opened, control.stop)
        holds = RedisHoldStore(options.redis_url, tombstone_seconds=options.hold_tombstone_seconds)
        await holds.open()
        opened.push_async_callback(holds.close)
        spool = Spool(options.spool_directory, f"gateway-{instance}")
        recorder = LoopRecorder(publisher, Codec(schemas))
        remembered = options.hold_tombstone_seconds
        journal = Journal(recorder, spool, options.spool_directory, control, instance, lambda: known.known, remembered)
        journal.start()
        opened.push_async_callback(journal.stop)
        upstream = HttpUpstream()
        opened.push_async_callback(upstream.close)

        def erased(handle: str) -> bool:
            return handle in control.state.erasures

        vault = open_vault(options.postgres_dsn, options.vault_keys, options.data_directory, erased)
        opened.push_async_callback(vault.close)
        subjects = Subjects(vault, options.tags_allowed, erased)
        self.eraser = Eraser(control, subjects, vault)
        counting = Counting(TiktokenCounter())
        opened.callback(counting.close)
        self._parts = Parts(
            options=options,
            actor=f"gateway/{instance}",
            control=control,
            journal=journal,
            holds=holds,
            upstream=upstream,
            subjects=subjects,
            meters=Meters(self._monitor.metrics),
            grace=Grace(options.fail_open_nano, options.grace_file),
            counting=counting,
        )
        directory = options.run_directory if self._shared else None
        self.readiness = Readiness(control, journal, holds, directory, lambda: known.known)
        opened.callback(self.readiness.withdraw)
        self.gateway = Gateway(self._parts, self.readiness)
        self._control = control

    async def tell(self) -> None:
        """Say how it goes, once a second, for as long as it is not cancelled."""
        while True:
            self.tell_once()
            await asyncio.sleep(STATUS_SECONDS)

    def tell_once(self) -> None:
        """Say how it goes."""
        parts = self._parts
        ready = self.readiness.ready()
        status: dict[str, Any] = {
            "state": "running" if ready else "degraded",
            "lag_events": self._control.lag_events,
            "spool_bytes": waiting_bytes(parts.options.spool_directory),
            "requests_in_flight": parts.meters.in_flight,
        }
        self._monitor.set(**status)
        journal = parts.journal
        parts.meters.gauges(journal.spooled_bytes, spool_unwritable=journal.unwritable is not None)
        if self._shared:
            self.readiness.write(generate_latest(parts.meters.metrics.registry), status)


async def _closing(opened: contextlib.AsyncExitStack, close: Callable[[], None]) -> None:
    """Close by a call that blocks, off the loop."""

    async def close_elsewhere() -> None:
        await asyncio.get_running_loop().run_in_executor(None, close)

    opened.push_async_callback(close_elsewhere)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:  # also when interrupted: the descriptor must not stay open
        listener.close()
        raise
    return listener


async def serve(
    options: GatewayOptions, listener: socket.socket, monitor: Monitor, stop: asyncio.Event, *, shared: bool = False
) -> None:
    """Serve on a listening socket until `stop`, then let running requests end within `drain_seconds`."""
    async with Worker(options, monitor, shared=shared) as worker:
        server = _Server(_configuration(worker.gateway, options))
        async with _telling(worker, server, stop):
            gc.collect()
            gc.freeze()
            gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 50)
            await server.serve(sockets=[listener])
            monitor.set(state="stopping")
            # What the graceful time did not suffice for was cancelled: it settles its holds on the way out.
            await asyncio.gather(*server.server_state.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _telling(worker: Worker, server: _Server, stop: asyncio.Event) -> AsyncIterator[None]:
    async def stop_server() -> None:
        await stop.wait()
        server.should_exit = True

    tasks = [asyncio.create_task(work) for work in (worker.tell(), worker.eraser.run(), stop_server())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _configuration(gateway: Gateway, options: GatewayOptions) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        http=GatewayProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(options.drain_seconds),
        # The gateway itself refuses what is too much, in its own shape; connections that ask for nothing are no load.
        limit_concurrency=None,
        backlog=BACKLOG,
    )
