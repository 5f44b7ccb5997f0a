"""One pipelined connection to Redis: many callers await, one write per turn of the loop carries their commands.

Two calls per request sit on the gateway's hot path; this costs a few microseconds of client time per call where a
connection pool costs tens (docs/decisions/0051). Replies come in the order of the commands, so nothing is matched up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from schemas.errors import StoreUnavailableError

#: Commands under way at once; more means that the server has stopped answering.
PENDING_MAX = 20_000

Argument = str | bytes | int


class ReplyError(StoreUnavailableError):
    """Redis answered with an error."""


class PipelinedConnection(asyncio.Protocol):
    """The wire: `call` appends a command and answers a future; replies resolve the futures in order.

    When the connection ends, every future under way fails with StoreUnavailableError: whether its command was executed
    is unknown then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Made by loop.create_connection."""
        self._loop = loop
        self._reader = hiredis.Reader()
        self._pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.closed = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Resolve the futures of complete replies."""
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                future = self._pending.popleft()[0]
                if future.done():
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    future.set_exception(ReplyError(str(reply)))
                else:
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail everything under way."""
        self._transport = None
        for future, _ in self._pending:
            if not future.done():
                future.set_exception(StoreUnavailableError(f"the connection to Redis ended: {exc or 'closed'}"))
        self._pending.clear()
        if not self.closed.done():
            self.closed.set_result(None)

    def call(self, command: tuple[Argument, ...]) -> asyncio.Future[Any]:
        """Send a command; raises StoreUnavailableError when the connection has ended or is full."""
        if self._transport is None or len(self._pending) >= PENDING_MAX:
            raise StoreUnavailableError("the connection to Redis is closed or full")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append((future, self._loop.time()))
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows one word
        return future

    def waiting_seconds(self) -> float:
        """How long the oldest command under way has waited; 0 when there is none."""
        return self._loop.time() - self._pending[0][1] if self._pending else 0.0

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None:
            self._transport.write(b"".join(outgoing))


def text(value: Any) -> str:
    """A reply as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def texts(values: Sequence[Any]) -> list[str]:
    """Replies as texts; nothing becomes an empty text."""
    return ["" if value is None else text(value) for value in values]
