"""The egress log of a simulated provider: which calls really reached it, one JSON line each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from api.providers.simulator.failures import Failure
from schemas.errors import ConfigurationError

#: Headers that say for whom a call was made.
NOTED = {b"x-request-id", b"x-quaestor-request-id", b"x-quaestor-attempt-id", b"traceparent"}


class EgressLog:
    """Appends a line per call and flushes it at once, so that a test can read it while the process runs."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending; raises ConfigurationError when it can't be."""
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise ConfigurationError(f"egress log {path}: {error.strerror}") from None

    def note(
        self, number: int, path: str, model: str, failure: Failure | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Append the call: its number, path, model, planned failure and the headers that identify it."""
        ids = {name.decode(): value.decode("latin-1") for name, value in headers if name in NOTED}
        line = {"number": number, "path": path, "model": model, "fail": failure and failure.value} | ids
        self._file.write(msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
