"""HttpUpstream alone: what servers do with a connection, and what becomes of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from api.providers.connection import UNREAD_BYTES_MAX
from api.providers.errors import UpstreamGarbageError, UpstreamTruncatedError, UpstreamUnreachableError
from api.providers.openai import HttpUpstream
from api.providers.upstream import Call
from schemas.limits import RESPONSE_HEAD_BYTES_MAX
from tests.support.certificates import loopback_context

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = OK + b"content-length: 2\r\n\r\n{}"
CALL_SECONDS = 20.0
#: Turns of the loop in which more would come if it were read.
TURNS = 200


class Server:
    """Answers every request of a connection with the same pieces, a turn of the loop apart; then hangs up, or not."""

    def __init__(self, pieces: list[bytes], *, hangs_up: bool = False) -> None:
        """Nothing has come yet."""
        self.pieces, self.hangs_up = pieces, hangs_up
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.hold: asyncio.Event | None = None
        self.security: ssl.SSLContext | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.writers.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2)
                if self.hold is not None:
                    await self.hold.wait()
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                if self.hangs_up:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


Serving = Callable[[Server], Awaitable[str]]


@pytest.fixture
async def upstream() -> AsyncIterator[HttpUpstream]:
    """An upstream with room for two connections."""
    made = HttpUpstream(connections_max=2)
    yield made
    await made.close()


@pytest.fixture
async def url_of() -> AsyncIterator[Serving]:
    """Starts servers and says where; they end with the test."""
    started: list[asyncio.Server] = []

    async def start(server: Server) -> str:
        started.append(await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server.security))
        scheme = "https" if server.security else "http"
        return f"{scheme}://127.0.0.1:{started[-1].sockets[0].getsockname()[1]}/v1"

    yield start
    for one in started:
        one.close()


def call(url: str, secret: str | None = None) -> Call:
    """A call that waits for long."""
    return Call(url, secret, b"{}", False, CALL_SECONDS)


async def body_of(upstream: HttpUpstream, url: str) -> bytes:
    """What a call brings."""
    return await (await upstream.send(call(url))).body()


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
async def test_an_answer_may_be_cut_anywhere(upstream: HttpUpstream, url_of: Serving, cut: int) -> None:
    """Head, length and body come whole out of two packets."""
    url = await url_of(Server([WHOLE[:cut], WHOLE[cut:]]))

    assert await body_of(upstream, url) == b"{}"


async def test_an_interim_answer_is_passed_over(upstream: HttpUpstream, url_of: Serving) -> None:
    """100 Continue is not the answer."""
    url = await url_of(Server([b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE]))

    assert await body_of(upstream, url) == b"{}"


async def test_a_body_may_end_with_its_connection(upstream: HttpUpstream, url_of: Serving) -> None:
    """Without a length and without chunks that is its proper end."""
    url = await url_of(Server([OK + b"\r\n", b"{", b"}"], hangs_up=True))

    assert await body_of(upstream, url) == b"{}"


async def test_chunks_that_stop_are_no_end(upstream: HttpUpstream, url_of: Serving) -> None:
    """The last chunk is the end, not the hang-up."""
    url = await url_of(Server([OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"], hangs_up=True))
    answer = await upstream.send(call(url))

    with pytest.raises(UpstreamTruncatedError):
        await answer.body()


@pytest.mark.parametrize(
    "unfit",
    [WHOLE + b"HTTP/1.1 200 OK\r\n", OK + b"connection: close\r\ncontent-length: 2\r\n\r\n{}"],
    ids=["more bytes than were asked for", "connection: close"],
)
async def test_an_unfit_connection_is_not_used_again(upstream: HttpUpstream, url_of: Serving, unfit: bytes) -> None:
    """What comes after an answer could be taken for the next one."""
    server = Server([unfit])
    url = await url_of(server)
    for _ in range(2):
        await body_of(upstream, url)

    assert server.connections == 2


async def test_bytes_for_nobody_end_a_connection(upstream: HttpUpstream, url_of: Serving) -> None:
    """A server that speaks out of turn is not believed."""
    server = Server([WHOLE])
    url = await url_of(server)
    await body_of(upstream, url)
    (connection,) = upstream._open
    server.writers[0].write(WHOLE)
    async with asyncio.timeout(CALL_SECONDS):
        await connection.closed
    await body_of(upstream, url)

    assert server.connections == 2


async def test_a_connection_closed_while_idle_is_replaced(upstream: HttpUpstream, url_of: Serving) -> None:
    """The next call does not find out the hard way."""
    server = Server([WHOLE])
    url = await url_of(server)
    await body_of(upstream, url)
    (connection,) = upstream._open
    server.writers[0].close()
    async with asyncio.timeout(CALL_SECONDS):
        await connection.closed

    assert (await body_of(upstream, url), len(upstream._open)) == (b"{}", 1)


async def test_a_given_up_call_takes_its_connection_with_it(upstream: HttpUpstream, url_of: Serving) -> None:
    """Half an answer must not be read by the next call."""
    server = Server([OK + b"content-length: 4\r\n\r\n{}"])
    url = await url_of(server)
    (await upstream.send(call(url))).abort()
    (await upstream.send(call(url))).abort()

    assert server.connections == 2


async def test_a_cancelled_call_takes_its_connection_with_it(upstream: HttpUpstream, url_of: Serving) -> None:
    """The answer that comes later belongs to nobody."""
    server = Server([WHOLE])
    server.hold = asyncio.Event()
    url = await url_of(server)
    waiting = asyncio.create_task(body_of(upstream, url))
    async with asyncio.timeout(CALL_SECONDS):
        while not upstream._open:  # noqa: ASYNC110 - a connection has no event of its own
            await asyncio.sleep(0)
    (connection,) = upstream._open
    waiting.cancel()
    async with asyncio.timeout(CALL_SECONDS):
        await connection.closed

    assert not upstream._open


async def test_a_large_answer_waits_to_be_read(upstream: HttpUpstream, url_of: Serving) -> None:
    """What is unread stays bounded, however long nobody reads."""
    server = Server([OK + b"content-length: 8000000\r\n\r\n" + bytes(8_000_000)])
    answer = await upstream.send(call(await url_of(server)))
    async with asyncio.timeout(CALL_SECONDS):
        while answer._unread_bytes <= UNREAD_BYTES_MAX:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)
    held = answer._unread_bytes
    for _ in range(TURNS):
        await asyncio.sleep(0)

    assert answer._unread_bytes == held
    assert len(await answer.body()) == 8_000_000


async def test_a_connection_that_was_not_read_for_a_while_is_good(upstream: HttpUpstream, url_of: Serving) -> None:
    """Its answer had all come by then."""
    size = UNREAD_BYTES_MAX + 1_000
    server = Server([OK + b"content-length: %d\r\n\r\n" % size, bytes(UNREAD_BYTES_MAX), bytes(1_000)])
    url = await url_of(server)
    for _ in range(2):
        answer = await upstream.send(call(url))
        async with asyncio.timeout(CALL_SECONDS):
            while not answer._ended:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0)
        assert len(await answer.body()) == size

    assert server.connections == 1


async def test_a_head_without_end_is_garbage(upstream: HttpUpstream, url_of: Serving) -> None:
    """It is not kept to see how long it gets."""
    url = await url_of(Server([OK] + [b"x-filler: " + b"x" * 1_000 + b"\r\n"] * (RESPONSE_HEAD_BYTES_MAX // 500)))

    with pytest.raises(UpstreamGarbageError):
        await upstream.send(call(url))


async def test_an_end_without_end_is_no_answer(upstream: HttpUpstream, url_of: Serving) -> None:
    """What follows the last chunk is bounded like a head."""
    last = OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    server = Server([last] + [b"x-filler: " + b"x" * 1_000 + b"\r\n"] * (RESPONSE_HEAD_BYTES_MAX // 500))
    answer = await upstream.send(call(await url_of(server)))

    with pytest.raises(UpstreamTruncatedError):
        await answer.body()


async def test_more_calls_than_connections_are_refused(upstream: HttpUpstream, url_of: Serving) -> None:
    """At once: a queue here would hide that a provider is slow."""
    server = Server([WHOLE])
    server.hold = asyncio.Event()
    url = await url_of(server)
    waiting = [asyncio.create_task(body_of(upstream, url)) for _ in range(2)]
    async with asyncio.timeout(CALL_SECONDS):
        while len(upstream._open) < 2:  # noqa: ASYNC110 - a connection has no event of its own
            await asyncio.sleep(0)
    with pytest.raises(UpstreamUnreachableError):
        await upstream.send(call(url))
    server.hold.set()

    assert await asyncio.gather(*waiting) == [b"{}", b"{}"]


async def test_an_idle_connection_makes_room_for_another_provider(upstream: HttpUpstream, url_of: Serving) -> None:
    """Connections nobody uses do not keep a call from being made."""
    urls = [await url_of(Server([WHOLE])) for _ in range(4)]

    assert [await body_of(upstream, url) for url in urls] == [b"{}"] * 4


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "nowhere"])
async def test_what_is_no_http_url_is_unreachable(upstream: HttpUpstream, url: str) -> None:
    """Nothing was used."""
    with pytest.raises(UpstreamUnreachableError):
        await upstream.send(call(url))


async def test_a_credential_stays_on_its_line(upstream: HttpUpstream, url_of: Serving) -> None:
    """No header of somebody else's making is sent."""
    server = Server([WHOLE])
    url = await url_of(server)
    with pytest.raises(UpstreamUnreachableError):
        await upstream.send(call(url, "two\r\nlines"))

    assert server.connections == 0


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_server_must_show_a_trusted_certificate(
    upstream: HttpUpstream, url_of: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    """Over TLS calls are as over plain connections; nothing is sent to who can't say who they are."""
    server = Server([WHOLE])
    server.security, certificate = loopback_context(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    url = await url_of(server)
    if trusted:
        assert [await body_of(upstream, url) for _ in range(2)] == [b"{}", b"{}"]
    else:
        with pytest.raises(UpstreamUnreachableError):
            await body_of(upstream, url)

    assert server.connections == int(trusted)


async def test_a_request_answered_half_sent_ends_its_connection(upstream: HttpUpstream, url_of: Serving) -> None:
    """Its rest would stand before the next request."""
    server = Server([WHOLE])
    url = await url_of(server)
    large = Call(url, None, bytes(50_000_000), False, CALL_SECONDS)
    for _ in range(2):
        await (await upstream.send(large)).body()

    assert server.connections == 2
