"""Attempts that fail: who is tried next, what is charged, and what the caller is told in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from api.providers.errors import UpstreamError, UpstreamTimeoutError, UpstreamUnreachableError
from api.providers.memory import MemoryAnswer
from processors.control import Provider
from schemas.events import BudgetEvent, BudgetKind, ProviderAttempt, RequestEvent, RequestKind
from tests.support.gateway_answers import JSON, chat_answer, error_answer
from tests.support.gateway_world import TENANT, Response, World, control_state, limit

Maker = Callable[[], MemoryAnswer | UpstreamError]

FAILURES: list[tuple[str, Maker, int, str]] = [
    ("unreachable", UpstreamUnreachableError, 502, "provider_unreachable"),
    ("timeout", UpstreamTimeoutError, 504, "provider_timeout"),
    ("500", lambda: error_answer(500), 502, "provider_error"),
    ("503", lambda: error_answer(503), 503, "provider_overloaded"),
    ("504", lambda: error_answer(504), 504, "provider_timeout"),
    ("429", lambda: error_answer(429), 429, "rate_limit_exceeded"),
    ("401", lambda: error_answer(401), 502, "provider_configuration"),
    ("404", lambda: error_answer(404), 502, "provider_configuration"),
    ("302", lambda: error_answer(302), 502, "provider_error"),
    ("garbage", lambda: MemoryAnswer(200, [b"<html>"], JSON), 502, "provider_invalid_response"),
    ("no choices", lambda: MemoryAnswer(200, [b"{}"], JSON), 502, "provider_invalid_response"),
]
IDS = [name for name, *_ in FAILURES]


@asynccontextmanager
async def applying(world: World) -> AsyncIterator[None]:
    """The sink's part: what is recorded of holds is applied soon after."""

    async def apply() -> None:
        applied = 0
        while True:
            budgets = [event for event in world.events("budgets") if isinstance(event, BudgetEvent)]
            for event in budgets[applied:]:
                world.holds.apply(TENANT, event)
            applied = len(budgets)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(apply())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("_name", "fail", "status", "code"), FAILURES, ids=IDS)
async def test_the_next_candidate_answers(tmp_path: Path, _name: str, fail: Maker, status: int, code: str) -> None:
    """The caller never learns of the first one's failure, except by the count."""
    answers = [fail(), chat_answer()]
    async with World(tmp_path, lambda _: answers.pop(0)) as world:
        response = await world.call()

    assert (200, "2", "two-big") == (
        response.status,
        response.headers["x-quaestor-attempts"],
        response.headers["x-quaestor-model"],
    )


@pytest.mark.parametrize(("_name", "fail", "status", "code"), FAILURES, ids=IDS)
async def test_when_all_fail_the_last_failure_is_told(
    tmp_path: Path, _name: str, fail: Maker, status: int, code: str
) -> None:
    """In OpenAI's shape, with the status that its SDK maps."""
    async with World(tmp_path, lambda _: fail()) as world:
        response = await world.call()
        failed = world.one(RequestEvent, kind=RequestKind.FAILED)

    assert (status, code) == (response.status, response.error["code"])
    assert (status, code, 2) == (failed.status_code, failed.error_code, failed.attempt_count)


async def fail_once(tmp_path: Path, fail: MemoryAnswer | UpstreamError) -> tuple[World, Response]:
    """One failure, then success."""
    answers = [fail, chat_answer()]
    async with World(tmp_path, lambda _: answers.pop(0)) as world:
        return world, await world.call()


async def test_an_attempt_that_used_nothing_is_released(tmp_path: Path) -> None:
    """An error costs nothing; its hold is freed."""
    world, response = await fail_once(tmp_path, error_answer(500))

    movements = [event.kind for event in world.events("budgets") if isinstance(event, BudgetEvent)]
    assert [BudgetKind.PLACED, BudgetKind.RELEASED, BudgetKind.PLACED, BudgetKind.COMMITTED] == movements
    assert "0.00036" == response.headers["x-quaestor-cost"]


async def test_an_attempt_that_timed_out_is_charged_its_input(tmp_path: Path) -> None:
    """The model may have read it: an estimate is charged, and the caller's cost holds both attempts."""
    world, response = await fail_once(tmp_path, UpstreamTimeoutError())

    movements = [event.kind for event in world.events("budgets") if isinstance(event, BudgetEvent)]
    assert [BudgetKind.PLACED, BudgetKind.COMMITTED, BudgetKind.PLACED, BudgetKind.COMMITTED] == movements
    completed = world.one(RequestEvent, kind=RequestKind.COMPLETED)
    costs = sum(event.amount_nano for event in world.events("costs") if hasattr(event, "amount_nano"))
    assert completed.amount_nano == costs > 360_000
    assert "0.00036" != response.headers["x-quaestor-cost"]


async def test_an_attempt_that_the_provider_failed_is_no_request_to_a_limit_on_them(tmp_path: Path) -> None:
    """The first times out and costs its input, the second answers: the caller made one request."""
    requests = msgspec.structs.replace(limit(2, "lim_r"), currency="REQ")
    answers = [UpstreamTimeoutError(), chat_answer()]
    async with World(tmp_path, lambda _: answers.pop(0), state=control_state(limits=(requests,))) as world:
        await world.call()

    budgets = [event for event in world.events("budgets") if isinstance(event, BudgetEvent)]
    charged = [event for event in budgets if event.kind is BudgetKind.COMMITTED]
    assert [0, 1] == [event.legs[0].amount_nano for event in charged]
    assert all(event.amount_nano for event in charged)


async def test_each_attempt_has_a_hold_of_its_own(tmp_path: Path) -> None:
    """Attempt and hold share their id, and each attempt its own."""
    world, _ = await fail_once(tmp_path, error_answer(500))

    attempts = [event.attempt_id for event in world.events("attempts") if isinstance(event, ProviderAttempt)]
    holds = {event.hold_id for event in world.events("budgets") if isinstance(event, BudgetEvent)}
    assert set(attempts) == holds
    assert 2 == len(holds)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_the_callers_own_fault_is_passed_through(tmp_path: Path, status: int) -> None:
    """The provider's words reach the caller; no other candidate is asked."""
    async with World(tmp_path, lambda _: error_answer(status, "bad_param", "words of the provider")) as world:
        response = await world.call()

    assert (status, "words of the provider") == (response.status, response.error["message"])
    assert 1 == len(world.upstream.calls)


async def test_nothing_of_the_providers_message_is_recorded(tmp_path: Path) -> None:
    """It may quote the caller: events keep the status and a safe code only."""
    async with World(tmp_path, lambda _: error_answer(400, "bad_param", "you said: secret words")) as world:
        await world.call()
        everything = b"".join(record.value or b"" for records in world.log.records.values() for record in records)
        attempt = world.one(ProviderAttempt)

    assert b"secret" not in everything
    assert "HTTP 400 bad_param" == attempt.error_detail


async def test_a_refusal_that_is_not_openais_shape_is_wrapped(tmp_path: Path) -> None:
    """Callers always get the shape they know."""
    async with World(tmp_path, lambda _: MemoryAnswer(400, [b"<h1>no</h1>"])) as world:
        response = await world.call()

    assert (400, "provider_refused") == (response.status, response.error["code"])


async def test_the_providers_retry_after_is_told(tmp_path: Path) -> None:
    """When the last candidate limits the rate, its word on when to come back stands."""
    async with World(tmp_path, lambda _: error_answer(429, **{"retry-after": "17"})) as world:
        response = await world.call()

    assert "17" == response.headers["retry-after"]


async def test_a_missing_secret_fails_over(tmp_path: Path) -> None:
    """Nothing is sent to a provider whose credential can't be read."""
    providers = {
        "one": Provider(
            provider_id="one", base_url="http://one.test", secret_ref="file:/no/such", models={"big": "one-big"}
        ),
        "two": Provider(provider_id="two", base_url="http://two.test", models={"big": "two-big"}),
    }
    async with World(tmp_path, state=control_state(providers=providers)) as world:
        response = await world.call()

    assert (200, ["http://two.test/chat/completions"]) == (response.status, [call.url for call in world.upstream.calls])


async def test_room_for_one_attempt_is_enough_for_a_failover(tmp_path: Path) -> None:
    """What the first attempt held is free once the sink has applied its end: it does not refuse the second."""
    answers = [error_answer(500), chat_answer()]
    state = control_state(limits=(limit(400_000),))
    async with World(tmp_path, lambda _: answers.pop(0), state=state) as world, applying(world):
        response = await world.call()
        budgets = [event.kind for event in world.events("budgets") if isinstance(event, BudgetEvent)]

    assert 200 == response.status
    assert [BudgetKind.PLACED, BudgetKind.RELEASED, BudgetKind.PLACED, BudgetKind.COMMITTED] == budgets[:4]


async def test_what_is_freed_but_not_applied_in_time_refuses_the_next_attempt(tmp_path: Path) -> None:
    """There is room for one only, and no sink: the caller is told within a moment."""
    async with World(tmp_path, lambda _: error_answer(500), state=control_state(limits=(limit(400_000),))) as world:
        response = await world.call()
        kinds = world.kinds()

    assert (429, "budget_exceeded") == (response.status, response.error["code"])
    assert ["attempts PROVIDER_ERROR", "budgets PLACED", "budgets REFUSED", "budgets RELEASED", "decisions"] == kinds[
        :5
    ]
    assert ["requests FAILED", "requests RECEIVED"] == kinds[5:]
