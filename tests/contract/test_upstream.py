"""What every Upstream must do, asked of the one in memory and of the one over HTTP against a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from api.providers.errors import (
    UpstreamError,
    UpstreamGarbageError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
    UpstreamUnreachableError,
)
from api.providers.memory import MemoryAnswer, MemoryUpstream
from api.providers.openai import HttpUpstream
from api.providers.upstream import Call, Upstream

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TIMEOUT_SECONDS = 0.3


class Behaving(Protocol):
    """How the provider behaves in a test, in terms of both implementations."""

    def __call__(self, how: str) -> Awaitable[tuple[Upstream, str]]:
        """An upstream and the URL of a provider that behaves so."""


@dataclass
class WireServer:
    """A TCP server that reads one request at a time and writes what it was told to."""

    script: list[bytes | float]
    requests: list[bytes]
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests of one connection until the script hangs up."""
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for step in self.script:
                    if isinstance(step, float):
                        await asyncio.sleep(step)
                    elif not step:
                        return
                    else:
                        writer.write(step)
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


WIRE: dict[str, list[bytes | float]] = {
    "plain": [PLAIN + b'{"a": true}'],
    "stream": [CHUNKED + b"3\r\none\r\n", 0.01, b"3\r\ntwo\r\n0\r\n\r\n"],
    "error": [b"HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}"],
    "silent": [60.0],
    "stalled": [CHUNKED + b"3\r\none\r\n", 60.0],
    "truncated": [PLAIN + b'{"a"', b""],
    "hangs up": [b""],
    "large": [b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5_000],
    "redirect": [b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"],
    "no http": [b"\x00\x01 this is no HTTP\r\n\r\n", b""],
}


def in_memory(how: str) -> MemoryAnswer | UpstreamError:
    """The same behaviour without a wire."""
    made: dict[str, Callable[[], MemoryAnswer | UpstreamError]] = {
        "plain": lambda: MemoryAnswer(200, [b'{"a": ', b"true}"], {"content-type": "application/json"}),
        "stream": lambda: MemoryAnswer(200, [b"one", b"two"]),
        "error": lambda: MemoryAnswer(429, [b"{}"], {"retry-after": "7"}),
        "silent": UpstreamTimeoutError,
        "stalled": lambda: MemoryAnswer(200, [b"one", UpstreamTimeoutError()]),
        "truncated": lambda: MemoryAnswer(200, [b'{"a"', UpstreamTruncatedError()]),
        "hangs up": UpstreamUnreachableError,
        "large": lambda: MemoryAnswer(200, [b"x" * 5_000]),
        "redirect": lambda: MemoryAnswer(302, []),
        "no http": UpstreamGarbageError,
    }
    return made[how]()


@pytest.fixture(params=["memory", "http"])
async def behaving(request: pytest.FixtureRequest) -> AsyncIterator[Behaving]:
    """A maker of providers, closed with their upstreams."""
    closers: list[Callable[[], Awaitable[None]]] = []

    async def make(how: str) -> tuple[Upstream, str]:
        if request.param == "memory":
            return MemoryUpstream(lambda _: in_memory(how)), "http://provider.test/v1"
        upstream = HttpUpstream()
        wire = WireServer(WIRE[how], [])
        server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)

        async def close() -> None:
            await upstream.close()
            server.close()

        closers.append(close)
        return upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    yield make
    for close in closers:
        await close()


def call(url: str, **fields: object) -> Call:
    """A call that gives up soon."""
    given = {"secret": None, "body": b"{}", "stream": False, "timeout_seconds": TIMEOUT_SECONDS}
    return Call(url, **given | fields)  # type: ignore[arg-type]  # by name


async def test_a_whole_body_is_read(behaving: Behaving) -> None:
    """However it is cut."""
    upstream, url = await behaving("plain")
    answer = await upstream.send(call(url))

    assert (200, {"a": True}) == (answer.status, json.loads(await answer.body()))


async def test_a_stream_comes_in_pieces_and_ends_empty(behaving: Behaving) -> None:
    """An empty piece is its proper end."""
    upstream, url = await behaving("stream")
    answer = await upstream.send(call(url, stream=True))
    pieces = []
    while piece := await answer.some():
        pieces.append(piece)

    assert b"onetwo" == b"".join(pieces)


async def test_an_error_is_an_answer(behaving: Behaving) -> None:
    """With its status, headers and body."""
    upstream, url = await behaving("error")
    answer = await upstream.send(call(url))

    assert (429, "7", b"{}") == (answer.status, answer.headers["retry-after"], await answer.body())


@pytest.mark.parametrize(
    ("how", "fault"),
    [("silent", UpstreamTimeoutError), ("hangs up", UpstreamUnreachableError), ("no http", UpstreamGarbageError)],
)
async def test_no_answer_is_a_fault_of_its_kind(behaving: Behaving, how: str, fault: type[UpstreamError]) -> None:
    """What the gateway must do follows from the class."""
    upstream, url = await behaving(how)

    with pytest.raises(fault):
        await upstream.send(call(url))


@pytest.mark.parametrize(("how", "fault"), [("stalled", UpstreamTimeoutError), ("truncated", UpstreamTruncatedError)])
async def test_an_answer_that_breaks_off_is_a_fault(behaving: Behaving, how: str, fault: type[UpstreamError]) -> None:
    """While the body is read."""
    upstream, url = await behaving(how)
    answer = await upstream.send(call(url))

    with pytest.raises(fault):
        await answer.body()


async def test_a_body_over_the_limit_is_garbage(behaving: Behaving) -> None:
    """It is not read to its end."""
    upstream, url = await behaving("large")
    answer = await upstream.send(call(url))

    with pytest.raises(UpstreamGarbageError):
        await answer.body(1_000)


async def test_redirects_are_not_followed(behaving: Behaving) -> None:
    """A credential goes only where it was meant to."""
    upstream, url = await behaving("redirect")

    assert 302 == (await upstream.send(call(url))).status


async def test_abort_is_harmless_after_the_end(behaving: Behaving) -> None:
    """Whoever reads may always abort."""
    upstream, url = await behaving("plain")
    answer = await upstream.send(call(url))
    await answer.body()
    answer.abort()

    assert 200 == (await upstream.send(call(url))).status


async def served(script: list[bytes | float]) -> tuple[WireServer, asyncio.Server, str]:
    """A wire server of a test's own."""
    wire = WireServer(script, [])
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    return wire, server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_connections_are_reused() -> None:
    """Many calls, one connection; also after a stream that was read to its end."""
    wire, server, url = await served(WIRE["stream"])
    upstream = HttpUpstream()
    for _ in range(3):
        answer = await upstream.send(call(url, stream=True))
        while await answer.some():
            pass
        answer.abort()
    await upstream.close()
    server.close()

    assert (1, 3) == (wire.connections, len(wire.requests))


async def test_what_is_sent_is_what_providers_expect() -> None:
    """A bearer token, JSON, no compression, and no header of the caller's."""
    wire, server, url = await served(WIRE["plain"])
    upstream = HttpUpstream()
    await (await upstream.send(call(url, secret="sk-provider", body=b'{"x":1}'))).body()
    await upstream.close()
    server.close()

    head, body = wire.requests[0].split(b"\r\n\r\n")
    names = {line.split(b": ")[0].lower(): line.split(b": ")[1] for line in head.split(b"\r\n")[1:]}
    assert (b"Bearer sk-provider", b"identity", b'{"x":1}') == (
        names[b"authorization"],
        names[b"accept-encoding"],
        body,
    )


async def test_a_closed_port_is_unreachable() -> None:
    """Nothing was used there."""
    _, server, url = await served([])
    server.close()
    await server.wait_closed()
    upstream = HttpUpstream()

    with pytest.raises(UpstreamUnreachableError):
        await upstream.send(call(url))
    await upstream.close()
