"""HttpUpstream: OpenAI-compatible servers over HTTP, on one bounded pool of connections per process."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Hashable
from typing import Any, NamedTuple

import aiohappyeyeballs
from yarl import URL

from api.providers.connection import Connection, HttpAnswer
from api.providers.errors import UpstreamUnreachableError
from api.providers.upstream import Call
from schemas import limits

#: Shorter than the keep-alive of common servers (five seconds), so that a pooled connection is not closed under us.
KEEPALIVE_SECONDS = 4.0
#: Between the begins of two attempts at the addresses of one host (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25
CALL_SECONDS_MIN = 0.1
HEADS_CACHED_MAX = 256
USER_AGENT = "quaestor"


class Place(NamedTuple):
    """Where connections go."""

    host: str
    port: int
    secure: bool


class Head(NamedTuple):
    """What calls to one URL under one credential begin with; the length of the body follows."""

    place: Place
    text: bytes


class HttpUpstream:
    """An Upstream over HTTP/1.1. Redirects are not followed: a credential goes only where it was meant to."""

    def __init__(self, connections_max: int = limits.CONCURRENT_REQUESTS_MAX) -> None:
        """Connects nothing yet; a call that finds `connections_max` of them busy is refused."""
        self._connections_max = connections_max
        self._open: dict[Connection, Place] = {}
        self._connecting = 0
        #: Connections without a call, the last used one last.
        self._idle: dict[Place, list[Connection]] = {}
        self._heads: dict[Hashable, Head] = {}
        self._security: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(self, call: Call) -> HttpAnswer:
        """As the seam says."""
        loop = asyncio.get_running_loop()
        until = loop.time() + max(call.timeout_seconds, CALL_SECONDS_MIN)
        head = self._head(call)
        connection = self._take(head.place, loop.time()) or await self._connect(loop, head.place, until)
        answer = connection.send(b"%b%d\r\n\r\n%b" % (head.text, len(call.body), call.body), until)
        await answer.begun()
        return answer

    async def close(self) -> None:
        """As the seam says."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        closing = list(self._open)
        for connection in closing:
            connection.close()
        await asyncio.gather(*(connection.closed for connection in closing))

    def _head(self, call: Call) -> Head:
        known = (call.url, call.secret, call.stream)
        head = self._heads.get(known)
        if head is None:
            if len(self._heads) >= HEADS_CACHED_MAX:
                self._heads.clear()
            head = self._heads[known] = _head(call)
        return head

    def _take(self, place: Place, now: float) -> Connection | None:
        """A connection that has been silent for a short time only."""
        idle = self._idle.get(place)
        while idle:
            connection = idle.pop()
            if connection.usable and connection.idle_since > now - KEEPALIVE_SECONDS:
                return connection
            connection.close()
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop, place: Place, until: float) -> Connection:
        if len(self._open) + self._connecting >= self._connections_max and not self._drop_idle():
            raise UpstreamUnreachableError("every connection is busy")
        self._connecting += 1
        try:
            async with asyncio.timeout(min(limits.CONNECT_TIMEOUT_SECONDS, until - loop.time())):
                connection = await self._connected(loop, place)
        except TimeoutError as error:
            raise UpstreamUnreachableError("no connection in time") from error
        except (OSError, ValueError) as error:  # a host name that is none is a ValueError
            raise UpstreamUnreachableError(f"no answer: {type(error).__name__}") from error
        finally:
            self._connecting -= 1
        if not connection.usable:
            raise UpstreamUnreachableError("no answer: the connection was closed")
        self._open[connection] = place
        return connection

    async def _connected(self, loop: asyncio.AbstractEventLoop, place: Place) -> Connection:
        addresses = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        wire = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, loop=loop)
        try:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            secured: dict[str, Any] = {"ssl": self._context(), "server_hostname": place.host} if place.secure else {}
            _, connection = await loop.create_connection(lambda: Connection(loop, self._freed), sock=wire, **secured)
        except BaseException:  # also when cancelled: the socket must not stay open
            wire.close()
            raise
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._security is None:
            self._security = ssl.create_default_context()
            self._security.set_alpn_protocols(["http/1.1"])
        return self._security

    def _freed(self, connection: Connection) -> None:
        """A connection has no call any more, or has ended."""
        if not connection.usable:
            place = self._open.pop(connection, None)
            if place is not None and connection in (idle := self._idle.get(place, [])):
                idle.remove(connection)
            return
        self._idle.setdefault(self._open[connection], []).append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Hang up where nothing was said for KEEPALIVE_SECONDS; looks again while there are connections."""
        loop = asyncio.get_running_loop()
        since = loop.time() - KEEPALIVE_SECONDS
        for idle in self._idle.values():
            for connection in [one for one in idle if one.idle_since <= since]:
                idle.remove(connection)
                connection.close()
        self._idle = {place: idle for place, idle in self._idle.items() if idle}
        self._sweeper = loop.call_later(KEEPALIVE_SECONDS / 2, self._sweep) if self._idle else None

    def _drop_idle(self) -> bool:
        """Hang up on the connection without a call that has been so for longest; whether there was one."""
        idle = min((idle for idle in self._idle.values() if idle), key=lambda one: one[0].idle_since, default=None)
        if idle is None:
            return False
        idle.pop(0).close()
        return True


def _head(call: Call) -> Head:
    """Raises UpstreamUnreachableError for a URL or credential that can't be sent."""
    try:
        url = URL(call.url)
        text = _text(url, call).encode("ascii")
    except ValueError as error:
        raise UpstreamUnreachableError(f"the call can't be sent: {type(error).__name__}") from error
    if not url.raw_host or not url.port or url.scheme not in {"http", "https"}:
        raise UpstreamUnreachableError("the call can't be sent: no http URL")
    return Head(Place(url.raw_host, url.port, url.scheme == "https"), text)


def _text(url: URL, call: Call) -> str:
    """Raises ValueError for what would not stay on its line."""
    lines = [
        f"POST {url.raw_path_qs} HTTP/1.1",
        f"Host: {url.host_port_subcomponent}",
        "Content-Type: application/json",
        f"Accept: {'text/event-stream' if call.stream else 'application/json'}",
        "Accept-Encoding: identity",
        f"User-Agent: {USER_AGENT}",
        *([] if call.secret is None else [f"Authorization: Bearer {call.secret}"]),
        "Content-Length: ",
    ]
    if not all(line.isprintable() for line in lines):
        raise ValueError("a line of the head")
    return "\r\n".join(lines)
