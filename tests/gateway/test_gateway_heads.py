"""Heads and trailers over the limits, over a socket: refused as they come, recorded where a key had come."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from api import protocol
from schemas.events import Operation, RequestEvent, RequestKind
from schemas.limits import CONCURRENT_REQUESTS_MAX, HEADER_BYTES_MAX, HEADER_COUNT_MAX
from tests.support.gateway_socket import serving
from tests.support.gateway_world import KEY, REVOKED_KEY, World

AUTHORIZED = b"authorization: Bearer " + KEY.encode() + b"\r\n"
LARGE = b"x-large: " + b"x" * HEADER_BYTES_MAX + b"\r\n"
MANY = b"".join(b"h%d: x\r\n" % number for number in range(HEADER_COUNT_MAX))
pytestmark = pytest.mark.stack
CALL = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


async def exchanged(port: int, request: bytes) -> bytes:
    """What is answered to these bytes, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def sent(tmp_path: Path, head: bytes) -> tuple[bytes, World]:
    """The status answered to these bytes, and what is in the log when the server has ended."""
    async with World(tmp_path) as world:
        async with serving(world) as port:
            answer = await exchanged(port, head)
        return answer[9:12], world


@pytest.mark.parametrize(
    "head",
    [
        CALL + AUTHORIZED + LARGE + b"\r\n",
        CALL + AUTHORIZED + MANY + b"\r\n",
        CALL + AUTHORIZED + LARGE,
        CALL.replace(b"completions", b"completions?api-version=1") + MANY + AUTHORIZED + b"\r\n",
    ],
    ids=["large", "many", "endless", "key last"],
)
async def test_the_refusal_of_a_known_key_is_recorded(tmp_path: Path, head: bytes) -> None:
    """One REFUSED event that says whose it was, and nothing of the headers."""
    status, world = await sent(tmp_path, head)

    event = world.one(RequestEvent)
    assert (b"431", RequestKind.REFUSED, 431, "headers_too_large") == (
        status,
        event.kind,
        event.status_code,
        event.error_code,
    )
    assert ("key_a", Operation.CHAT_COMPLETIONS, {}) == (event.key_id, event.operation, event.tags)


@pytest.mark.parametrize(
    "head",
    [
        CALL + LARGE,
        CALL + MANY + b"authorization: Bearer qk_nobody\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + AUTHORIZED + MANY + b"\r\n",
        b"POST /elsewhere HTTP/1.1\r\n" + AUTHORIZED + MANY + b"\r\n",
    ],
    ids=["key not come yet", "nobody's key", "no call", "no path"],
)
async def test_without_a_known_key_or_a_call_nothing_is_recorded(tmp_path: Path, head: bytes) -> None:
    """431 all the same."""
    status, world = await sent(tmp_path, head)

    assert (b"431", []) == (status, world.kinds())


async def test_a_revoked_key_is_known(tmp_path: Path) -> None:
    """Its tenant still is."""
    _, world = await sent(tmp_path, CALL + AUTHORIZED.replace(KEY.encode(), REVOKED_KEY.encode()) + MANY + b"\r\n")

    assert "key_c" == world.one(RequestEvent).key_id


async def test_a_head_is_not_recorded_while_too_much_runs(tmp_path: Path) -> None:
    """It takes part in what one gateway does at once, as a call does."""
    world = World(tmp_path)
    async with world, serving(world) as port:
        world.parts.meters.in_flight = CONCURRENT_REQUESTS_MAX
        busy = await exchanged(port, CALL + AUTHORIZED + MANY + b"\r\n")
        while_busy = world.kinds()
        world.parts.meters.in_flight = 0
        calm = await exchanged(port, CALL + AUTHORIZED + MANY + b"\r\n")

    assert [b"431", b"431"] == [busy[9:12], calm[9:12]]
    assert ([], ["requests REFUSED"], 0) == (while_busy, world.kinds(), world.parts.meters.in_flight)


async def test_open_connections_are_no_load(tmp_path: Path) -> None:
    """However many ask for nothing; what is too much is refused in OpenAI's shape."""
    async with World(tmp_path) as world, serving(world, idle=100_000) as port:
        healthy = await exchanged(port, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        world.parts.meters.in_flight = CONCURRENT_REQUESTS_MAX
        busy = await exchanged(port, CALL + AUTHORIZED + b"content-length: 0\r\nconnection: close\r\n\r\n")

    assert (b"200", b"503") == (healthy[9:12], busy[9:12])
    assert b'"code":"overloaded"' in busy


async def test_without_kafka_it_is_answered_only(tmp_path: Path) -> None:
    """As every other refusal then: the spool is for what runs."""
    world = World(tmp_path)
    world.take_log_away()
    async with serving(world) as port:
        answer = await exchanged(port, CALL + AUTHORIZED + MANY + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 431")
    assert ([], 0) == (world.kinds(), world.journal.spooled_bytes)


CHUNKED = CALL + b"transfer-encoding: chunked\r\n"
#: A body of one byte, of which trailers are all that is missing.
BODY = b"1\r\nx\r\n0\r\n"
STRANGER = CHUNKED + b"\r\n" + BODY
KNOWN = CHUNKED + AUTHORIZED + b"\r\n" + BODY
#: More than everything between two ends of a connection can hold.
ENDLESS_BYTES = 64 * 1024 * 1024


async def bytes_taken(port: int, begin: bytes, more: bytes, *, answered: bool) -> int:
    """How much is taken after these bytes (and their answer) until the connection is cut off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    if answered:
        await reader.readuntil(b"\r\n\r\n")
    taken, piece = 0, more * (64 * 1024 // len(more))
    with contextlib.suppress(ConnectionError):
        while taken < ENDLESS_BYTES:
            writer.write(piece)
            await writer.drain()
            taken += len(piece)
    writer.close()
    return taken


@pytest.mark.parametrize(
    ("begin", "more", "answered"),
    [
        (STRANGER, b"a: b\r\n", True),
        (STRANGER, b"a", True),
        (STRANGER.removesuffix(b"0\r\n") + b"1;", b"a", True),
        (KNOWN, b"a: b\r\n", False),
    ],
    ids=["trailers", "one trailer", "what stands beside a chunk's length", "trailers before the answer"],
)
async def test_trailers_have_the_limit_of_heads(tmp_path: Path, begin: bytes, more: bytes, *, answered: bool) -> None:
    """Nothing of a request can be sent without end, least of all by somebody whom nobody knows."""
    async with World(tmp_path) as world, serving(world) as port:
        taken = await bytes_taken(port, begin, more, answered=answered)

    assert taken < ENDLESS_BYTES


@pytest.mark.parametrize("begin", [STRANGER, STRANGER + b"\r\n"], ids=["in its trailers", "when it was whole"])
async def test_a_request_that_was_answered_first_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    """Also where its body had begun before it was answered; what comes behind the answer keeps nothing open."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS_MAX", 0.2)
    async with World(tmp_path) as world, serving(world) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STRANGER)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"a: b\r\n" + begin.removeprefix(STRANGER))
        rest = await reader.read()
        writer.close()

    assert (b"401", b"") == (answer[9:12], rest.partition(b"}}")[2])


async def test_a_connection_outlives_a_request_that_was_answered_first(tmp_path: Path) -> None:
    """Its trailers come behind the answer, then the next request."""
    async with World(tmp_path) as world, serving(world) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STRANGER)
        await reader.readuntil(b"}}")
        writer.write(b"a: b\r\n\r\nGET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_trailer_is_no_header(tmp_path: Path) -> None:
    """A key behind the body is none, though all of it came at once: who stands before us has not seen it."""
    async with World(tmp_path) as world, serving(world) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STRANGER + AUTHORIZED + b"\r\n")
        answer = await reader.readuntil(b"}}")
        writer.close()

    assert b"missing_api_key" in answer
