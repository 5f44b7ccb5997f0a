"""Child processes that die with their parent, log to a file, and are stopped within a bound.

The kernel's parent-death signal belongs to the *thread* that started the child: when that thread ends, the child is
signalled, though the process lives on. So every child is started by one thread that lives as long as its Spawner.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psutil

PR_SET_PDEATHSIG = 1
LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_FILES_MAX = 3
KILL_WAIT_SECONDS = 5.0
LOG_TAIL_BYTES = 4096
#: `at package.Class.method(File.java:1)` and `... 4 more`: where a fault came from, not what it is.
JAVA_FRAME = re.compile(r"at .+\(.+\)$|\.\.\. \d+ more$")

_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one process. `death_signal` is what it gets when its parent is gone.

    `death_signal` None leaves that to the command itself (a wrapper that changes the user clears the signal).
    `descriptors` are those it inherits.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    death_signal: signal.Signals | None = signal.SIGKILL
    descriptors: tuple[int, ...] = ()


class Process(Protocol):
    """What subprocess.Popen offers of a process, however it was started."""

    @property
    def pid(self) -> int:
        """Its id."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises subprocess.TimeoutExpired when it still runs after so many seconds."""


class Child:
    """A started process: the leader of its own process group."""

    def __init__(self, name: str, process: Process) -> None:
        """Take over a process that was started with its own session."""
        self.name = name
        self.pid = process.pid
        self._process = process
        self._asked_at: float | None = None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within the time given."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_stop(self, how: signal.Signals) -> None:
        """Ask it to end, once: a second signal means "at once" to some programs. Does not wait."""
        if self._asked_at is None and self.exit_code is None:
            self._asked_at = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, how)

    def stop(self, how: signal.Signals, seconds: float) -> bool:
        """Ask it to end, wait until `seconds` after it was asked, and kill its group; whether it ended by itself."""
        self.ask_to_stop(how)
        waited = 0.0 if self._asked_at is None else time.monotonic() - self._asked_at
        ended = self.wait(max(0.0, seconds - waited))
        self.kill()
        return ended

    def kill(self) -> None:
        """Kill what is left of its group; a child that was stopped has nothing left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(KILL_WAIT_SECONDS)


class Starter(Protocol):
    """Starts processes that die with this one; Spawner and ForkServer do."""

    def spawn(self, launch: Launch) -> Child:
        """Start a process; raises OSError when its command can't be run or its log not written."""


class Spawner:
    """Starts children from one thread that lives until `close`; closing kills what still runs."""

    def __init__(self) -> None:
        """Start the thread with the first child."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spawner")
        self._children: list[Child] = []

    def spawn(self, launch: Launch) -> Child:
        """Start a process; raises OSError when its command can't be run or its log not written."""
        return self._thread.submit(self._spawn, launch).result()

    def _spawn(self, launch: Launch) -> Child:
        rotate(launch.log)
        with launch.log.open("ab") as log:
            process = subprocess.Popen(
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **launch.environment},
                cwd=launch.directory,
                start_new_session=True,
                pass_fds=launch.descriptors,
                preexec_fn=_dies_with_parent(launch.death_signal),  # noqa: PLW1509 - prctl only, see there
            )
        child = Child(launch.name, process)
        self._children = [each for each in self._children if each.exit_code is None] + [child]
        return child

    def close(self) -> None:
        """Kill what still runs and end the thread."""
        for child in self._children:
            child.kill()
        self._thread.shutdown()

    def __enter__(self) -> Self:
        """Use it in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close at the end of the block."""
        self.close()


def die_with_parent(how: signal.Signals = signal.SIGKILL) -> None:
    """Make this process get a signal when the thread that started it ends."""
    _PRCTL(PR_SET_PDEATHSIG, int(how))


def _dies_with_parent(how: signal.Signals | None) -> Callable[[], None] | None:
    """What the child runs between fork and exec: two system calls, no imports, no locks."""
    if how is None:
        return None
    parent, number = os.getpid(), int(how)

    def arm() -> None:
        _PRCTL(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # the parent was gone before the signal was armed
            os._exit(1)

    return arm


def rotate(log: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Move a log that grew too large aside, keeping the newest few."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if not log.exists() or log.stat().st_size <= bytes_max:
        return
    for number in range(LOG_FILES_MAX - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.replace(log.with_name(f"{log.name}.1"))
    log.with_name(f"{log.name}.{LOG_FILES_MAX}").unlink(missing_ok=True)


def truncate_live(log: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Bound the log of a running process: keep its newest part as `.1` and cut the file it appends to."""
    if not log.exists() or log.stat().st_size <= bytes_max:
        return
    with log.open("rb") as source:
        source.seek(-bytes_max // 2, os.SEEK_END)
        log.with_name(f"{log.name}.1").write_bytes(source.read())
    os.truncate(log, 0)


def last_line(log: Path) -> str:
    """The line of a log's end that tells most, shortened: a full disk, else the last one that is no frame of Java's.

    Empty when there is none.
    """
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            lines = [line.strip() for line in handle.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        return f"the disk under {log.parent.parent} is full: free some space and run it again"
    return next((line[:200] for line in reversed(lines) if line and not JAVA_FRAME.match(line)), "")


def started_at(pid: int) -> float | None:
    """When a process started, seconds since the epoch, which tells reused pids apart; None when it is gone."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
