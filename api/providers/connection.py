"""One HTTP/1.1 connection to a provider, and the answers that come over it, one after the other.

Written for the gateway's hot path (docs/decisions/0141): the request is written at once, httptools reads the answer,
and a task is woken only when it waits for something that has not come yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

import httptools

from api.providers.errors import (
    UpstreamError,
    UpstreamGarbageError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
    UpstreamUnreachableError,
)
from schemas.limits import RESPONSE_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX

#: Bytes of an answer that nobody has taken yet: with more, the connection is not read until they are.
UNREAD_BYTES_MAX = 256 * 1024
PARSER_FAULTS = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class HttpAnswer:
    """An Answer over HTTP. It outlives its connection, which may carry the next call once this one has all come."""

    __slots__ = ("_connection", "_ended", "_fault", "_pieces", "_unread_bytes", "_waiter", "headers", "status")

    def __init__(self, connection: Connection) -> None:
        """Nothing has come yet."""
        self._connection: Connection | None = connection
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._ended = False
        self._fault: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def body(self, bytes_max: int = RESPONSE_BYTES_MAX) -> bytes:
        """As the seam says."""
        if int(self.headers.get("content-length", 0)) > bytes_max:
            raise self._too_long(bytes_max)
        parts, size = [], 0
        while data := await self.some():
            parts.append(data)
            size += len(data)
            if size > bytes_max:
                raise self._too_long(bytes_max)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def some(self) -> bytes:
        """As the seam says."""
        while not self._pieces:
            if self._fault is not None:
                raise self._fault
            if self._ended:
                return b""
            await self._more()
        pieces, self._pieces = self._pieces, []
        self._unread_bytes = 0
        if self._connection is not None:
            self._connection.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def abort(self) -> None:
        """As the seam says."""
        if self._connection is not None:
            self.failed(UpstreamTruncatedError("the call was given up"))

    # From here on for the connection.

    async def begun(self) -> None:
        """Return when status and headers are there; raises what `send` raises."""
        while not self.status:
            if self._fault is not None:
                raise self._fault
            await self._more()

    def begins(self, status: int, headers: Mapping[str, str]) -> None:
        """Status and headers have come."""
        self.status, self.headers = status, headers
        self._wake()

    def came(self, data: bytes) -> None:
        """A part of the body has come."""
        self._pieces.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > UNREAD_BYTES_MAX and self._connection is not None:
            self._connection.pause()
        self._wake()

    def ends(self) -> None:
        """The whole body has come."""
        self._ended, self._connection = True, None
        self._wake()

    def failed(self, fault: UpstreamError) -> None:
        """Nothing more will come, for this reason; hangs up."""
        connection, self._connection = self._connection, None
        self._fault = self._fault or fault
        self._wake()
        if connection is not None:
            connection.close()

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _too_long(self, bytes_max: int) -> UpstreamGarbageError:
        self.abort()
        return UpstreamGarbageError(f"the answer is over {bytes_max} bytes")


class Connection(asyncio.Protocol):
    """A connection that carries one call at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_free: Callable[[Connection], None]) -> None:
        """`on_free` is called when an answer has all come, and once when the connection ends."""
        self._loop, self._on_free = loop, on_free
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: HttpAnswer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._headers: dict[str, str] = {}
        #: Bytes that have come since the last of a body, and whether there was a body in what is being read.
        self._head_bytes, self._has_body = 0, False
        #: Whether the body ends with the connection, and whether the connection is good for another call.
        self._until_closed = self._reusable = False
        self._paused = False
        #: Since when it carries nothing, by the loop's clock.
        self.idle_since = 0.0
        #: Done when the connection has ended.
        self.closed: asyncio.Future[None] = loop.create_future()

    @property
    def usable(self) -> bool:
        """Whether a call may be sent."""
        return self._transport is not None and not self._transport.is_closing() and self._answer is None

    def send(self, request: bytes, until: float) -> HttpAnswer:
        """Write a request; its answer fails when it has not all come by `until` (the loop's clock).

        Only while `usable`.
        """
        answer = self._answer = HttpAnswer(self)
        self._headers, self._head_bytes, self._reusable = {}, 0, False
        self._timer = self._loop.call_at(until, self._too_late)
        if self._transport is not None:
            self._transport.write(request)
        return answer

    def pause(self) -> None:
        """Read nothing for now."""
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and self._paused:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read what has come; bytes that nobody asked for end the connection."""
        answer = self._answer
        if answer is None:
            self.close()
            return
        self._has_body = False
        try:
            self._parser.feed_data(data)
        except PARSER_FAULTS as error:
            self._broken(answer, type(error).__name__)
            return
        if self._answer is None:
            self._free()
            return
        self._head_bytes = 0 if self._has_body else self._head_bytes + len(data)
        if self._head_bytes > RESPONSE_HEAD_BYTES_MAX:
            self._broken(answer, "a head over its limit")

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever has not come yet will not come."""
        self._transport = None
        self._stop_timer()
        answer, self._answer = self._answer, None
        if answer is not None:
            reason = type(exc).__name__ if exc else "the connection was closed"
            if not answer.status:
                answer.failed(UpstreamUnreachableError(f"no answer: {reason}"))
            elif self._until_closed and exc is None:
                answer.ends()
            else:
                answer.failed(UpstreamTruncatedError(f"the answer broke off: {reason}"))
        self.closed.set_result(None)
        self._on_free(self)

    # The parser's side.

    def on_message_begin(self) -> None:
        """An answer begins: no second one was asked for."""
        if self._answer is None:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; of a repeated one the last stands, and what follows a body is none."""
        if self._answer is not None and not self._answer.status:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is whole; that of an interim answer is passed over."""
        status, answer, headers = self._parser.get_status_code(), self._answer, self._headers
        if answer is None or status < 200:  # noqa: PLR2004 - informational, as HTTP says
            self._headers = {}
            return
        coding = headers.get("transfer-encoding", "").lower()
        self._until_closed = not coding.endswith("chunked") if coding else "content-length" not in headers
        answer.begins(status, headers)

    def on_body(self, data: bytes) -> None:
        """Bytes of the body."""
        self._has_body = True
        if self._answer is not None:
            self._answer.came(data)

    def on_message_complete(self) -> None:
        """The answer has all come."""
        answer = self._answer
        if answer is not None and answer.status:
            self._answer, self._reusable = None, self._parser.should_keep_alive()
            answer.ends()

    def _free(self) -> None:
        """The answer has all come: wait for the next call, or end. A request that was answered half sent is no good."""
        self._stop_timer()
        if self._reusable and self._transport is not None and not self._transport.get_write_buffer_size():
            self.resume()
            self.idle_since = self._loop.time()
            self._on_free(self)
        else:
            self.close()

    def _too_late(self) -> None:
        if self._answer is not None:
            self._answer.failed(UpstreamTimeoutError())

    def _broken(self, answer: HttpAnswer, reason: str) -> None:
        if answer.status:
            answer.failed(UpstreamTruncatedError(f"the answer broke off: {reason}"))
        else:
            answer.failed(UpstreamGarbageError(f"the answer is no HTTP: {reason}"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
