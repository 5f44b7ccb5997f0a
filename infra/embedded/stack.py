"""The servers of one data directory, started side by side and stopped together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.embedded.artifacts import ArtifactCache
from infra.embedded.endpoints import ENDPOINTS_FILE, Endpoints, ProcessEntry
from infra.embedded.errors import GivenUpError, explained
from infra.embedded.ports import PortPlan, check_free
from infra.embedded.process import Spawner
from infra.embedded.progress import Progress, ProgressCallback, ignore
from infra.embedded.secret_files import secrets_folder
from infra.embedded.servers import SERVERS, Server, ServerContext
from schemas.errors import ConfigurationError

SERVER_NAMES: tuple[str, ...] = tuple(server.name for server in SERVERS)


class Stack:
    """Real servers for as long as a `with` block, or from `start` to `stop`.

    `servers` picks some of SERVER_NAMES; all of them by default. Nothing else may use the same data directory meanwhile
    (the supervisor holds a lock on it; tests use a temporary folder).
    """

    def __init__(
        self,
        data: Path,
        ports: PortPlan,
        *,
        servers: Sequence[str] = SERVER_NAMES,
        cache: Path | None = None,
        progress: ProgressCallback = ignore,
    ) -> None:
        """Plan the servers; nothing is started or written yet."""
        if unknown := set(servers) - set(SERVER_NAMES):
            raise ConfigurationError(f"no such server: {', '.join(sorted(unknown))} (there are {SERVER_NAMES})")
        self.data = data.absolute()
        self.ports = ports
        self._progress = _Serial(progress)
        self._spawner = Spawner()
        context = ServerContext(self.data, self._spawner, ArtifactCache(cache))
        self.servers: dict[str, Server] = {
            each.name: each(context, ports.of(each.name)) for each in SERVERS if each.name in servers
        }

    @property
    def spawner(self) -> Spawner:
        """What starts its processes; the supervisor starts the applications with it too."""
        return self._spawner

    def start(self, ready: Callable[[str], None] = lambda _name: None) -> Endpoints:
        """Start all servers side by side, wait until all are ready, and write endpoints.json.

        Each one's name is told once it is ready, by the thread that started it; what that raises counts as its fault.
        The first fault stops the others and is raised: PortTakenError, ServerFailedError, ConfigurationError,
        ArtifactMismatchError or ArtifactUnavailableError.
        """
        for name, server in self.servers.items():
            check_free(name, server.port)
        try:
            secrets_folder(self.data)
            self._start_all(ready)
            endpoints = self.endpoints()
            endpoints.write(self.data)
        except OSError as error:
            self.stop()
            raise explained(error, self.data) from error
        except BaseException:  # an interrupt must not leave servers behind either
            self.stop()
            raise
        return endpoints

    def stop(self) -> bool:
        """Stop all servers side by side; whether each ended in order. Fine when nothing runs."""
        running = [server for server in self.servers.values() if server.child is not None]
        with ThreadPoolExecutor(len(self.servers) or 1) as pool:
            ended = list(pool.map(lambda server: server.stop(self._progress), running))
        (self.data / ENDPOINTS_FILE).unlink(missing_ok=True)
        return all(ended)

    def close(self) -> None:
        """Stop, and end the thread that started the processes: the stack can't be started again."""
        self.stop()
        self._spawner.close()

    def restart(self, name: str) -> None:
        """Start one server whose process ended; raises as `start` does."""
        server = self.servers[name]
        server.stop()
        server.start(self._progress)

    def settings(self) -> Mapping[str, str]:
        """The settings by which clients find the servers."""
        return {key: value for server in self.servers.values() for key, value in server.settings().items()}

    def versions(self) -> Mapping[str, str]:
        """The version of each server."""
        return {name: server.version() for name, server in self.servers.items()}

    def endpoints(self) -> Endpoints:
        """Where the running servers are."""
        processes = {
            name: ProcessEntry(server.child.pid if server.child else None) for name, server in self.servers.items()
        }
        return Endpoints(self.settings(), processes, {name: server.port for name, server in self.servers.items()})

    def _start_all(self, ready: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(len(self.servers) or 1) as pool:
            started: list[Future[None]] = [
                pool.submit(self._start_one, server, ready) for server in self.servers.values()
            ]
            try:
                wait(started, return_when=FIRST_EXCEPTION)
            finally:  # a fault, or an interrupt of this thread
                if not all(each.done() and not each.exception() for each in started):
                    self._give_up(started)
        # One that had not begun is cancelled, and has no reason of its own.
        faults = [fault for each in started if not each.cancelled() and (fault := each.exception()) is not None]
        # Those that were given up because of another's fault say so, and are not the reason.
        for fault in sorted(faults, key=lambda fault: isinstance(fault, GivenUpError)):
            raise fault

    def _start_one(self, server: Server, ready: Callable[[str], None]) -> None:
        server.start(self._progress)
        ready(server.name)

    def _give_up(self, started: Sequence[Future[None]]) -> None:
        """Make the starts that still run end at once."""
        for each in started:
            each.cancel()
        for server in self.servers.values():
            server.give_up()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, whatever happened."""
        self.close()


class _Serial:
    """A callback that is called by one thread at a time."""

    def __init__(self, progress: ProgressCallback) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def __call__(self, step: Progress) -> None:
        with self._lock:
            self._progress(step)
