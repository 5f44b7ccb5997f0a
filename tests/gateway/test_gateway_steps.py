"""Streams without a bound through a real gateway on real servers, read by the official openai SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from schemas.events import BudgetEvent, BudgetKind, ProviderAttempt, RequestEvent, RequestKind, UsageSource
from sinks.redis.check import BudgetCheck, check_budgets, read_states
from sinks.redis.reads import RedisReads, TenantState
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.registry import RegistrySchemas
from tests.support.gateway_stack import EFFECTIVE_SECONDS_MAX, GatewayStack, gateway_stack, wait_for

WORDS = 1_500
#: Of sim-small, nano-dollars per token.
INPUT_NANO, OUTPUT_NANO = 150, 600
#: Room for the input and some three steps of 1,024 tokens.
LITTLE = 0.002


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStack]:
    """Everything, with a gateway of one worker."""
    with gateway_stack(tmp_path_factory.mktemp("steps")) as running:
        running.start_gateway()
        yield running


def client(stack: GatewayStack, tenant: str, dollars: float) -> OpenAI:
    """The SDK with a key of a tenant that may spend so much, once the gateway knows both."""
    stack.limit(tenant, dollars)
    one = stack.sdk(stack.key(tenant))

    def limited() -> bool:
        try:
            one.chat.completions.create(model="fast", messages=[{"role": "user", "content": "hi"}], max_tokens=1)
        except (openai.AuthenticationError, openai.InternalServerError):
            return False
        events: list[Any] = stack.events("budgets")
        return any(event.legs for event in events if event.tenant_id == tenant)

    wait_for(limited, EFFECTIVE_SECONDS_MAX, lambda: stack.log_of("gateway"))
    return one


def long_stream(one: OpenAI, **fields: Any) -> list[Any]:
    """The chunks of an answer of WORDS words, some at a time, without a bound."""
    simulate = {"completion_tokens": WORDS, "chunk_tokens": 10, "chunk_milliseconds": 2}
    messages: Any = [{"role": "user", "content": "Tell me everything."}]
    stream: Any = one.chat.completions.create(
        model="fast", messages=messages, stream=True, extra_body={"simulate": simulate}, **fields
    )
    return list(stream)


def text_of(chunks: list[Any]) -> str:
    """What the caller read."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def states(stack: GatewayStack) -> dict[str, TenantState]:
    """The live budgets of every tenant."""

    async def read() -> dict[str, TenantState]:
        reads = RedisReads(stack.settings.redis_url)
        await reads.open()
        try:
            return await read_states(reads)
        finally:
            await reads.close()

    return asyncio.run(read())


def checked(stack: GatewayStack, found: dict[str, TenantState]) -> BudgetCheck:
    """How live budgets compare with the fold of the log."""
    reader = KafkaReader(stack.settings.kafka_bootstrap, "test")
    try:
        return check_budgets(found, reader, Codec(RegistrySchemas(stack.settings.registry_url)))
    finally:
        reader.close()


def settled(stack: GatewayStack, tenant: str) -> int:
    """What the tenant was charged, once nothing is held; the live budgets are the fold of the log."""

    def nothing_held() -> bool:
        state = states(stack).get(tenant)
        return state is not None and bool(state.sums) and not (state.holds or state.unconfirmed)

    wait_for(nothing_held, EFFECTIVE_SECONDS_MAX)
    found = states(stack)
    check = checked(stack, found)
    assert check.ok, check.differences
    assert not any(sums.held_nano for sums in found[tenant].sums.values())
    return sum(sums.posted_nano for sums in found[tenant].sums.values())


def last_request(stack: GatewayStack, tenant: str) -> list[Any]:
    """Every event of the tenant's last request."""
    events: list[Any] = [one for one in stack.events("requests", "attempts", "budgets") if one.tenant_id == tenant]
    last = max(event.request_id for event in events)
    return [event for event in events if event.request_id == last]


def budgets(events: list[Any], kind: BudgetKind) -> list[BudgetEvent]:
    """Those of a kind."""
    return [event for event in events if isinstance(event, BudgetEvent) and event.kind is kind]


def test_a_long_stream_is_extended_step_by_step_and_charged_exactly(stack: GatewayStack) -> None:
    """The SDK reads every word; what is charged is what usage says, and nothing of the steps stays held."""
    one = client(stack, "roomy", 1.0)
    before = settled(stack, "roomy")
    chunks = long_stream(one, stream_options={"include_usage": True})

    assert len(text_of(chunks).split()) == WORDS
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    usage, events = chunks[-1].usage, last_request(stack, "roomy")
    charged = usage.prompt_tokens * INPUT_NANO + WORDS * OUTPUT_NANO
    (committed,) = budgets(events, BudgetKind.COMMITTED)
    assert (committed.amount_nano, committed.estimated) == (charged, False)
    held = [event.amount_nano for event in budgets(events, BudgetKind.EXTENDED)]
    assert len(held) >= 5
    assert held == sorted(set(held))
    assert committed.legs[0].held_nano == held[-1]
    assert settled(stack, "roomy") == before + charged


def test_a_small_budget_stops_a_long_stream_cleanly(stack: GatewayStack) -> None:
    """The SDK reads a valid end that says why; the request is answered, charged an estimate, within the limit."""
    chunks = long_stream(client(stack, "stopped", LITTLE), stream_options={"include_usage": True})

    words, last = text_of(chunks).split(), chunks[-2]
    assert 0 < len(words) < WORDS
    assert last.choices[0].finish_reason == "length"
    assert last.id == chunks[0].id
    assert (last.quaestor["stopped"], last.quaestor["limit"]) == ("budget_exceeded", "0.002")
    assert chunks[-1].quaestor["estimated"] is True
    events = last_request(stack, "stopped")
    (attempt,) = [event for event in events if isinstance(event, ProviderAttempt)]
    assert (attempt.usage_source, attempt.finish_reason) == (UsageSource.ESTIMATE, "length")
    assert attempt.error_detail == "stopped: budget_exceeded"
    assert RequestKind.COMPLETED in {event.kind for event in events if isinstance(event, RequestEvent)}
    (refused,) = budgets(events, BudgetKind.REFUSED)
    assert refused.refused_by_limit_id == last.quaestor["limit_id"]
    assert 0 < settled(stack, "stopped") <= round(LITTLE * 10**9)


def test_a_bounded_stream_of_the_same_length_is_refused_by_the_same_budget(stack: GatewayStack) -> None:
    """Its whole length does not fit: the budget is the same, only how it is held differs."""
    with pytest.raises(openai.RateLimitError) as refused:
        long_stream(client(stack, "bounded", LITTLE), max_tokens=10_000)
    assert refused.value.code == "budget_exceeded"
