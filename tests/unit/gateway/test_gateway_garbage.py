"""Providers that report what can not be, and callers that ask for it: answered, recorded once, charged by estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.gateway.outcomes import estimate
from processors.control import ControlState, Limit
from processors.control.check import RATE_PICO_MAX
from processors.pricing import Price, Rates, make_book
from schemas.events import BudgetEvent, BudgetKind, ProviderAttempt, RequestEvent, RequestKind, UsageSource
from schemas.limits import CALL_TOKENS_MAX
from schemas.money import COUNTED_TOKENS
from tests.support.gateway_answers import DONE, chat_answer, chunk, stream_answer, usage_chunk
from tests.support.gateway_world import Response, World, chat, control_state, limit, price

COMPLETE = [
    "attempts SUCCEEDED",
    "budgets COMMITTED",
    "budgets PLACED",
    "costs CHARGE",
    "costs CHARGE",
    "decisions",
    "requests COMPLETED",
    "requests RECEIVED",
]
ABSURD = [CALL_TOKENS_MAX + 1, 10**17, 2**64 - 1, 10**30, 10**4_000]


def answering(usage: dict[str, Any], *, stream: bool) -> Any:
    """A provider that reports this usage."""
    if stream:
        return lambda _: stream_answer(chunk("one "), chunk("two"), chunk(finish="stop"), usage_chunk(usage), DONE)
    return lambda _: chat_answer(usage=usage)


def dearest(limits: tuple[Limit, ...] = (), rate_pico: int = RATE_PICO_MAX) -> ControlState:
    """Both providers at this price per token, of models whose bounds nobody knows."""
    rates = Rates(input=rate_pico, output=rate_pico)
    prices: dict[tuple[str, str], Price] = {
        (name, f"{name}-big"): msgspec.structs.replace(price(name, f"{name}-big"), rates=rates)
        for name in ("one", "two")
    }
    books = {name: make_book(name, [prices[name, f"{name}-big"]]) for name in ("one", "two")}
    return control_state(limits=limits, prices=prices, books=books)


async def called(world: World, **fields: Any) -> tuple[Response, Response]:
    """A call, and one after it as soon as the gateway takes one."""
    first = await world.call(body=chat(**fields))
    closed = world.journal.closed()
    assert closed is None, closed
    return first, await world.call(body=chat(**fields))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("side", ["prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("count", ABSURD, ids=["one too many", "no long", "no 64 bits", "huge", "endless"])
async def test_absurd_usage_counts_as_missing(tmp_path: Path, count: int, side: str, stream: bool) -> None:
    """Charged by the marked estimate, once; the caller has its answer, and the next one too."""
    usage = {"prompt_tokens": 100, "completion_tokens": 20} | {side: count}
    async with World(tmp_path, answering(usage, stream=stream)) as world:
        first, second = await called(world, stream=stream)

    attempts = [event for event in world.events("attempts") if isinstance(event, ProviderAttempt)]
    assert [200, 200] == [first.status, second.status]
    assert sorted(2 * COMPLETE) == world.kinds()
    assert [UsageSource.ESTIMATE] * 2 == [attempt.usage_source for attempt in attempts]
    assert max(attempt.input_tokens + attempt.output_tokens for attempt in attempts) < 100


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_most_tokens_at_the_dearest_price_are_charged_as_reported(tmp_path: Path, stream: bool) -> None:
    """Every amount of theirs fits its record."""
    usage = {"prompt_tokens": CALL_TOKENS_MAX, "completion_tokens": CALL_TOKENS_MAX}
    async with World(tmp_path, answering(usage, stream=stream), dearest()) as world:
        response = await world.call(body=chat(stream=stream))

    completed = world.one(RequestEvent, kind=RequestKind.COMPLETED)
    assert (200, UsageSource.PROVIDER) == (response.status, completed.usage_source)
    assert 2 * CALL_TOKENS_MAX * RATE_PICO_MAX // 1_000 == completed.amount_nano


@pytest.mark.parametrize("asked", [10**16, 10**30], ids=["no long", "huge"])
@pytest.mark.parametrize("rate_pico", [8_000_000, RATE_PICO_MAX], ids=["usual", "dearest"])
async def test_a_caller_may_ask_for_any_number_of_tokens(tmp_path: Path, asked: int, rate_pico: int) -> None:
    """It is held for what one attempt can be charged."""
    tokens = msgspec.structs.replace(limit(10**9), currency=COUNTED_TOKENS)
    async with World(tmp_path, state=dearest((tokens,), rate_pico)) as world:
        response = await world.call(body=chat(max_tokens=asked, n=128))

    placed = world.one(BudgetEvent, kind=BudgetKind.PLACED)
    assert 200 == response.status
    assert CALL_TOKENS_MAX < placed.legs[0].amount_nano < 2 * CALL_TOKENS_MAX


@pytest.mark.parametrize("usage", [{"prompt_tokens": 10**17}, {"prompt_tokens": "many"}], ids=["absurd", "unreadable"])
@pytest.mark.parametrize("wanted", [False, True], ids=["not asked for", "asked for"])
async def test_usage_that_counts_as_missing_is_taken_out_of_a_stream(
    tmp_path: Path, usage: dict[str, Any], wanted: bool
) -> None:
    """A caller that asked for usage gets the estimate in its place, another nothing."""
    async with World(tmp_path, answering(usage, stream=True)) as world:
        response = await world.call(body=chat(stream=True, stream_options={"include_usage": wanted}))

    reports = [event for event in response.body.split(b"\n\n") if b'"usage"' in event]
    assert wanted == bool(reports)
    assert all(b'"estimated":true' in event for event in reports)
    assert usage_chunk(usage) not in response.body


def test_an_estimate_is_no_more_than_a_report_may_be() -> None:
    """However much was written."""
    assert CALL_TOKENS_MAX == estimate(0, 10**12).output_tokens
