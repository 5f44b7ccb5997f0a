"""The lock store: the latest signed checkpoint, apart from the ledger database, changed only by compare-and-set.

It is what makes signing two histories impossible by accident: a checkpoint is published only after it stands here, and
a database that is behind what stands here is a restored backup. Put it where the database's administrators can't write.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from schemas.errors import StoreUnavailableError
from sinks.audit.files import disk, read_note, sync_folders, write_durable
from sinks.audit.layout import Probe, no_probe

#: How long another process may hold the second file before that is told; it holds it for two syncs of a disk.
HELD_SECONDS = 10.0
POLL_SECONDS = 0.02


class LockStore(Protocol):
    """Keeps one note. Calls block."""

    def latest(self) -> str | None:
        """The latest signed checkpoint, None before the first; raises StoreUnavailableError."""

    def swap(self, old: str | None, new: str) -> bool:
        """Replace `old` by `new`, durably; False, and nothing changed, when something else stands there.

        Raises StoreUnavailableError; the change may then have happened or not.
        """


class FileLockStore:
    """A LockStore in a file, under an exclusive lock of a second file."""

    def __init__(self, path: Path, probe: Probe = no_probe, held_seconds: float = HELD_SECONDS) -> None:
        """Nothing is touched before it is needed."""
        self._path = path
        self._probe = probe
        self._held_seconds = held_seconds

    def latest(self) -> str | None:
        """The latest signed checkpoint; raises StoreUnavailableError."""
        return read_note(self._path)

    def swap(self, old: str | None, new: str) -> bool:
        """Compare and set, with both files' folder synced; raises StoreUnavailableError."""
        with disk(self._path), held(self._path.with_suffix(".lock"), self._held_seconds):
            if read_note(self._path) != old:
                return False
            write_durable(self._path, new.encode("utf-8"), self._probe)
            # The folder may have been made for this very file.
            sync_folders([self._path.parent, self._path.parent.parent])
            return True


@contextmanager
def held(path: Path, held_seconds: float = HELD_SECONDS) -> Iterator[None]:
    """Hold a file that one process at a time may hold; raises StoreUnavailableError when another does for too long."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("ab") as file:
        deadline = time.monotonic() + held_seconds
        while not _taken(file):
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"{file.name} is held by a process that stands still: end it")
            time.sleep(POLL_SECONDS)
        yield


def _taken(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class MemoryLockStore:
    """A LockStore in this process, for tests."""

    def __init__(self) -> None:
        """Empty."""
        self.note: str | None = None

    def latest(self) -> str | None:
        """The latest signed checkpoint."""
        return self.note

    def swap(self, old: str | None, new: str) -> bool:
        """Compare and set."""
        if self.note != old:
            return False
        self.note = new
        return True
