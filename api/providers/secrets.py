"""Providers' credentials by reference: `env:NAME` or `file:PATH`, resolved when used and kept for a short while.

Nothing here logs a value, and no error names one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from api.providers.errors import SecretUnavailableError

KEPT_SECONDS = 30.0
SECRETS_CACHED_MAX = 1_000
SECRET_BYTES_MAX = 16 * 1024


class Secrets:
    """Resolves references; a changed file or variable is seen within `kept_seconds`."""

    def __init__(self, kept_seconds: float = KEPT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        """Read nothing yet."""
        self._kept_seconds, self._clock = kept_seconds, clock
        self._values: dict[str, tuple[float, str]] = {}

    def __repr__(self) -> str:
        """Counts, never contents."""
        return f"Secrets({len(self._values)} kept)"

    def resolve(self, reference: str | None) -> str | None:
        """The value of a reference, None for none; raises SecretUnavailableError, which names the reference only."""
        if reference is None:
            return None
        now = self._clock()
        kept = self._values.get(reference)
        if kept is not None and now < kept[0]:
            return kept[1]
        value = _read(reference)
        if len(self._values) >= SECRETS_CACHED_MAX:
            self._values.clear()
        self._values[reference] = (now + self._kept_seconds, value)
        return value


def _read(reference: str) -> str:
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = os.environ.get(name, "")
    elif kind == "file":
        value = _read_file(reference, name)
    else:
        raise SecretUnavailableError(f"{reference!r} is neither env:NAME nor file:PATH")
    value = value.strip()
    if not value:
        raise SecretUnavailableError(f"{reference} is empty or not set")
    if not value.isascii() or not value.isprintable():
        raise SecretUnavailableError(f"{reference} does not hold one line of text")
    return value


def _read_file(reference: str, name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return file.read(SECRET_BYTES_MAX).decode("ascii", "replace")
    except OSError as error:
        raise SecretUnavailableError(f"{reference}: {error.strerror}") from None
