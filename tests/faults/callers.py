"""Clients of several gateways, and the provider behind them: both know afterwards how far each call came."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Self

import aiohttp
from aiohttp import web

CALLERS = 24
#: How long a caller waits between two calls, and the provider before its answer, at most.
PAUSE_SECONDS = 0.3
ANSWER_SECONDS = 0.15
CALL_SECONDS_MAX = 20.0
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
_MESSAGE = {"role": "assistant", "content": "five words of an answer"}


class FaultyProvider:
    """A provider in this process: answers each call after a random while, and remembers whose it was."""

    def __init__(self, random: Random) -> None:
        """`async with` serves it on a free port of the loopback."""
        self._random = random
        #: Calls that came, and those that were answered, by the mark in their message.
        self.called: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        """Serve."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        mark = str(body["messages"][0]["content"])
        self.called[mark] += 1
        await asyncio.sleep(self._random.uniform(0, ANSWER_SECONDS))
        if not body.get("stream"):
            self.answered.add(mark)
            return web.json_response(_body("chat.completion", message=_MESSAGE, usage=USAGE))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        with contextlib.suppress(ConnectionResetError):  # who asked may be dead
            await self._stream(request, response, mark)
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, mark: str) -> None:
        await response.prepare(request)
        await response.write(_event(_body("chat.completion.chunk", delta=_MESSAGE, finish=None)))
        await asyncio.sleep(self._random.uniform(0, ANSWER_SECONDS))
        self.answered.add(mark)
        end = _event(_body("chat.completion.chunk", delta={}, usage=USAGE)) + b"data: [DONE]\n\n"
        await response.write(end)


def _body(
    kind: str, finish: str | None = "stop", usage: Mapping[str, int] | None = None, **text: Any
) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, **text}
    body = {"id": "answer", "object": kind, "created": 1, "model": "m", "choices": [choice]}
    return body | ({"usage": usage} if usage is not None else {})


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Callers:
    """Clients that call whichever gateway is open, half of them for streams; a call's mark is its run id too."""

    def __init__(self, model: str, keys: Sequence[str], random: Random) -> None:
        """`keys` take turns."""
        self._model, self._keys, self._random = model, itertools.cycle(keys), random
        self._numbers = itertools.count()
        #: URLs of gateways that may be called.
        self.open: list[str] = []
        #: Marks of calls under way, by gateway.
        self.under_way: dict[str, set[str]] = {}
        #: Request ids of whole answers, by mark.
        self.answers: dict[str, str] = {}
        #: How calls ended: statuses, and 0 for no whole answer.
        self.ends: Counter[int] = Counter()
        self._going = asyncio.Event()
        self._idle = asyncio.Semaphore(CALLERS)

    async def __aenter__(self) -> Self:
        """Call, until the block ends."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(CALL_SECONDS_MAX))
        self._tasks = [asyncio.create_task(self._calls()) for _ in range(CALLERS)]
        self._going.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop calling."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def pause(self) -> None:
        """Begin no further call, and wait until those under way have ended."""
        self._going.clear()
        for _ in range(CALLERS):
            await self._idle.acquire()
        for _ in range(CALLERS):
            self._idle.release()

    def resume(self) -> None:
        """Go on."""
        self._going.set()

    async def _calls(self) -> None:
        while True:
            await self._going.wait()
            async with self._idle:
                if self.open and self._going.is_set():
                    await self._call(self._random.choice(self.open))
            await asyncio.sleep(self._random.uniform(0, PAUSE_SECONDS))

    async def _call(self, url: str) -> None:
        mark = f"call-{next(self._numbers)}"
        under_way = self.under_way.setdefault(url, set())
        under_way.add(mark)
        try:
            self.ends[await self._ask(url, mark)] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.ends[0] += 1
        finally:
            under_way.discard(mark)

    async def _ask(self, url: str, mark: str) -> int:
        stream = self._random.random() < 1 / 2
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": mark}],
            "max_tokens": 8,
            "stream": stream,
        }
        headers = {"authorization": f"Bearer {next(self._keys)}", "x-quaestor-run-id": mark}
        async with self._session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
            given = await response.read()
            if response.status == 200 and (not stream or given.endswith(b"data: [DONE]\n\n")):
                self.answers[mark] = response.headers["x-quaestor-request-id"]
            return response.status
