"""The gateway as processes: one worker here, or several supervised ones that share the listening socket.

The parent owns the socket, so a connection that comes while a worker is being replaced waits in the backlog. A worker
ends when its parent does, whatever ended it: it watches a pipe whose other end only the parent holds.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import msgspec
import structlog
import uvloop

from api.gateway.options import GatewayOptions
from api.gateway.readiness import STATUS_SUFFIX, fresh_files
from api.gateway.spool import waiting_bytes
from api.gateway.worker import listening_socket, serve
from schemas.errors import ConfigurationError
from streams.diagnostics import configure_diagnostics
from streams.monitor import Monitor

log = structlog.get_logger(__name__)

#: A worker that dies is replaced at once, but no more often than this.
RESTART_SECONDS_MIN = 0.2
RESTART_SECONDS_MAX = 10.0
#: A worker that lived so long is thought healthy: the next restart is quick again.
HEALTHY_SECONDS = 30.0
STATUS_SECONDS = 1.0
#: After the drain time, what is still there is killed.
KILL_AFTER_SECONDS = 10.0


def run(options: GatewayOptions, monitor: Monitor | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; blocks, and owns the process's signals.

    Raises ConfigurationError when the address is taken, naming it and the setting that changes it.
    """
    listener = _listen(options)
    monitor = monitor or Monitor("gateway")
    try:
        if options.workers == 1:
            _run_worker(options, listener, monitor, None, shared=False)
        else:
            _Supervisor(options, listener, monitor).run()
    finally:
        listener.close()


def _listen(options: GatewayOptions) -> socket.socket:
    try:
        return listening_socket(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"{where} is taken; set QUAESTOR_GATEWAY_PORT to a free port") from None
        raise ConfigurationError(f"the gateway can't listen on {where}: {error.strerror}") from None


def _run_worker(
    options: GatewayOptions, listener: socket.socket, monitor: Monitor, parent: Connection | None, *, shared: bool
) -> None:
    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if parent is not None:
            # Nothing is ever sent: readable means that the other end is gone.
            loop.add_reader(parent.fileno(), stop.set)
        await serve(options, listener, monitor, stop, shared=shared)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _worker_main(options: GatewayOptions, listener: socket.socket, parent: Connection) -> None:
    """The body of a worker process: it logs as its parent does."""
    configure_diagnostics(logging.getLevelName(options.log_level.upper()))
    _run_worker(options, listener, Monitor("gateway-worker"), parent, shared=True)


class _Slot:
    """One worker's place: the process in it, and when the next may be started."""

    def __init__(self) -> None:
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None
        self.started_at = 0.0
        self.restart_seconds = RESTART_SECONDS_MIN
        self.restart_at = 0.0


class _Supervisor:
    """Keeps as many workers as asked for."""

    def __init__(self, options: GatewayOptions, listener: socket.socket, monitor: Monitor) -> None:
        self._options, self._listener, self._monitor = options, listener, monitor
        self._context = multiprocessing.get_context("spawn")
        self._slots = [_Slot() for _ in range(options.workers)]
        self._stop = threading.Event()
        self._wake_reader, self._wake_writer = self._context.Pipe(duplex=False)

    def run(self) -> None:
        """Until a signal; then every worker drains."""
        directory = self._options.run_directory
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            path.unlink(missing_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            while not self._stop.is_set():
                self._keep()
                self._tell(directory)
                self._sleep()
        finally:
            self._end()

    def _on_signal(self, number: int, _: object) -> None:
        log.info("gateway_stopping", signal=signal.Signals(number).name)
        self._stop.set()
        self._wake_writer.send(None)

    def _sleep(self) -> None:
        sentinels = [slot.process.sentinel for slot in self._slots if slot.process is not None]
        wait([self._wake_reader, *sentinels], STATUS_SECONDS)

    def _keep(self) -> None:
        now = time.monotonic()
        for index, slot in enumerate(self._slots):
            if slot.process is not None and not slot.process.is_alive():
                self._bury(index, slot, now)
            if slot.process is None and now >= slot.restart_at:
                self._start(slot, now)

    def _bury(self, index: int, slot: _Slot, now: float) -> None:
        process = slot.process
        if process is None:
            return
        log.warning("gateway_worker_died", worker=index, pid=process.pid, exit_code=process.exitcode)
        lived = now - slot.started_at
        slot.restart_seconds = (
            RESTART_SECONDS_MIN if lived > HEALTHY_SECONDS else min(2 * slot.restart_seconds, RESTART_SECONDS_MAX)
        )
        slot.restart_at = now + slot.restart_seconds
        self._close(slot)

    def _start(self, slot: _Slot, now: float) -> None:
        theirs, slot.pipe = self._context.Pipe(duplex=False)
        slot.process = self._context.Process(
            target=_worker_main, args=(self._options, self._listener, theirs), name="gateway-worker"
        )
        slot.process.start()
        theirs.close()
        slot.started_at = now

    def _tell(self, directory: Path) -> None:
        """The monitor says the worst of what the workers say, and their sums."""
        statuses = [msgspec.json.decode(path.read_bytes()) for path in fresh_files(directory, STATUS_SUFFIX)]
        healthy = len(statuses) == len(self._slots) and all(status["state"] == "running" for status in statuses)
        self._monitor.set(
            state="running" if healthy else "degraded",
            lag_events=max((status["lag_events"] for status in statuses), default=None),
            spool_bytes=waiting_bytes(self._options.spool_directory),
            requests_in_flight=sum(status["requests_in_flight"] for status in statuses),
            workers=[slot.process.pid for slot in self._slots if slot.process is not None],
        )

    def _end(self) -> None:
        self._monitor.set(state="stopping")
        self._listener.close()
        for slot in self._slots:
            if slot.process is not None and slot.process.pid is not None and slot.process.is_alive():
                os.kill(slot.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + self._options.drain_seconds + KILL_AFTER_SECONDS
        for slot in self._slots:
            if slot.process is not None:
                slot.process.join(max(0.0, deadline - time.monotonic()))
                if slot.process.is_alive():
                    log.error("gateway_worker_killed", pid=slot.process.pid)
                    slot.process.kill()
                    slot.process.join()
                self._close(slot)

    def _close(self, slot: _Slot) -> None:
        if slot.process is not None:
            slot.process.close()
        if slot.pipe is not None:
            slot.pipe.close()
        slot.process, slot.pipe = None, None
