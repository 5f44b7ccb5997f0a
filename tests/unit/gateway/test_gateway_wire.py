"""Bodies: in pieces, too large, too slow, and callers that hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from api.gateway import wire
from api.gateway.errors import BODY_TOO_LARGE, BODY_TOO_SLOW
from api.gateway.wire import ClientGoneError, headers_of, read_body

GONE = {"type": "http.disconnect"}


def piece(body: bytes, *, more: bool) -> dict[str, Any]:
    """One ASGI message."""
    return {"type": "http.request", "body": body, "more_body": more}


def sending(*messages: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A caller that sends these, then nothing."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        return GONE

    return receive


async def test_pieces_are_put_together() -> None:
    """In their order."""
    assert b"abc" == await read_body(sending(piece(b"a", more=True), piece(b"bc", more=False)), {}, 3)


@pytest.mark.parametrize(
    "messages", [(piece(b"abcd", more=False),), (piece(b"ab", more=True), piece(b"cd", more=True))], ids=["one", "many"]
)
async def test_a_body_is_refused_as_soon_as_it_is_too_large(messages: tuple[dict[str, Any], ...]) -> None:
    """Without waiting for its end."""
    assert BODY_TOO_LARGE == await read_body(sending(*messages), {}, 3)


async def test_an_announced_length_is_believed() -> None:
    """Nothing is read."""
    assert BODY_TOO_LARGE == await read_body(sending(), {b"content-length": b"4"}, 3)


async def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over."""
    monkeypatch.setattr(wire, "BODY_SECONDS_MAX", 0.01)

    assert BODY_TOO_SLOW == await read_body(sending(piece(b"a", more=True)), {}, 3)


@pytest.mark.parametrize("messages", [(GONE,), (piece(b"a", more=True), GONE)], ids=["before", "within"])
async def test_a_caller_that_hangs_up_leaves_nothing_to_answer(messages: tuple[dict[str, Any], ...]) -> None:
    """Before or within its body."""
    with pytest.raises(ClientGoneError):
        await read_body(sending(*messages), {}, 3)


def test_the_first_of_a_repeated_header_stands() -> None:
    """So that nobody behind a proxy can add a second key."""
    scope = {"headers": [(b"authorization", b"one"), (b"x", b"y"), (b"authorization", b"two")]}

    assert {b"authorization": b"one", b"x": b"y"} == headers_of(scope)
