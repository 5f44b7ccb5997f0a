"""What every embedded server is: a folder, a port, a command, a question that only a working server answers."""

from __future__ import annotations

import contextlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from infra.embedded.artifacts import ArtifactCache
from infra.embedded.errors import GivenUpError, ServerFailedError, explained
from infra.embedded.ports import check_free, held
from infra.embedded.process import Child, Launch, Spawner, last_line
from infra.embedded.progress import Progress, ProgressCallback, ignore

PROBE_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What a server needs from around it: where its stack lives, who starts it, where artifacts are."""

    data: Path
    spawner: Spawner
    artifacts: ArtifactCache = field(default_factory=ArtifactCache)

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.data / "logs"

    @property
    def secrets(self) -> Path:
        """The folder of passwords and tokens, for its owner only."""
        return self.data / "secrets"


class Server(ABC):
    """One server: made with its port, started, asked whether it is ready, stopped, started again.

    `start` may be called after `stop` or after the process died; it keeps what is in its folder. Not for use by several
    threads at once.
    """

    #: What the stack calls it; also its folder under the data directory and its log.
    name: ClassVar[str]
    start_seconds_max: ClassVar[float] = 60.0
    stop_seconds_max: ClassVar[float] = 15.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, context: ServerContext, port: int) -> None:
        """A server of the stack in `context.data` on a loopback port."""
        self.context = context
        self.port = port
        #: Others that it listens on and nobody else has to know; drawn when it is prepared.
        self.inner_ports: Sequence[int] = ()
        self.child: Child | None = None
        self._given_up = False

    @property
    def folder(self) -> Path:
        """Where it keeps its data."""
        return self.context.data / self.name

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.context.logs / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return self.child.pid if self.child is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.child is not None and self.child.exit_code is None

    @abstractmethod
    def version(self) -> str:
        """The version of the server."""

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """The settings by which clients find it."""

    @abstractmethod
    def prepare(self, progress: ProgressCallback) -> None:
        """Bring its folder and everything it needs into shape; may download, may take seconds the first time."""

    @abstractmethod
    def launch(self) -> Launch:
        """How to start it, once prepared."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers a real question; never raises, takes a second at most."""

    def start(self, progress: ProgressCallback = ignore) -> None:
        """Prepare, start and wait until ready.

        Raises PortTakenError, ServerFailedError (with the last line of its log), and what preparing raises; nothing
        runs then.
        """
        check_free(self.name, self.port)
        self._given_up = False
        with contextlib.ExitStack() as holding:
            holding.enter_context(held((self.port,)))
            self._start(progress, holding)
        progress(Progress(self.name, "running", f"port {self.port}"))

    def _start(self, progress: ProgressCallback, holding: contextlib.ExitStack) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.prepare(progress)
            holding.enter_context(held(self.inner_ports))
            self._check_wanted()
            progress(Progress(self.name, "starting"))
            self.child = self.context.spawner.spawn(self.launch())
        except OSError as error:
            raise explained(error, self.folder) from error
        try:
            self._wait_ready()
        except BaseException:  # an interrupt must not leave a half-started server either
            self.child.kill()
            raise

    def stop(self, progress: ProgressCallback = ignore) -> bool:
        """Stop it in order within its bound, else kill it; whether it ended in order. Fine when it does not run."""
        if self.child is None:
            return True
        progress(Progress(self.name, "stopping"))
        ended = self.child.stop(self.stop_signal, self.stop_seconds_max)
        self.child = None
        progress(Progress(self.name, "stopped", "" if ended else "killed after its time was up"))
        return ended

    def give_up(self) -> None:
        """Make a `start` that runs in another thread fail soon."""
        self._given_up = True
        if self.child is not None:
            self.child.kill()

    def _check_wanted(self) -> None:
        if self._given_up:
            raise GivenUpError(self.name, "was given up", self.log)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.start_seconds_max
        while not self.ready():
            if not self.alive:
                self._check_wanted()
                code = self.child.exit_code if self.child else None
                why = f"ended while starting (exit code {code}): {last_line(self.log) or 'it said nothing'}"
                raise ServerFailedError(self.name, why, self.log)
            if time.monotonic() > deadline:
                raise ServerFailedError(self.name, f"was not ready after {self.start_seconds_max:.0f} s", self.log)
            time.sleep(PROBE_INTERVAL_SECONDS)
