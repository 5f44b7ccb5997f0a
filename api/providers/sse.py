"""Server-sent events as bytes: splits a byte stream into whole events without touching them.

An event keeps its own bytes, terminator included, so that it can be forwarded as it came.
"""

from __future__ import annotations

import re

from api.providers.errors import UpstreamGarbageError
from schemas.limits import SSE_LINE_BYTES_MAX

#: Two line ends in a row; each is CRLF, LF or CR. Atomic, or one CRLF would count as two.
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
DONE = b"[DONE]"


class EventSplitter:
    """Collects bytes, gives whole events."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that these bytes complete; raises UpstreamGarbageError when one grows over its limit."""
        if self._rest:
            data = self._rest + data
        if b"\r" in data:
            return self._feed_slowly(data)
        *events, self._rest = data.split(b"\n\n")
        self._check()
        return [event + b"\n\n" for event in events]

    def rest(self) -> bytes:
        """What follows the last whole event; some providers leave out the last terminator."""
        return self._rest

    def _feed_slowly(self, data: bytes) -> list[bytes]:
        events, start = [], 0
        for end in _EVENT_END.finditer(data):
            events.append(data[start : end.end()])
            start = end.end()
        self._rest = data[start:]
        self._check()
        return events

    def _check(self) -> None:
        if len(self._rest) > SSE_LINE_BYTES_MAX:
            raise UpstreamGarbageError(f"an event of the stream is over {SSE_LINE_BYTES_MAX} bytes")


def data_of(event: bytes) -> bytes | None:
    """The data of an event, its lines joined by LF; None for a comment or an event without data."""
    if event.startswith(b"data: ") and event.find(b"\n", 6) == len(event) - 2 and event.find(b"\r", 6) < 0:
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def event_of(data: bytes) -> bytes:
    """An event with this data, which holds no line end."""
    return b"data: " + data + b"\n\n"
