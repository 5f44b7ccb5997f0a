"""The seam to what a witness remembers: per log, the last checkpoint that it cosigned, as the note it shows.

`FileWitnessStore` and `MemoryWitnessStore` fill it; tests/contract/test_witness_store.py is their suite.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from processors.audit.witness import Answer, Cosigner, FollowedLogs, decide, origin_hash, origin_of
from sinks.audit.layout import Probe, no_probe
from sinks.audit.lock import FileLockStore


class WitnessStore(Protocol):
    """Keeps one note per origin. Calls block, from any thread."""

    def latest(self, origin: str) -> str | None:
        """The note of a log, None before the first; raises StoreUnavailableError and IntegrityError."""

    def swap(self, origin: str, old: str | None, new: str) -> bool:
        """Replace `old` by `new` in one step, durable on return; False, and nothing changed, when another one stands.

        Of several at once with the same `old`, one succeeds. Raises StoreUnavailableError; the change may then have
        happened or not.
        """


class FileWitnessStore:
    """A WitnessStore in a folder: a file per origin, each changed under a lock of its own."""

    def __init__(self, directory: Path, probe: Probe = no_probe) -> None:
        """Nothing is touched before it is needed."""
        self._directory = directory
        self._probe = probe

    def latest(self, origin: str) -> str | None:
        """As the seam says."""
        return self._file(origin).latest()

    def swap(self, origin: str, old: str | None, new: str) -> bool:
        """As the seam says."""
        return self._file(origin).swap(old, new)

    def _file(self, origin: str) -> FileLockStore:
        return FileLockStore(self._directory / f"{origin_hash(origin)}.checkpoint", self._probe)


class MemoryWitnessStore:
    """A WitnessStore in this process, for tests."""

    def __init__(self) -> None:
        """Empty."""
        self.notes: dict[str, str] = {}
        self._lock = threading.Lock()

    def latest(self, origin: str) -> str | None:
        """As the seam says."""
        return self.notes.get(origin)

    def swap(self, origin: str, old: str | None, new: str) -> bool:
        """As the seam says."""
        with self._lock:
            if self.notes.get(origin) != old:
                return False
            self.notes[origin] = new
            return True


def answer(store: WitnessStore, body: bytes, logs: FollowedLogs, cosigner: Cosigner, now_seconds: int) -> Answer:
    """A witness's answer to a request, remembered before it is given.

    Judged again when another request came in between, so that no two of the same old size both pass. Raises
    StoreUnavailableError and IntegrityError: then nothing may be answered but that.
    """
    origin = origin_of(body) or ""
    while True:
        latest = store.latest(origin) if origin in logs else None
        said, note = decide(latest, body, logs, cosigner, now_seconds)
        if note is None or store.swap(origin, latest, note):
            return said
