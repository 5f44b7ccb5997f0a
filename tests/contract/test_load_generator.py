"""`quaestor load` against a server: what is an answer, what is tried again, how many are under way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from api.load import generator
from api.load.answers import AnswersFile
from api.load.calls import Call
from api.load.generator import Generator, Summary, Target
from tests.support.anchors import serving

CONCURRENCY = 4
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ANSWER = {"usage": {"prompt_tokens": 3, "completion_tokens": 5}}
HEADERS = {"x-quaestor-request-id": "r1", "x-quaestor-cost": "0.1"}


def requests_of(path: Path) -> list[str]:
    """Those that an answers file has."""
    return [json.loads(line)["request_id"] for line in path.read_text(encoding="utf-8").splitlines()]


async def made(handler: Handler, path: Path, calls: int, *, stream: bool = False) -> tuple[Summary, list[str]]:
    """What came of so many calls, and the requests of the answers file."""
    asked = [Call(index, 0.0, 3, 5, "m", stream) for index in range(calls)]
    async with serving(handler) as url:
        with AnswersFile(path) as answers:
            summary = await Generator(Target(url, ["k"], CONCURRENCY), answers, lambda _: None).run(asked)
    return summary, requests_of(path)


async def test_never_more_calls_are_under_way_than_asked_for(tmp_path: Path) -> None:
    """The first wave is held until it is complete; all are answered, counted and written down."""
    now, most, complete = 0, 0, asyncio.Event()

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == CONCURRENCY:
            complete.set()
        await complete.wait()
        now -= 1
        return web.json_response(ANSWER, headers=HEADERS)

    summary, written = await made(handler, tmp_path / "answers", 3 * CONCURRENCY)

    assert CONCURRENCY == most
    assert (12, 12, 36, 60) == (summary.answered, len(written), summary.input_tokens, summary.output_tokens)
    assert 0 < summary.percentile(0.5) <= summary.percentile(0.99) <= summary.percentile(1.0)


async def test_a_refusal_that_may_pass_is_tried_again(tmp_path: Path) -> None:
    """One answer then, and one more try."""
    refused = False

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal refused
        if refused:
            return web.json_response(ANSWER, headers=HEADERS)
        refused = True
        return web.Response(status=503, headers={"Retry-After": "0"})

    summary, written = await made(handler, tmp_path / "answers", 1)

    assert (1, 1, 0, ["r1"]) == (summary.answered, summary.retried, summary.failed.total(), written)


async def test_a_refusal_for_good_is_not(tmp_path: Path) -> None:
    """It is counted under its status."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=403)

    summary, written = await made(handler, tmp_path / "answers", 1)

    assert (0, 0, {"403": 1}, []) == (summary.answered, summary.retried, dict(summary.failed), written)


@pytest.mark.parametrize(("end", "answered"), [(b"data: [DONE]\n\n", 1), (b"", 0)], ids=["whole", "cut"])
async def test_a_stream_counts_when_it_came_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes, answered: int
) -> None:
    """What `verify --answers` looks for was answered; one that was cut off is a failed call."""
    monkeypatch.setattr(generator, "RETRIES_MAX", 0)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        await response.write(b'data: {"choices": []}\n\n' + end)
        return response

    summary, written = await made(handler, tmp_path / "answers", 1, stream=True)

    assert (answered, 1 - answered, answered) == (summary.answered, summary.failed.total(), len(written))
    assert answered == len(summary.first_chunks_seconds)
