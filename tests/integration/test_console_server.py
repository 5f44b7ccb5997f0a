"""The console on a real socket: what comes before a request, and how it ends."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.console.server import run
from schemas.errors import ConfigurationError
from schemas.limits import HEADER_BYTES_MAX, HEADER_COUNT_MAX
from tests.support.console import ConsoleWorld

pytestmark = pytest.mark.stack


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """A console that serves a small log; stopped as a signal would stop it."""
    world = ConsoleWorld(tmp_path)
    await world.audit.claim()
    await world.audit.grow(3)
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(run(world.parts, "127.0.0.1", 0, stop, listening.set_result))
    yield await listening
    stop.set()
    await serving


async def ask(port: int, method: str, path: str, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
    """Status, content type and body of an answer."""

    def asked() -> tuple[int, str | None, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("content-type"), answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(asked)


async def test_the_log_is_served(port: int) -> None:
    """By GET with its bytes, by HEAD without."""
    status, kind, body = await ask(port, "GET", "/audit/main/checkpoint", {})

    assert (200, "text/plain; charset=utf-8") == (status, kind)
    assert b"quaestor.local/audit/test\n" in body
    assert (200, kind, b"") == await ask(port, "HEAD", "/audit/main/checkpoint", {})


@pytest.mark.parametrize(
    "headers",
    [{"x-large": "x" * HEADER_BYTES_MAX}, {f"x-{number}": "" for number in range(HEADER_COUNT_MAX + 1)}],
    ids=["large", "many"],
)
async def test_a_head_over_the_limits_is_a_problem(port: int, headers: dict[str, str]) -> None:
    """Refused before anything is looked at, in the console's shape."""
    status, kind, body = await ask(port, "GET", "/healthz", headers)

    assert (431, "application/problem+json", 431) == (status, kind, json.loads(body)["status"])


async def test_what_is_no_http_is_a_problem(port: int) -> None:
    """400, and the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01 not http\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer


async def test_a_taken_port_is_named_with_its_setting(port: int, tmp_path: Path) -> None:
    """What to change stands in the message."""
    parts = ConsoleWorld(tmp_path).parts

    with pytest.raises(ConfigurationError, match="QUAESTOR_CONSOLE_PORT"):
        await run(parts, "127.0.0.1", port, asyncio.Event(), lambda _port: None)
