"""Runs one data directory's stack: servers, migration, applications; restarts what dies; stops all of it in order.

One thread decides (the one in `run`); the control socket's thread only hands requests over. Every process is started by
the stack's spawner thread, or forked from one that was, with a parent-death signal: nothing outlives the supervisor,
however it ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import structlog

from infra.embedded import applications
from infra.embedded.control import ControlServer, Listener, Listeners, Request
from infra.embedded.endpoints import Endpoints, ProcessEntry
from infra.embedded.environment import Change, compare
from infra.embedded.errors import explained
from infra.embedded.fork_server import ForkServer
from infra.embedded.migration import MigratedPart, as_variables, migrate
from infra.embedded.parts import ApplicationPart, Part, ServerPart
from infra.embedded.ports import INNER_PORTS, PortPlan, check_free, free_ports, held
from infra.embedded.process import started_at, truncate_live
from infra.embedded.progress import Progress
from infra.embedded.shares import Shares
from infra.embedded.stack import Stack
from infra.embedded.state import STATE_FILE, Phase, State, end_leftovers
from infra.embedded.versions import all_versions
from schemas.errors import QuaestorError

TICK_SECONDS = 0.1
LOG_CHECK_SECONDS = 30.0
REQUESTS_MAX = 16
#: The servers whose migration needs no other.
STORES = ("postgres", "clickhouse")

log = structlog.get_logger()


class StopRequestedError(BaseException):
    """A signal asked the supervisor to stop; raised where its main thread stands."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and where."""

    data: Path
    ports: PortPlan
    cache: Path | None = None
    servers_only: bool = False


class Supervisor:
    """The stack of one data directory, from `run` until a signal or a request stops it."""

    def __init__(self, plan: Plan, listeners: Sequence[Listener] = ()) -> None:
        """Nothing runs yet; the caller holds the data directory's lock."""
        self._plan = plan
        self._listeners = Listeners(listeners)
        self._requests: queue.Queue[Request] = queue.Queue(REQUESTS_MAX)
        self._phase: Phase = "starting"
        self._parts: dict[str, Part] = {}
        self._environment = dict(os.environ)
        self._stack = Stack(plan.data, plan.ports, cache=plan.cache, progress=self._tell)
        self._fork_server: ForkServer | None = None
        self._versions: Mapping[str, str] = {}
        self._shares = Shares()
        self._logs_checked_at = time.monotonic()

    def run(self) -> None:
        """Start everything, watch it, and stop it when asked; raises what kept it from starting."""
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, _raise_stop)
        control: ControlServer | None = None
        try:
            end_leftovers(State.read(self._plan.data))
            if not self._plan.servers_only:
                self._check_application_ports()
            control = ControlServer(self._plan.data, self._take)
            with held(self._application_ports()):
                self._start()
            self._watch()
        except StopRequestedError:
            log.info("stop_requested")
        except QuaestorError as error:
            self._listeners.end({"event": "failed", "message": str(error)})
            raise
        finally:
            self._stop()
            if control is not None:
                control.close()

    def _check_application_ports(self) -> None:
        """Refuse before anything starts when a port of ours is taken."""
        for name in applications.LISTENING:
            check_free(name, self._plan.ports.of(name))

    def _application_ports(self) -> Sequence[int]:
        """Those that our own processes take seconds after they were picked."""
        return [] if self._plan.servers_only else [self._plan.ports.of(name) for name in applications.LISTENING]

    def _start(self) -> None:
        self._save()
        if self._plan.servers_only:
            self._stack.start()
        else:
            self._start_migrating()
        self._parts = {name: ServerPart(self._stack, name) for name in self._stack.servers}
        self._versions = all_versions(self._stack)
        self._save()
        if not self._plan.servers_only:
            self._start_applications()
        self._phase = "running"
        self._save()
        self._listeners.end({"event": "done"})

    def _start_migrating(self) -> None:
        """Start the servers; the stores are brought forward while the log, which takes longer, still starts."""
        self._forks()  # its imports go on meanwhile
        waiting, lock, begun = set(STORES), threading.Lock(), list[Future[None]]()
        with ThreadPoolExecutor(1, thread_name_prefix="migration") as beside:

            def ready(name: str) -> None:
                with lock:
                    was_waiting = name in waiting
                    waiting.discard(name)
                    if was_waiting and not waiting:
                        begun.append(beside.submit(self._migrate, "stores"))

            try:
                self._stack.start(ready)
                self._migrate("log")
            except BaseException:  # nor does an interrupt wait for it
                self._forks().close()
                raise
        begun[0].result()

    def _migrate(self, part: MigratedPart) -> None:
        settings = {**self._stack.settings(), **applications.application_settings(self._plan.ports)}
        migrate(self._forks(), self._plan.data, part, {**as_variables(settings), **self._environment}, self._tell)

    def _start_applications(self) -> None:
        """Start our own processes side by side, everything brought forward."""
        self._check_application_ports()
        self._plan = replace(self._plan, servers_only=False)
        self._endpoints().write(self._plan.data)
        if not applications.exists("serve"):
            log.warning("applications_missing")
            return
        monitor_ports = free_ports(len(applications.APPLICATIONS), INNER_PORTS)
        with held(monitor_ports):
            for application, monitor_port in zip(applications.APPLICATIONS, monitor_ports, strict=True):
                part = ApplicationPart(self._forks(), application, self._plan.data, self._plan.ports, monitor_port)
                self._parts[application.name] = part
            for part in self._applications():
                part.start(self._environment, self._tell)
            self._save()
            self._wait_ready(self._applications())

    def _forks(self) -> ForkServer:
        """What starts our own processes, started itself when it is first needed."""
        if self._fork_server is None:
            data = self._plan.data
            variables = {**self._environment, **applications.shared_environment()}
            log_path = data / "logs" / "fork-server.log"
            self._fork_server = ForkServer(self._stack.spawner, log_path, applications.SHARED_MODULES, variables)
        return self._fork_server

    def _wait_ready(self, parts: Sequence[ApplicationPart]) -> None:
        """Wait until the applications do their work; those that don't within the bound are told of and kept."""
        deadline = time.monotonic() + applications.READY_SECONDS_MAX
        waiting = list(parts)
        while waiting and time.monotonic() < deadline:
            self._revive()
            waiting = [part for part in waiting if not part.became_ready(self._tell)]
            if all(part.is_failing for part in waiting):
                break
            time.sleep(TICK_SECONDS)
        for part in waiting:
            self._tell(Progress(part.name, "failed", f"not ready; see {part.log}"))

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                self._answer(self._requests.get(timeout=TICK_SECONDS))
            self._revive()
            self._shares.settle({name: server.pid for name, server in self._stack.servers.items()})
            for part in self._applications():
                part.became_ready(self._tell)
            if time.monotonic() - self._logs_checked_at > LOG_CHECK_SECONDS:
                self._logs_checked_at = time.monotonic()
                for path in (self._plan.data / "logs").glob("*.log"):
                    truncate_live(path)

    def _revive(self) -> None:
        """Start what died, each part with its own growing pause."""
        changed = [part for part in self._parts.values() if part.revive(self._environment, self._tell)]
        if changed:
            self._save_if_possible()

    def _take(self, request: Request) -> None:
        """Called by the control thread: whoever asks follows at once; stopping interrupts whatever goes on."""
        self._listeners.add(request.listener)
        if request.command == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
            return
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            request.listener.tell({"event": "failed", "message": "too many requests at once: try again"})
            request.listener.close()

    def _answer(self, request: Request) -> None:
        self._listeners.add(request.listener)
        try:
            self._repair(request)
        except (QuaestorError, OSError) as error:
            told = explained(error, self._plan.data) if isinstance(error, OSError) else error
            self._listeners.end({"event": "failed", "message": str(told)})
            return
        self._listeners.end({"event": "done"})

    def _repair(self, request: Request) -> None:
        """A further `up`: start at once what is down, start what is missing, take a changed environment over."""
        change = compare(self._environment, request.content.get("environment", {}))
        self._environment = self._environment | dict(change.values)
        for part in self._parts.values():
            part.forget_failures()
            if not part.alive:
                part.revive(self._environment, self._tell)
        if not request.content.get("servers_only", False):
            if self._applications():
                self._restart_for(change)
            else:
                self._migrate("stores")
                self._migrate("log")
                self._start_applications()
        self._save()
        self._wait_ready([part for part in self._applications() if not part.is_ready])

    def _restart_for(self, change: Change) -> None:
        """Restart those whose environment changed: all for our settings, the gateway for providers' secrets."""
        for part in self._applications():
            if change.settings or (change.values and part.name == "gateway"):
                self._tell(Progress(part.name, "restarting", f"changed: {', '.join(sorted(change.values))[:120]}"))
                part.stop(self._tell)
                part.start(self._environment, self._tell)

    def _stop(self) -> None:
        """Applications first, each with its time to drain, then the servers; every wait is bounded."""
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        self._phase = "stopping"
        self._save_if_possible()
        for order in sorted({part.stop_order for part in self._applications()}):
            together = [part for part in self._applications() if part.stop_order == order]
            for part in together:
                part.ask_to_stop(self._tell)
            for part in together:
                part.stop(self._tell)
        if self._fork_server is not None:
            self._fork_server.close()
        self._stack.close()
        (self._plan.data / STATE_FILE).unlink(missing_ok=True)
        self._listeners.end({"event": "stopped"})

    def _applications(self) -> list[ApplicationPart]:
        return [part for part in self._parts.values() if isinstance(part, ApplicationPart)]

    def _endpoints(self) -> Endpoints:
        servers = self._stack.endpoints()
        settings, processes, ports = dict(servers.settings), dict(servers.processes), dict(servers.ports)
        if not self._plan.servers_only:
            settings |= applications.application_settings(self._plan.ports)
            ports |= {name: self._plan.ports.of(name) for name in applications.LISTENING}
        processes |= {part.name: ProcessEntry(part.pid, part.monitor_port) for part in self._applications()}
        return Endpoints(settings, processes, ports)

    def _save(self) -> None:
        """Write state.json, and endpoints.json once there are endpoints."""
        parts = tuple(part.state() for part in self._parts.values())
        state = State(self._phase, os.getpid(), started_at(os.getpid()), parts, self._versions)
        self._plan.data.mkdir(parents=True, exist_ok=True)
        state.write(self._plan.data)
        if self._parts and self._phase != "stopping":
            self._endpoints().write(self._plan.data)

    def _save_if_possible(self) -> None:
        """As `_save`; a disk that is full for now stops nothing that runs."""
        try:
            self._save()
        except OSError as error:
            log.warning("state_not_saved", error=str(error))

    def _tell(self, step: Progress) -> None:
        event = {"event": "progress", "part": step.part, "state": step.state, "detail": step.detail}
        if step.state != "downloading":
            log.info("part", name=step.part, state=step.state, detail=step.detail)
        self._listeners.tell(event | {"done": step.done, "total": step.total})


def _raise_stop(_number: int, _frame: FrameType | None) -> None:
    raise StopRequestedError
