"""Holds by counted tokens: counted when bytes are refused and a count may help, and when usage is missing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.gateway.counting import Counting
from api.gateway.intake import Ask, read_ask
from api.providers.tokens import MemoryTokenCounter
from processors.control import ControlState, Provider
from processors.estimation import Counted, tokens_estimated
from processors.pricing import Rates, make_book
from schemas.events import BudgetEvent, BudgetKind, Operation, ProviderAttempt, RequestEvent, UsageSource
from schemas.limits import COUNTS_WAITING_MAX
from tests.support.gateway_answers import chat_answer, chunk, error_answer, stream_answer
from tests.support.gateway_world import Response, World, chat, control_state, limit, price

#: 4,000 bytes, and its tokens as the fake counts them.
LONG = "word" * 1_000
TOKENS = 500
INPUT_NANO, OUTPUT_NANO = 2_000, 10 * 8_000
#: More than the body has without its text, in bytes.
FRAME_BYTES = 200


def long_chat(**fields: Any) -> dict[str, Any]:
    """A request with a long text."""
    return chat(messages=[{"role": "user", "content": LONG}], **fields)


def known(amount_nano: int | None, model: str = "gpt-4o") -> ControlState:
    """Both candidates serve a model of this name; a hard limit of this much."""
    names = ("one", "two")
    providers = {name: Provider(provider_id=name, base_url="http://a.test", models={"big": model}) for name in names}
    prices = {(name, model): price(name, model, max_output_tokens=1_000, context_tokens=100_000) for name in names}
    books = {name: make_book(name, [prices[name, model]]) for name in names}
    limits = () if amount_nano is None else (limit(amount_nano),)
    return control_state(limits=limits, providers=providers, prices=prices, books=books)


async def called(directory: Path, state: ControlState, *answers: Any, **fields: Any) -> tuple[World, Response]:
    """One long request."""
    waiting = list(answers) or [chat_answer()]
    async with World(directory, state=state, answer=lambda _: waiting.pop(0)) as world:
        return world, await world.call(body=long_chat(**fields))


async def test_what_bytes_refuse_tokens_may_admit(tmp_path: Path) -> None:
    """The hold is the smaller one, in one PLACED; nothing says that more was asked for first."""
    world, response = await called(tmp_path, known(3_000 * INPUT_NANO))
    placed = world.one(BudgetEvent, kind=BudgetKind.PLACED)

    assert 200 == response.status
    assert TOKENS * INPUT_NANO < placed.amount_nano - OUTPUT_NANO < (TOKENS + FRAME_BYTES) * INPUT_NANO
    assert "budgets REFUSED" not in world.kinds()


async def test_nothing_is_counted_where_bytes_have_room(tmp_path: Path) -> None:
    """The usual case costs no tokenizer."""
    world, response = await called(tmp_path, known(10_000 * INPUT_NANO))
    placed = world.one(BudgetEvent, kind=BudgetKind.PLACED)

    assert (200, []) == (response.status, world.tokens.asked)
    assert placed.amount_nano > 4_000 * INPUT_NANO


@pytest.mark.parametrize(("amount_nano", "model"), [(50_000, "gpt-4o"), (3_000 * INPUT_NANO, "one-big")])
async def test_nothing_is_counted_where_no_count_helps(tmp_path: Path, amount_nano: int, model: str) -> None:
    """A limit that has no room for the answer alone, and a model whose encoding nobody knows."""
    world, response = await called(tmp_path, known(amount_nano, model))

    assert (429, []) == (response.status, world.tokens.asked)


async def test_a_refusal_says_what_was_counted(tmp_path: Path) -> None:
    """Rather than a bound that is four times higher."""
    world, response = await called(tmp_path, known(400 * INPUT_NANO))
    refused = world.one(BudgetEvent)

    assert (429, ["o200k_base"]) == (response.status, world.tokens.asked)
    assert (BudgetKind.REFUSED, True) == (refused.kind, refused.amount_nano < (TOKENS + FRAME_BYTES) * INPUT_NANO)
    assert float(response.error["asked"]) < 0.0025


async def test_without_an_encoding_the_bytes_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No count is no reason to fail."""
    monkeypatch.setattr(MemoryTokenCounter, "count", lambda *_: None)
    _, response = await called(tmp_path, known(3_000 * INPUT_NANO))

    assert 429 == response.status


async def test_a_cheaper_candidate_is_held_by_tokens_too(tmp_path: Path) -> None:
    """By bytes it asks more than the first did by tokens, so it would not be tried."""
    state = known(400 * INPUT_NANO)
    cheap = msgspec.structs.replace(state.prices["two", "gpt-4o"], rates=Rates(input=500_000, output=2_000_000))
    state = msgspec.structs.replace(state, prices=state.prices | {("two", "gpt-4o"): cheap})
    world, response = await called(tmp_path, state)

    assert (200, ["o200k_base"]) == (response.status, world.tokens.asked)
    assert "two" == world.one(BudgetEvent, kind=BudgetKind.PLACED).provider_id


async def test_one_count_serves_all_candidates(tmp_path: Path) -> None:
    """The second candidate's hold is sized by the same count."""
    world, response = await called(tmp_path, known(3_000 * INPUT_NANO), error_answer(500), chat_answer())

    assert (200, "2") == (response.status, response.headers["x-quaestor-attempts"])
    assert ["o200k_base"] == world.tokens.asked


MISSING = {
    "plain": (False, lambda: chat_answer(usage=None)),
    "stream": (True, lambda: stream_answer(chunk("hi"), chunk(finish="stop"), b"data: [DONE]\n\n")),
}


@pytest.mark.parametrize("name", MISSING)
async def test_missing_usage_is_estimated_by_a_count(tmp_path: Path, name: str) -> None:
    """The input, where the encoding is known; it is still marked as an estimate."""
    stream, answer = MISSING[name]
    world, response = await called(tmp_path, known(None), answer(), stream=stream)
    attempt, completed = world.one(ProviderAttempt), world.one(RequestEvent, kind="COMPLETED")
    prompt_bytes = len(b'[{"role": "user", "content": ""}]') + len(LONG)

    assert (200, UsageSource.ESTIMATE) == (response.status, attempt.usage_source)
    assert tokens_estimated(prompt_bytes, Counted(TOKENS, len(LONG))) == attempt.input_tokens
    assert attempt.input_tokens == completed.input_tokens


async def test_missing_usage_of_an_unknown_model_is_estimated_by_bytes(tmp_path: Path) -> None:
    """As before, without a tokenizer."""
    world, _ = await called(tmp_path, known(None, "one-big"), chat_answer(usage=None))

    assert [] == world.tokens.asked
    assert UsageSource.ESTIMATE is world.one(ProviderAttempt).usage_source


class SlowCounter(MemoryTokenCounter):
    """Counts when it is let."""

    def __init__(self) -> None:
        """Closed."""
        super().__init__()
        self.let = threading.Event()

    def count(self, encoding: str, texts: Sequence[str]) -> int | None:
        """As the seam says."""
        self.let.wait(30)
        return super().count(encoding, texts)


async def test_too_many_requests_do_not_wait_for_a_count() -> None:
    """Beyond the limit there is no count, at once; the loop is never blocked."""
    counter = SlowCounter()
    counting = Counting(counter)
    ask = read_ask(Operation.EMBEDDINGS, b'{"model":"m","input":"four"}')
    assert isinstance(ask, Ask)
    waiting = [asyncio.create_task(counting.count("o200k_base", ask)) for _ in range(COUNTS_WAITING_MAX)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(5):
            refused = await counting.count("o200k_base", ask)
    finally:
        counter.let.set()

    assert None is refused
    assert [Counted(1, 4)] * COUNTS_WAITING_MAX == await asyncio.gather(*waiting)
    assert Counted(1, 4) == await counting.count("o200k_base", ask)
    counting.close()
