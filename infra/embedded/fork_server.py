"""Our own processes, forked from one that has imported what they share: a start costs milliseconds instead of a second.

The supervisor's side; what forks is infra/embedded/fork_server_process.py. The fork server dies with the supervisor and
what it forked dies with the fork server, so nothing outlives the supervisor here either.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from infra.embedded.process import Child, Launch, Spawner, rotate

#: The first fork waits for the imports.
FORK_SECONDS_MAX = 60.0
MESSAGE_BYTES_MAX = 4096
PYTHON = (sys.executable, "-P", "-m")

log = structlog.get_logger()


class Forked:
    """A forked process, as subprocess.Popen would show it."""

    def __init__(self, pid: int) -> None:
        """It runs."""
        self.pid = pid
        self._code: int | None = None
        self._over = threading.Event()

    def ended(self, code: int) -> None:
        """Note its end."""
        self._code = code
        self._over.set()

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises TimeoutExpired when it still runs after so many seconds."""
        self._over.wait(timeout)
        if self._code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._code


class ForkServer:
    """Starts what Spawner starts: a module of ours by a fork, everything else as the Spawner does.

    A fork server that ends takes what it forked with it and is not replaced: what is started from then on starts as a
    process of its own, which only takes longer. Threads take turns.
    """

    def __init__(self, spawner: Spawner, log: Path, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        """Begin to import the modules, in a process with these variables besides; raises OSError as `spawn` does."""
        self._spawner = spawner
        self._turn = threading.Lock()
        self._forked: queue.SimpleQueue[Forked | None] = queue.SimpleQueue()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            given = theirs.fileno()
            command = (*PYTHON, "infra.embedded.fork_server_process", str(given), *modules)
            self._child = spawner.spawn(Launch("fork-server", command, log, environment, descriptors=(given,)))
        threading.Thread(target=self._listen, name="fork-server", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def spawn(self, launch: Launch) -> Child:
        """Start a process; raises OSError when its command can't be run or its log not written."""
        forked = self._fork(launch) if _can_fork(launch) and self._child.exit_code is None else None
        return self._spawner.spawn(launch) if forked is None else Child(launch.name, forked)

    def close(self) -> None:
        """End it, and what it forked."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._child.kill()

    def _fork(self, launch: Launch) -> Forked | None:
        """Have it forked; None when the fork server is gone, or is ended because it does not answer."""
        rotate(launch.log)
        forked = None
        with self._turn, launch.log.open("ab") as output, contextlib.suppress(OSError, queue.Empty):
            socket.send_fds(self._channel, [_request(launch)], [output.fileno()])
            forked = self._forked.get(timeout=FORK_SECONDS_MAX)
        if forked is None:
            log.warning("fork_server_gone", name=launch.name)
            self.close()  # a fork that comes late must not run beside the other
        return forked

    def _listen(self) -> None:
        """Take what the fork server says until it is gone, and all that it forked with it."""
        running: dict[int, Forked] = {}
        with self._channel:
            while told := self._receive():
                if "pid" in told:
                    forked = running[told["pid"]] = Forked(told["pid"])
                    self._forked.put(forked)
                else:
                    running.pop(told["ended"]).ended(told["code"])
        for each in running.values():
            each.ended(-signal.SIGKILL)
        self._forked.put(None)

    def _receive(self) -> Mapping[str, int]:
        """What it says next; empty at its end."""
        try:
            message = self._channel.recv(MESSAGE_BYTES_MAX)
        except OSError:
            message = b""
        return json.loads(message) if message else {}


def _can_fork(launch: Launch) -> bool:
    """Whether it is a module of ours that dies as everything forked does."""
    return launch.command[: len(PYTHON)] == PYTHON and launch.death_signal == signal.SIGKILL and not launch.descriptors


def _request(launch: Launch) -> bytes:
    module, *arguments = launch.command[len(PYTHON) :]
    asked = {"module": module, "arguments": arguments, "environment": {**os.environ, **launch.environment}}
    return json.dumps(asked | {"directory": str(launch.directory) if launch.directory else None}).encode()
