"""Faults of our own code: the caller has an error of the API all the same."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway_answers import chat_answer, whole_stream
from tests.support.gateway_world import World, chat

SHAPE = {"message", "type", "param", "code"}


def fail(*_: object) -> None:
    """What nobody thought of."""
    raise OverflowError


async def test_a_bug_in_recording_is_500_in_openais_shape(tmp_path: Path) -> None:
    """Also where nothing can be kept any more: the reaper will close the hold."""
    async with World(tmp_path, lambda _: chat_answer()) as world:
        world.journal._write_ahead = world.journal._spool._write = fail  # type: ignore[method-assign,assignment]
        response = await world.call()

    assert (500, "internal_error", SHAPE) == (response.status, response.error["code"], response.error.keys())


async def test_a_bug_in_recording_a_stream_ends_it_with_an_error(tmp_path: Path) -> None:
    """What was forwarded is no whole answer."""
    async with World(tmp_path, lambda _: whole_stream()) as world:
        world.journal._write_ahead = world.journal._spool._write = fail  # type: ignore[method-assign,assignment]
        response = await world.call(body=chat(stream=True))

    assert b'"code":"internal_error"' in response.pieces[-1]
    assert b"[DONE]" not in response.body


async def test_a_bug_before_the_decision_is_500_in_openais_shape(tmp_path: Path) -> None:
    """Nothing was begun."""
    async with World(tmp_path) as world:
        world.parts.router = None  # type: ignore[assignment]  # a bug, for once
        response = await world.call()

    assert (500, "internal_error", SHAPE) == (response.status, response.error["code"], response.error.keys())
