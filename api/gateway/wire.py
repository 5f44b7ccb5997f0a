"""ASGI as the gateway uses it: bodies read under limits, answers sent in as few messages as there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from api.gateway.errors import BODY_TOO_LARGE, BODY_TOO_SLOW, JSON_TYPE, Header, Problem

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

#: From the first bytes of a body to its end.
BODY_SECONDS_MAX = 60.0


class ClientGoneError(Exception):
    """The caller hung up before its request was whole: there is nobody to answer."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers; of a repeated one the first stands."""
    return dict(reversed(scope["headers"]))


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int) -> bytes | Problem:
    """The whole body, or why it is not taken; raises ClientGoneError."""
    length = headers.get(b"content-length")
    if length is not None and int(length) > bytes_max:
        return BODY_TOO_LARGE
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGoneError
    first: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return first if len(first) <= bytes_max else BODY_TOO_LARGE
    try:
        # The connection itself bounds the wait for the first bytes; most bodies need no timer of their own.
        async with asyncio.timeout(BODY_SECONDS_MAX):
            return await _collect(receive, first, bytes_max)
    except TimeoutError:
        return BODY_TOO_SLOW


async def _collect(receive: Receive, first: bytes, bytes_max: int) -> bytes | Problem:
    parts, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
        size += len(parts[-1])
        if size > bytes_max:
            return BODY_TOO_LARGE
    return b"".join(parts)


async def answer(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """A whole answer; content-length is added."""
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, problem: Problem, headers: tuple[Header, ...] = ()) -> None:
    """An error as the whole answer."""
    await answer(send, problem.status, [JSON_TYPE, *problem.headers, *headers], problem.body())
