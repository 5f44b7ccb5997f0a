"""Link: one connection to one broker. Questions go out at once, answers come back in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from schemas.errors import LogUnavailableError
from streams.kafka.requests import INT, head

#: An answer to any of our questions is far smaller.
ANSWER_BYTES_MAX = 8 * 1024 * 1024
#: Takes an answer without its correlation; None when the connection ended before it came.
Answered = Callable[[bytes | None], None]


class Link(asyncio.Protocol):
    """The wire. Made by `loop.create_connection`; owned by its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client_id: str) -> None:
        """`client_id` is what the broker's own logs and quotas call us."""
        self._loop, self._client_id = loop, client_id
        self._transport: asyncio.Transport | None = None
        self._asked: deque[tuple[int, float, Answered]] = deque()
        self._correlation = 0
        self._came = bytearray()

    @property
    def is_open(self) -> bool:
        """Whether questions can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_busy(self) -> bool:
        """Whether an answer is waited for."""
        return bool(self._asked)

    def waited_seconds(self) -> float:
        """How long the oldest question has waited for its answer; 0 when there is none."""
        return self._loop.time() - self._asked[0][1] if self._asked else 0.0

    def ask(self, question: tuple[int, int], body: Sequence[bytes], answered: Answered) -> None:
        """Ask; `answered` is called once, from the loop, at once when the connection is gone already."""
        if self._transport is None:
            answered(None)
            return
        self._correlation = self._correlation + 1 & 0x7FFF_FFFF
        begin = head(question, self._correlation, self._client_id)
        length = INT.pack(len(begin) + sum(map(len, body)))
        self._asked.append((self._correlation, self._loop.time(), answered))
        self._transport.write(b"".join((length, begin, *body)))

    async def answer(self, question: tuple[int, int], body: bytes) -> bytes:
        """Ask and wait; raises LogUnavailableError when the connection ends before the answer."""
        future: asyncio.Future[bytes | None] = self._loop.create_future()
        self.ask(question, [body], lambda answer: None if future.done() else future.set_result(answer))
        answer = await future
        if answer is None:
            raise LogUnavailableError
        return answer

    def abort(self) -> None:
        """Hang up at once; what was asked is not answered any more."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        while self._asked:
            self._asked.popleft()[2](None)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand out the answers that are whole; what nobody asked for ends the connection."""
        self._came += data
        while len(self._came) >= INT.size:
            (length,) = INT.unpack_from(self._came)
            if not INT.size <= length <= ANSWER_BYTES_MAX:
                self.abort()
                return
            end = INT.size + length
            if len(self._came) < end:
                return
            answer = bytes(self._came[INT.size : end])
            del self._came[:end]
            if not self._asked or self._asked[0][0] != INT.unpack_from(answer)[0]:
                self.abort()
                return
            self._asked.popleft()[2](answer[INT.size :])

    def connection_lost(self, _: Exception | None) -> None:
        """The broker hung up, or the network."""
        self.abort()
