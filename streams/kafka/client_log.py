"""What librdkafka has to say, a line now and then: a broker that is away makes it say the same hundreds of times."""

from __future__ import annotations

import logging
import time
from typing import Any

#: The same kind of line comes again after this.
SILENT_SECONDS = 10.0
KINDS_MAX = 100


class ClientLog:
    """Takes the place of a logger in a client's configuration; one per client. Commands show nothing of it."""

    def __init__(self) -> None:
        """Lines go to the logger `quaestor.kafka`, and nowhere when nobody set up logging."""
        self._logger = logging.getLogger("quaestor.kafka")
        if not self._logger.handlers:
            self._logger.addHandler(logging.NullHandler())
        self._said_at: dict[Any, float] = {}

    def log(self, level: int, text: str, *arguments: Any) -> None:
        """One line of the client; its kind is librdkafka's facility, the first argument."""
        kind = arguments[0] if arguments else text
        now = time.monotonic()
        if now - self._said_at.get(kind, -SILENT_SECONDS) < SILENT_SECONDS:
            return
        if len(self._said_at) >= KINDS_MAX:
            self._said_at.clear()
        self._said_at[kind] = now
        self._logger.log(level, text, *arguments)
