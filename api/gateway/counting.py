"""Counting: tokens of a request, off the loop, one request after the other."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from api.gateway.intake import Ask
from api.providers.tokens import TokenCounter
from processors.estimation import Counted, texts_of
from schemas.limits import COUNTS_WAITING_MAX


class Counting:
    """A TokenCounter in a thread of its own. Owned by one event loop."""

    def __init__(self, counter: TokenCounter) -> None:
        """The thread begins with the first count."""
        self._counter = counter
        self._threads = ThreadPoolExecutor(1, "tokens")
        self._waiting = 0

    async def count(self, encoding: str, ask: Ask) -> Counted | None:
        """The tokens of the request's texts; None when the encoding can't be had, or too many wait for theirs."""
        if self._waiting >= COUNTS_WAITING_MAX:
            return None
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._count, encoding, ask)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Give up what still waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _count(self, encoding: str, ask: Ask) -> Counted | None:
        found = texts_of(ask.operation, ask.prompt)
        tokens = self._counter.count(encoding, found.texts)
        return None if tokens is None else Counted(tokens, found.json_bytes)
