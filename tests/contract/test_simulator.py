"""The simulated provider as the official openai SDK sees it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from api.providers.simulator import Failure, SimulatorSettings, run
from schemas.errors import ConfigurationError

SECONDS = 10.0
MESSAGES: Any = [{"role": "user", "content": "one two three"}]
Start = Callable[..., Awaitable[openai.AsyncOpenAI]]


@asynccontextmanager
async def serving(settings: SimulatorSettings) -> AsyncIterator[int]:
    """A simulated provider on a free port."""
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run(settings, "127.0.0.1", 0, stop, port.set_result))
    await asyncio.wait({task, port}, return_when=asyncio.FIRST_COMPLETED, timeout=SECONDS)
    try:
        yield await port if port.done() else await task  # type: ignore[misc]  # a failed start raises here
    finally:
        stop.set()
        await asyncio.wait_for(task, SECONDS)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a simulated provider with these settings; answers an SDK client of it."""
    async with AsyncExitStack() as stack:

        async def started(key: str = "any", **settings: Any) -> openai.AsyncOpenAI:
            port = await stack.enter_async_context(serving(SimulatorSettings(**settings)))
            client = openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=SECONDS
            )
            return await stack.enter_async_context(client)

        yield started


def asked(**simulate: Any) -> dict[str, Any]:
    """Arguments of a call with the field `simulate`."""
    return {"model": "sim-small", "messages": MESSAGES, "extra_body": {"simulate": simulate}}


async def test_a_plain_completion(start: Start) -> None:
    """The SDK reads a completion, its usage and its finish reason."""
    client = await start()
    answer = await client.chat.completions.create(model="sim-small", messages=MESSAGES, max_tokens=5)

    assert answer.usage is not None
    assert (3, 5, "length", 5) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.choices[0].finish_reason,
        len((answer.choices[0].message.content or "").split()),
    )


async def test_the_same_call_gives_the_same_answer(start: Start) -> None:
    """Two processes with one seed answer alike, id and created included."""
    answers = [
        await (await start(seed=7)).chat.completions.create(model="sim-small", messages=MESSAGES) for _ in range(2)
    ]

    assert answers[0].model_dump() == answers[1].model_dump()


async def test_a_stream_with_usage(start: Start) -> None:
    """The SDK reads chunks, the finish reason, and the usage in a last chunk without choices."""
    client = await start(chunk_tokens=1)
    stream = await client.chat.completions.create(
        model="sim-small", messages=MESSAGES, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]

    assert chunks[-1].usage is not None
    assert (24, 24, [], "length") == (
        len(words),
        chunks[-1].usage.completion_tokens,
        chunks[-1].choices,
        chunks[-2].choices[0].finish_reason,
    )


async def test_an_answer_takes_its_latency(start: Start) -> None:
    """No less than was asked for, and not at once."""
    client = await start(latency_milliseconds=120.0)
    began = time.monotonic()
    await client.chat.completions.create(model="sim-small", messages=MESSAGES, max_tokens=5)

    assert time.monotonic() - began >= 0.12


async def test_a_stream_keeps_its_pace(start: Start) -> None:
    """Five chunks of a word, and the pace between each two."""
    client = await start(chunk_tokens=1, chunk_milliseconds=30.0)
    stream = await client.chat.completions.create(model="sim-small", messages=MESSAGES, max_tokens=5, stream=True)
    came = [time.monotonic() async for chunk in stream if chunk.choices and chunk.choices[0].delta.content]

    assert 5 == len(came)
    assert came[-1] - came[0] >= 4 * 0.03 - 0.02  # the first may have waited for us


async def test_embeddings(start: Start) -> None:
    """The SDK, which asks for base64, gets vectors of the dimensions it asked for."""
    client = await start()
    answer = await client.embeddings.create(model="sim-embedding", input=["a b", "c"], dimensions=16)

    assert ([16, 16], 3) == ([len(one.embedding) for one in answer.data], answer.usage.prompt_tokens)


async def test_models_are_listed(start: Start) -> None:
    """The SDK pages through the models."""
    client = await start()

    assert ["sim-small", "sim-large", "sim-reasoning", "sim-embedding"] == [
        model.id async for model in client.models.list()
    ]


def test_the_synchronous_client() -> None:
    """The blocking SDK works too."""

    async def call() -> int:
        async with serving(SimulatorSettings()) as port:
            with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client:
                answer = await asyncio.to_thread(
                    client.chat.completions.create, model="sim-small", messages=MESSAGES, max_tokens=2
                )
                return answer.usage.completion_tokens if answer.usage else 0

    assert 2 == asyncio.run(call())


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        ("400", openai.BadRequestError),
        ("401", openai.AuthenticationError),
        ("404", openai.NotFoundError),
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("503", openai.InternalServerError),
        ("disconnect", openai.APIConnectionError),
        ("truncate", openai.APIConnectionError),
    ],
)
async def test_failures_are_the_sdks_own_errors(start: Start, fail: str, error: type[Exception]) -> None:
    """Each failure is told apart by the SDK."""
    client = await start()

    with pytest.raises(error):
        await client.chat.completions.create(**asked(fail=fail))


async def test_a_timeout_never_answers(start: Start) -> None:
    """The client's own time runs out."""
    client = await start()

    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.2).chat.completions.create(**asked(fail="timeout"))


async def test_slow_headers_come_late(start: Start) -> None:
    """The answer comes after the wait that was set."""
    client = await start(slow_milliseconds=300)
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.1).chat.completions.create(**asked(fail="slow_headers"))
    answer = await client.chat.completions.create(**asked(fail="slow_headers"))

    assert answer.choices[0].message.content


async def test_garbage_is_no_json(start: Start) -> None:
    """A garbage answer has status 200 and can't be read."""
    client = await start()

    with pytest.raises((openai.APIError, ValueError)):
        await client.chat.completions.create(**asked(fail="garbage"))


async def test_usage_can_be_missing(start: Start) -> None:
    """A provider that does not say what was used."""
    client = await start()

    assert (await client.chat.completions.create(**asked(fail="no_usage"))).usage is None


@pytest.mark.parametrize("fail", ["disconnect", "truncate", "garbage"])
async def test_a_broken_stream_has_no_end(start: Start, fail: str) -> None:
    """Some chunks come, no finish reason and no [DONE] does."""
    client = await start(chunk_tokens=1)
    body = {"model": "sim-small", "messages": MESSAGES, "stream": True, "max_tokens": 20, "simulate": {"fail": fail}}
    received = b""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(f"{client.base_url}chat/completions", json=body) as answer:
                async for part in answer.content.iter_any():
                    received += part
        except aiohttp.ClientError:
            received += b"(reset)"

    assert (True, False, fail == "disconnect") == (
        received.startswith(b"data: "),
        b"[DONE]" in received or b'"length"' in received,
        received.endswith(b"(reset)"),
    )


async def test_a_call_fails_so_often_as_it_asks(start: Start) -> None:
    """`fail_times` lets a retry succeed."""
    client = await start()
    outcomes = []
    for _ in range(3):
        try:
            await client.chat.completions.create(**asked(fail="500", fail_times=2))
            outcomes.append("ok")
        except openai.InternalServerError:
            outcomes.append("500")

    assert ["500", "500", "ok"] == outcomes


async def test_scripted_failures(start: Start) -> None:
    """The second request fails as scripted."""
    client = await start(script={2: Failure.STATUS_429})
    await client.chat.completions.create(**asked())
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(**asked())

    assert (await client.chat.completions.create(**asked())).id


async def test_a_key_is_insisted_on_when_set(start: Start) -> None:
    """Another bearer token is refused."""
    client = await start(key="right", api_key="right")
    await client.chat.completions.create(**asked())

    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").chat.completions.create(**asked())


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model": 3, "messages": []}', b'{"model": "m", "messages": [{"content": 5}]}', b"\xff\xfe"],
)
async def test_malformed_requests_are_refused_in_openais_shape(start: Start, body: bytes) -> None:
    """Bad JSON, wrong types and bad UTF-8 get a 400 with an error object."""
    client = await start()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{client.base_url}chat/completions", data=body) as answer,
    ):
        status, error = answer.status, (await answer.json())["error"]

    assert (400, "invalid_request_error") == (status, error["type"])


async def test_the_egress_log_names_each_call(start: Start, tmp_path: Path) -> None:
    """Tests prove by it that a refused request reached no provider."""
    log = tmp_path / "egress.jsonl"
    client = await start(egress_log=log)
    await client.chat.completions.create(**asked(), extra_headers={"x-quaestor-request-id": "r-1"})
    await client.models.list()

    assert [
        {
            "number": 1,
            "path": "/v1/chat/completions",
            "model": "sim-small",
            "fail": None,
            "x-quaestor-request-id": "r-1",
        }
    ] == [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


async def test_a_taken_port_is_one_line() -> None:
    """The reason names the address and the setting."""
    async with serving(SimulatorSettings()) as port:
        with pytest.raises(ConfigurationError, match="QUAESTOR_SIMULATOR_PORT"):
            await run(SimulatorSettings(), "127.0.0.1", port, asyncio.Event())
