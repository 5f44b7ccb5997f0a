"""Callers that hang up, or do not take what they are sent, over a socket: none holds a place, or a hold, for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api import protocol
from api.providers.errors import UpstreamTruncatedError
from api.providers.memory import MemoryAnswer
from schemas.events import AttemptOutcome, BudgetEvent, BudgetKind, ProviderAttempt, RequestEvent, RequestKind
from tests.support.gateway_answers import EVENTS, SlowAnswer, chat_answer, chat_body, chunk
from tests.support.gateway_socket import serving
from tests.support.gateway_world import KEY, World, chat, control_state, limit, until

pytestmark = pytest.mark.stack
#: More than both ends of a connection keep.
LARGE_BYTES = 24 * 1024 * 1024
SLOW_BYTES = 256 * 1024
SECONDS_MAX = 20


class Endless(MemoryAnswer):
    """A stream without end, until it is aborted."""

    def __init__(self) -> None:
        """Has always some."""
        super().__init__(200, (), EVENTS)

    async def some(self) -> bytes:
        """As the seam says."""
        await asyncio.sleep(0)
        if self.aborted:
            raise UpstreamTruncatedError
        return chunk("x" * 65_536)


def call(**fields: object) -> bytes:
    """A chat, as it goes over the wire."""
    body = json.dumps(chat(**fields)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def called(world: World, sent: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """The reading end of a caller that sent this and has taken nothing yet, though it stays."""
    async with asyncio.timeout(SECONDS_MAX), world, serving(world) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        yield reader
        writer.transport.abort()


async def until_ended(world: World, count: int = 1) -> None:
    """Until so many requests have ended, in the log."""
    ends = ("requests COMPLETED", "requests FAILED")
    await until(lambda: sum(kind in ends for kind in world.kinds()) == count)


async def test_a_stream_that_its_caller_does_not_take_ends_at_its_deadline(tmp_path: Path) -> None:
    """As that of a caller who hung up: the provider is stopped, what came is charged, and nothing stays held."""
    answer = Endless()
    state = control_state((limit(10**12),))
    world = World(tmp_path, lambda _: answer, state, request_timeout_seconds=0.5)
    async with called(world, call(stream=True)):
        await until_ended(world)

    failed, attempt = world.one(RequestEvent, kind=RequestKind.FAILED), world.one(ProviderAttempt)
    assert (499, "client_disconnected", True) == (failed.status_code, failed.error_code, failed.client_disconnected)
    assert (True, AttemptOutcome.CLIENT_DISCONNECTED) == (answer.aborted, attempt.outcome)
    assert "budgets COMMITTED" in world.kinds()


async def test_a_plain_call_goes_on_when_its_caller_hangs_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends no call with its connection: the answer is read to its end, and its usage is charged."""
    under_way, gone, body = asyncio.Event(), asyncio.Event(), chat_body()
    answer, lost = SlowAnswer(body[:9], body[9:]), protocol.BoundedProtocol.connection_lost

    def answering(_: object) -> SlowAnswer:
        under_way.set()
        return answer

    def connection_lost(self: protocol.BoundedProtocol, exc: Exception | None) -> None:
        lost(self, exc)
        gone.set()

    monkeypatch.setattr(protocol.BoundedProtocol, "connection_lost", connection_lost)
    world = World(tmp_path, answering, control_state((limit(10**12),)))
    async with asyncio.timeout(SECONDS_MAX), world, serving(world) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(call())
        await under_way.wait()
        writer.transport.abort()
        await gone.wait()
        for _ in range(3):  # two pieces, and that there is no more
            answer.go.release()
        await until_ended(world)

    committed = world.one(BudgetEvent, kind=BudgetKind.COMMITTED)
    assert (360_000, False) == (committed.amount_nano, committed.estimated)
    assert "requests COMPLETED" in world.kinds()


async def test_a_caller_that_takes_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second answer waits behind the first; when it is cut off, the place of its call is free."""
    monkeypatch.setattr(protocol, "TAKEN_SECONDS", 0.2)
    world = World(tmp_path, lambda _: chat_answer(content="x" * LARGE_BYTES))
    async with called(world, 2 * call()):
        await until_ended(world, 2)
        await until(lambda: not world.parts.meters.in_flight)


async def test_a_caller_that_is_slow_gets_all_of_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it takes enough in every while."""
    monkeypatch.setattr(protocol, "TAKEN_SECONDS", 0.3)
    world = World(tmp_path, lambda _: chat_answer(content="x" * LARGE_BYTES))
    async with called(world, call()) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        while not body.endswith(b"}"):
            body += await reader.read(SLOW_BYTES)
            await asyncio.sleep(0.01)

    assert head.startswith(b"HTTP/1.1 200 ")
    assert LARGE_BYTES < len(body)
