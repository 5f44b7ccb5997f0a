"""What the supervisor keeps alive: servers and applications behind one face, with a growing pause between restarts."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog

from infra.embedded.applications import Application, environment, launch, readiness
from infra.embedded.ports import PortPlan
from infra.embedded.process import Child, Starter, last_line, started_at
from infra.embedded.progress import Progress, ProgressCallback
from infra.embedded.stack import Stack
from infra.embedded.state import PartState
from schemas.errors import QuaestorError

BACKOFF_SECONDS_MIN = 0.5
BACKOFF_SECONDS_MAX = 30.0
DOUBLINGS_MAX = 10
FAILING_DEATHS = 3
#: Running for so long, a part has proved itself and its next death counts as the first.
STABLE_SECONDS = 60.0

log = structlog.get_logger()


class Backoff:
    """How long to wait before the next restart: doubling from half a second to half a minute."""

    def __init__(self) -> None:
        """No failure yet."""
        self.failures = 0
        self._not_before = 0.0

    def failed(self, now: float, ran_seconds: float) -> float:
        """Note a death; the pause it costs, in seconds. A part that ran long enough starts over."""
        if ran_seconds >= STABLE_SECONDS:
            self.failures = 0
        pause = min(BACKOFF_SECONDS_MIN * (1 << min(self.failures, DOUBLINGS_MAX)), BACKOFF_SECONDS_MAX)
        self.failures += 1
        self._not_before = now + pause
        return pause

    def may_start(self, now: float) -> bool:
        """Whether the pause is over."""
        return now >= self._not_before

    def forget(self) -> None:
        """Start over at once."""
        self.failures = 0
        self._not_before = 0.0


class Part(Protocol):
    """One process that the supervisor keeps alive."""

    name: str

    @property
    def alive(self) -> bool:
        """Whether its process runs."""

    def revive(self, variables: Mapping[str, str], tell: ProgressCallback) -> bool:
        """Start it again when it died and its pause is over; whether anything changed. Never raises a fault."""

    def forget_failures(self) -> None:
        """Let its next restart happen at once."""

    def state(self) -> PartState:
        """What state.json says of it."""


class _Deaths:
    """Notices that a process died, once per death, and says when it may start again."""

    def __init__(self) -> None:
        self.backoff = Backoff()
        self.restarts = 0
        self.started = time.monotonic()
        self._noticed = False

    def notice(self, name: str, why: str, tell: ProgressCallback) -> bool:
        """Whether this death is new; then tell it with the pause it costs."""
        if self._noticed:
            return False
        self._noticed = True
        now = time.monotonic()
        pause = self.backoff.failed(now, now - self.started)
        log.warning("part_died", name=name, why=why, restart_in_seconds=pause)
        tell(Progress(name, "restarting", f"{why}; starts again in {pause:g} s"))
        return True

    def may_start(self) -> bool:
        return self.backoff.may_start(time.monotonic())

    def starts(self) -> None:
        self._noticed = False
        self.started = time.monotonic()


class ServerPart:
    """A server of the stack."""

    def __init__(self, stack: Stack, name: str) -> None:
        """A server that runs."""
        self.name = name
        self._stack = stack
        self._server = stack.servers[name]
        self._deaths = _Deaths()

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._server.alive

    def revive(self, variables: Mapping[str, str], tell: ProgressCallback) -> bool:  # noqa: ARG002 - servers take no environment of ours
        """Start it again when it died and its pause is over."""
        if self.alive:
            return False
        why = f"exit code {self._server.child.exit_code}" if self._server.child else "did not start"
        if self._deaths.notice(self.name, why, tell):
            return True
        if not self._deaths.may_start():
            return False
        self._deaths.starts()
        self._deaths.restarts += 1
        try:
            self._stack.restart(self.name)
        except (QuaestorError, OSError) as error:  # a full disk, say: the next try may find room
            log.warning("restart_failed", name=self.name, error=str(error))
        return True

    def forget_failures(self) -> None:
        """Let its next restart happen at once."""
        self._deaths.backoff.forget()

    def state(self) -> PartState:
        """What state.json says of it."""
        pid = self._server.pid
        started = started_at(pid) if pid else None
        told = "running" if self.alive else "restarting"
        return PartState(self.name, "server", pid, started, told, self._deaths.restarts)


class ApplicationPart:
    """One of our own processes."""

    def __init__(self, starter: Starter, application: Application, data: Path, ports: PortPlan, port: int) -> None:
        """Not started yet; `port` is where it is monitored."""
        self.name = application.name
        self.stop_order = application.stop_order
        self.monitor_port = port
        self.is_ready = False
        self._starter = starter
        self._application = application
        self._data = data
        self._ports = ports
        self._probe = readiness(application, ports, port)
        self._child: Child | None = None
        self._deaths = _Deaths()

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.exit_code is None

    @property
    def pid(self) -> int | None:
        """Its process while it runs."""
        return self._child.pid if self._child and self.alive else None

    @property
    def is_failing(self) -> bool:
        """Whether it died several times in a row: waiting for it is in vain."""
        return self._deaths.backoff.failures >= FAILING_DEATHS

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self._data / "logs" / f"{self.name}.log"

    def start(self, variables: Mapping[str, str], tell: ProgressCallback) -> None:
        """Start it with these variables; raises OSError when its log can't be written."""
        self.is_ready = False
        self._deaths.starts()
        told = environment(self._data, self._ports, self.monitor_port)
        self._child = self._starter.spawn(launch(self._application, self._data, {**variables, **told}))
        tell(Progress(self.name, "starting"))

    def became_ready(self, tell: ProgressCallback) -> bool:
        """Whether it does its work; asks it until it once said so."""
        if not self.is_ready and self.alive and self._probe():
            self.is_ready = True
            tell(Progress(self.name, "running"))
        return self.is_ready

    def revive(self, variables: Mapping[str, str], tell: ProgressCallback) -> bool:
        """Start it again when it died and its pause is over."""
        if self.alive or self._child is None:
            return False
        why = f"exit code {self._child.exit_code}: {last_line(self.log)}"
        if self._deaths.notice(self.name, why, tell):
            self.is_ready = False
            self._child.kill()  # what it started itself
            return True
        if not self._deaths.may_start():
            return False
        self._deaths.restarts += 1
        try:
            self.start(variables, tell)
        except OSError as error:  # as above
            log.warning("restart_failed", name=self.name, error=str(error))
        return True

    def ask_to_stop(self, tell: ProgressCallback) -> None:
        """Send SIGTERM, and don't wait."""
        if self._child is not None and self.alive:
            tell(Progress(self.name, "stopping"))
            self._child.ask_to_stop(signal.SIGTERM)

    def stop(self, tell: ProgressCallback) -> None:
        """Stop it within its time to drain, else kill it."""
        if self._child is None:
            return
        ended = self._child.stop(signal.SIGTERM, self._application.drain_seconds)
        self._child = None
        tell(Progress(self.name, "stopped", "" if ended else "killed after its time was up"))

    def forget_failures(self) -> None:
        """Let its next restart happen at once."""
        self._deaths.backoff.forget()

    def state(self) -> PartState:
        """What state.json says of it."""
        started = started_at(self.pid) if self.pid else None
        told = "restarting" if not self.alive else "running" if self.is_ready else "starting"
        return PartState(self.name, "application", self.pid, started, told, self._deaths.restarts, self.monitor_port)
