"""BoundedProtocol: uvicorn's HTTP protocol with limits on all that is no body, refusing in the server's shape.

uvicorn's own has no bound on headers and trailers, waits for them for ever, and takes trailers for headers.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from schemas.limits import BODY_DROPPED_BYTES_MAX, HEADER_BYTES_MAX, HEADER_COUNT_MAX

#: From the first byte of a request (or the connection) to the first byte of its body; also from an answer that comes
#: before the end of its request to that end.
HEADER_SECONDS_MAX = 15.0
#: Of an answer that the caller is slow to take, so much must leave within so long.
TAKEN_BYTES_MIN = 64 * 1024
TAKEN_SECONDS = 30.0


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    @abstractmethod
    def refusal(self, status: HTTPStatus) -> tuple[bytes, bytes]:
        """Content type and body of a refusal: 431 for a head over the limits, 400 for bytes that are no HTTP."""

    def head_refused(self) -> None:
        """A head over the limits was answered; what was read of it stands in `url` and `headers`."""

    #: Bytes since the last of a body: of a head, of what stands between a body's chunks, of its trailers.
    _bare_bytes = 0
    #: Whether the head is whole and the request is not.
    _in_body = False
    _head_timer: asyncio.TimerHandle | None = None
    _taken_timer: asyncio.TimerHandle | None = None
    #: Of the body that comes after its answer.
    _dropped_bytes = 0
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Start waiting for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser in a way that no head or trailer grows over its limit, however it is cut into packets."""
        if self._refused:
            return
        self._bare_bytes += len(data)
        super().data_received(data)
        # A head, or a piece of a body, that ended within these bytes has set the count back.
        if self._bare_bytes <= HEADER_BYTES_MAX:
            return
        if self._in_body:  # it may have been answered
            self._hang_up()
        else:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        """The head is whole: judge it, then start the application."""
        self._bare_bytes, self._in_body = 0, True
        headers = self.headers
        size = len(self.url) + sum([len(name) + len(value) + 4 for name, value in headers])
        if len(headers) > HEADER_COUNT_MAX or size > HEADER_BYTES_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        super().on_headers_complete()
        # Trailers go here, where nobody reads them: none of them is a header, whatever its name.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Body bytes; those of a refused request are dropped."""
        self._bare_bytes = 0
        if self._is_answered():
            self._drop(len(body))
            return
        self._stop_timer()
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; what follows is a new head."""
        self._bare_bytes, self._dropped_bytes, self._in_body = 0, 0, False
        if self._is_answered():
            # uvicorn's own time for the next request ended with the first byte behind the answer.
            self._start_timer()
        else:
            self._stop_timer()
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The application has answered: the rest of the request, if any, is heard out, but not for ever."""
        super().on_response_complete()
        if self._in_body and self._is_answered():
            self._start_timer()

    def pause_writing(self) -> None:
        """Enough waits to be sent: the application waits too, but not for a caller who takes nothing."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It was taken."""
        self._stop_watching()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """The bytes are no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST)

    def _is_answered(self) -> bool:
        """Whether the application has answered the request of which more comes."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first one
        return cycle is not None and cycle.response_complete

    def _drop(self, size: int) -> None:
        """Hear the rest of a body out: who is cut off while sending may never read the answer. Not without end."""
        self._dropped_bytes += size
        if self._dropped_bytes > BODY_DROPPED_BYTES_MAX:
            self._hang_up()

    def _hang_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(HEADER_SECONDS_MAX, self._hang_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch(self) -> None:
        unsent_bytes = self.transport.get_write_buffer_size()
        self._taken_timer = self.loop.call_later(TAKEN_SECONDS, self._look, unsent_bytes)

    def _look(self, before_bytes: int) -> None:
        """Whether enough was taken since: to close would wait for the rest to be."""
        if before_bytes - self.transport.get_write_buffer_size() < TAKEN_BYTES_MIN:
            self.transport.abort()
        else:
            self._watch()

    def _stop_watching(self) -> None:
        if self._taken_timer is not None:
            self._taken_timer.cancel()
            self._taken_timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer in the server's shape and hang up."""
        if self._refused:
            return
        self._refused = True
        content_type, body = self.refusal(status)
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (content_type, len(body))
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
        if status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            self.head_refused()
