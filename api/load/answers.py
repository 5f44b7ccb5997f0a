"""The answers file of a run: one JSON line per answer, on disk as soon as the answer is there."""

from __future__ import annotations

import contextlib
import errno
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schemas.errors import ConfigurationError


class AnswersFile:
    """An answers file being written. Everything raises ConfigurationError when it can't be, saying why."""

    def __init__(self, path: Path) -> None:
        """Begin the file anew."""
        self._path = path
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise self._unwritten(error) from None

    def write(self, answer: dict[str, Any]) -> None:
        """Add an answer."""
        try:
            self._file.write(json.dumps(answer) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritten(error) from None

    def __enter__(self) -> Self:
        """Nothing more: it is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go; what could not be written has been told."""
        with contextlib.suppress(OSError):  # every line was flushed, or its fault is on its way
            self._file.close()

    def _unwritten(self, error: OSError) -> ConfigurationError:
        room = "free some space or " if error.errno == errno.ENOSPC else ""
        return ConfigurationError(
            f"cannot write the answers file {self._path}: {error.strerror}; {room}name another with --answers"
        )
