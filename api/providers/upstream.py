"""The seam to providers: one call out, one answer back, as bytes.

`HttpUpstream` (openai.py) and `MemoryUpstream` (memory.py) fill it; tests/contract/test_upstream.py is their suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from schemas import limits

#: Answer headers that concern us; all others are dropped.
RETRY_AFTER = "retry-after"
CONTENT_TYPE = "content-type"


class Call(NamedTuple):
    """One request to a provider."""

    url: str
    #: The bearer token; None when the provider needs none.
    secret: str | None
    body: bytes
    #: Whether the answer is to be a stream of server-sent events.
    stream: bool
    #: From sending to the end of the answer, seconds.
    timeout_seconds: float


class Answer(Protocol):
    """A provider's answer whose headers have come. Read it to its end or abort it, always one of them."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers, case-insensitive by lower-case name."""

    async def body(self, bytes_max: int = limits.RESPONSE_BYTES_MAX) -> bytes:
        """The whole body; raises UpstreamTimeoutError, UpstreamTruncatedError, UpstreamGarbageError (too long)."""

    async def some(self) -> bytes:
        """What has come of the body, as soon as there is something; empty at its proper end. Raises as `body` does."""

    def abort(self) -> None:
        """Hang up, so that the provider stops; harmless after the end."""


class Upstream(Protocol):
    """Calls providers. Safe for many calls at once on one loop."""

    async def send(self, call: Call) -> Answer:
        """Send and wait for the answer's headers; raises UpstreamUnreachableError or UpstreamTimeoutError."""

    async def close(self) -> None:
        """Let go of the connections."""
