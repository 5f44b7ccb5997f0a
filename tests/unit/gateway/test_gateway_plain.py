"""A plain answer: what is recorded, when, and what the caller gets."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from api.providers.memory import MemoryAnswer
from api.providers.upstream import Call
from processors.control import ExchangeRate
from processors.pricing import Rates, make_book
from schemas.events import (
    BudgetEvent,
    BudgetKind,
    CostEvent,
    Meter,
    ProviderAttempt,
    RequestEvent,
    RequestKind,
    RoutingDecision,
    UsageSource,
)
from sinks.redis.holds import Confirmation
from tests.support.gateway_answers import JSON, chat_answer, chat_body, embeddings_answer
from tests.support.gateway_world import TENANT, World, chat, control_state, limit, price

WHOLE = [
    "attempts SUCCEEDED",
    "budgets COMMITTED",
    "budgets PLACED",
    "costs CHARGE",
    "costs CHARGE",
    "decisions",
    "requests COMPLETED",
    "requests RECEIVED",
]


async def test_the_providers_body_reaches_the_caller_untouched(tmp_path: Path) -> None:
    """Not a byte of the answer changes."""
    body = chat_body(extra={"odd": [1.50, None]})
    async with World(tmp_path, lambda _: MemoryAnswer(200, [body[:9], body[9:]], JSON)) as world:
        response = await world.call()

    assert (200, body) == (response.status, response.body)


async def test_an_answer_leaves_the_whole_story_in_the_log(tmp_path: Path) -> None:
    """One of each event, two cost lines."""
    async with World(tmp_path) as world:
        await world.call()

        assert WHOLE == world.kinds()


async def test_headers_say_id_model_attempts_and_cost(tmp_path: Path) -> None:
    """100 tokens at 2 dollars and 20 at 8 dollars per million are 0.00036 dollars."""
    async with World(tmp_path) as world:
        headers = (await world.call()).headers
        received = world.one(RequestEvent, kind=RequestKind.RECEIVED)

    assert "0.00036" == headers["x-quaestor-cost"]
    assert "one-big" == headers["x-quaestor-model"]
    assert "1" == headers["x-quaestor-attempts"]
    assert received.request_id == headers["x-quaestor-request-id"]


async def test_the_committed_amount_is_the_sum_of_the_costs(tmp_path: Path) -> None:
    """Budgets and costs meet per attempt."""
    async with World(tmp_path) as world:
        await world.call()
        costs = [event for event in world.events("costs") if isinstance(event, CostEvent)]
        committed = world.one(BudgetEvent, kind="COMMITTED")
        completed = world.one(RequestEvent, kind=RequestKind.COMPLETED)

    assert {360_000} == {sum(cost.amount_nano for cost in costs), committed.amount_nano, completed.amount_nano}
    assert {committed.hold_id} == {cost.attempt_id for cost in costs}


async def test_the_price_in_force_at_placement_is_pinned(tmp_path: Path) -> None:
    """PLACED names the version of the book in force, and so do charge and costs: a book of during the call is none."""
    dearer = msgspec.structs.replace(price("one", "one-big"), rates=Rates(input=9_000_000, output=9_000_000))
    prices, books = {("one", "one-big"): dearer}, {"one": make_book("one", [dearer])}
    async with World(tmp_path) as world:
        in_force = world.control.state.price_version("one")

        def answering(_: Call) -> MemoryAnswer:
            world.with_state(prices=prices, books=books)
            return chat_answer()

        world.upstream.answer = answering
        await world.call()
        movements = [event for event in world.events("budgets", "costs") if isinstance(event, BudgetEvent | CostEvent)]
        placed, committed = (world.one(BudgetEvent, kind=kind) for kind in (BudgetKind.PLACED, BudgetKind.COMMITTED))

    assert world.control.state.price_version("one") != in_force
    assert [in_force] * 4 == [event.price_version for event in movements]
    assert (in_force, 360_000) == (placed.price_version, committed.amount_nano)


async def test_the_exchange_rate_in_force_at_placement_is_pinned(tmp_path: Path) -> None:
    """What is charged on a limit in euros is charged at the rate of PLACED, whatever was set during the call."""
    euros = msgspec.structs.replace(limit(10**12), currency="EUR")
    rate = ExchangeRate(base="USD", quote="EUR", rate_nano=500_000_000, dated="2026-11-20", source="t", rate_id="r-1")
    later = msgspec.structs.replace(rate, rate_nano=900_000_000, rate_id="r-2")
    async with World(tmp_path, state=control_state(limits=(euros,), rates={("USD", "EUR"): rate})) as world:

        def answering(_: Call) -> MemoryAnswer:
            world.with_state(limits=(euros,), rates={("USD", "EUR"): later})
            return chat_answer()

        world.upstream.answer = answering
        await world.call()
        placed, committed = (world.one(BudgetEvent, kind=kind) for kind in (BudgetKind.PLACED, BudgetKind.COMMITTED))

    assert [("r-1", 500_000_000)] * 2 == [
        (event.exchange_rate_id, event.legs[0].exchange_rate_nano) for event in (placed, committed)
    ]
    assert (360_000, 180_000) == (committed.amount_nano, committed.legs[0].amount_nano)


async def test_cached_tokens_have_their_own_line(tmp_path: Path) -> None:
    """40 of 100 input tokens were read from the provider's cache."""
    usage = {"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 40}}
    async with World(tmp_path, lambda _: chat_answer(usage=usage)) as world:
        await world.call()
        lines = {event.meter: event.quantity for event in world.events("costs") if isinstance(event, CostEvent)}

    assert {Meter.INPUT_TOKENS: 60, Meter.CACHED_INPUT_TOKENS: 40} == lines


async def test_nothing_is_called_before_placed_is_recorded(tmp_path: Path) -> None:
    """When the provider is called, the log holds RECEIVED, the decision and PLACED, and nothing more."""
    seen: list[list[str]] = []

    def answer(_: Call) -> MemoryAnswer:
        seen.append(world.kinds())
        return chat_answer()

    async with World(tmp_path, answer) as world:
        await world.call()

    assert [["budgets PLACED", "decisions", "requests RECEIVED"]] == seen


async def test_nothing_is_answered_before_completed_is_recorded(tmp_path: Path) -> None:
    """When the body goes out, the log holds everything."""
    seen: list[list[str]] = []
    async with World(tmp_path) as world:
        await world.call(on_piece=lambda _: seen.append(world.kinds()))

    assert [WHOLE] == seen


async def test_unknown_fields_pass_and_the_model_is_the_candidates(tmp_path: Path) -> None:
    """The provider sees its own name of the model, and all else as the caller wrote it."""
    raw = b'{"model":"default","messages":[{"role":"user","content":"x"}],"seed":1.50,"new_field":{"a":[1e3]}}'
    async with World(tmp_path) as world:
        await world.call(body=raw)
        sent = world.upstream.calls[0]

    expected = b'{"model":"one-big","messages":[{"role":"user","content":"x"}],"seed":1.50,"new_field":{"a":[1e3]}}'
    assert ("http://one.test/v1/chat/completions", expected) == (sent.url, sent.body)


async def test_missing_usage_is_estimated_and_marked(tmp_path: Path) -> None:
    """Eight characters of answer are two tokens; every line says that it is an estimate."""
    async with World(tmp_path, lambda _: chat_answer(usage=None)) as world:
        await world.call()
        attempt = world.one(ProviderAttempt)
        estimated = {event.estimated for event in world.events("costs") if isinstance(event, CostEvent)}

    assert (UsageSource.ESTIMATE, 2) == (attempt.usage_source, attempt.output_tokens)
    assert {True} == estimated


async def test_explicit_zero_usage_stands(tmp_path: Path) -> None:
    """A provider that says zero is believed; the input line exists all the same."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    async with World(tmp_path, lambda _: chat_answer(usage=usage)) as world:
        response = await world.call()
        cost = world.one(CostEvent)

    assert ("0.00", Meter.INPUT_TOKENS, 0) == (response.headers["x-quaestor-cost"], cost.meter, cost.quantity)


async def test_embeddings_are_charged_for_their_input(tmp_path: Path) -> None:
    """Seven tokens, one line."""
    async with World(tmp_path, lambda _: embeddings_answer()) as world:
        response = await world.call("/v1/embeddings", {"model": "default", "input": "seven tokens or so"})
        cost = world.one(CostEvent)

    assert (200, 7) == (response.status, cost.quantity)
    assert "http://one.test/v1/embeddings" == world.upstream.calls[0].url


async def test_the_hold_covers_the_dearest_reading_of_the_request(tmp_path: Path) -> None:
    """Every byte of the body may be a token, and all ten tokens asked for may come."""
    async with World(tmp_path, state=control_state(limits=(limit(10**12),))) as world:
        await world.call()
        placed = world.one(BudgetEvent, kind="PLACED")
        sent = world.upstream.calls[0]

    assert len(sent.body) * 2_000 + 10 * 8_000 == placed.amount_nano
    assert [(placed.amount_nano, placed.amount_nano)] == [(leg.amount_nano, leg.held_nano) for leg in placed.legs]


@pytest.mark.parametrize(("new", "old"), [(1, 900), (900, 1), (None, 900), (900, None)])
async def test_of_two_bounds_of_the_answer_the_larger_is_held(tmp_path: Path, new: int | None, old: int | None) -> None:
    """Both reach the provider, which may go by either: 900 tokens at 8 dollars per million, and the input."""
    async with World(tmp_path) as world:
        await world.call(body=chat(max_completion_tokens=new, max_tokens=old))
        size = len(world.upstream.calls[0].body)

    assert size * 2_000 + 900 * 8_000 == world.one(BudgetEvent, kind=BudgetKind.PLACED).amount_nano


async def test_more_than_was_held_is_an_overage(tmp_path: Path) -> None:
    """A provider that reports more than it was asked for is charged in full, and it is said."""
    usage = {"prompt_tokens": 10**6, "completion_tokens": 0}
    async with World(
        tmp_path, lambda _: chat_answer(usage=usage), state=control_state(limits=(limit(10**12),))
    ) as world:
        await world.call()
        committed, overage = world.one(BudgetEvent, kind="COMMITTED"), world.one(BudgetEvent, kind="OVERAGE")

    assert 2_000_000_000 == committed.amount_nano
    assert committed.amount_nano - committed.legs[0].held_nano == overage.legs[0].amount_nano == overage.amount_nano


@pytest.mark.parametrize(("beyond_micros", "late"), [(0, False), (1, True)])
async def test_a_charge_after_the_lease_is_marked_late(tmp_path: Path, beyond_micros: int, late: bool) -> None:
    """The gateway can't see EXPIRED, but it knows when its lease ended."""
    async with World(tmp_path) as world:
        clock = [world.parts.now()]
        world.parts.now = lambda: clock[0]

        def answering(_: Call) -> MemoryAnswer:
            clock[0] = (world.one(BudgetEvent, kind="PLACED").lease_until or 0) + beyond_micros
            return chat_answer()

        world.upstream.answer = answering
        await world.call()
        committed = world.one(BudgetEvent, kind="COMMITTED")

    assert late is committed.late


async def test_the_decision_names_every_candidate(tmp_path: Path) -> None:
    """Both candidates stand in it, the first is chosen."""
    async with World(tmp_path) as world:
        await world.call()
        decision = world.one(RoutingDecision)

    assert ["one", "two"] == [candidate.provider_id for candidate in decision.candidates]
    assert ("one", "one-big", "v1") == (decision.chosen_provider_id, decision.chosen_model, decision.policy_version)


async def test_an_unconfirmed_hold_is_released_and_the_caller_told_to_retry(tmp_path: Path) -> None:
    """Confirm refuses when the state's generation changed after placement: no provider is called."""
    async with World(tmp_path, state=control_state(limits=(limit(10**12),))) as world:

        async def refuse(*_: str) -> Confirmation:
            return Confirmation.GENERATION

        world.holds.confirm = refuse  # type: ignore[method-assign]  # the sink's part
        response = await world.call()
        kinds = world.kinds()

    assert (503, "hold_generation") == (response.status, response.error["code"])
    assert "1" == response.headers["retry-after"]
    assert ["budgets PLACED", "budgets RELEASED", "decisions", "requests RECEIVED", "requests REFUSED"] == kinds
    assert [] == world.upstream.calls


async def test_a_run_id_is_the_key_of_the_records(tmp_path: Path) -> None:
    """Everything of a run is in one partition of each topic."""
    async with World(tmp_path) as world:
        await world.call(headers={"x-quaestor-run-id": "run-7"})
        keys = {
            record.key
            for partition, records in world.log.records.items()
            for record in records
            if partition.topic != "quaestor.budgets"
        }

    assert {f"{TENANT}/run-7".encode()} == keys


async def test_traceparent_passes_through(tmp_path: Path) -> None:
    """Every record of the request carries the caller's trace."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with World(tmp_path) as world:
        await world.call(headers={"traceparent": trace})
        headers = [dict(record.headers) for records in world.log.records.values() for record in records]

    assert {trace.encode()} == {one.get("traceparent") for one in headers}


async def test_metrics_count_requests_by_status(tmp_path: Path) -> None:
    """One success, one unknown model."""
    async with World(tmp_path) as world:
        await world.call()
        await world.call(body=chat(model="nobody"))
        text = (await world.call("/metrics", method="GET")).body.decode()

    assert 'quaestor_requests_total{operation="CHAT_COMPLETIONS",status="200"} 1.0' in text
    assert 'quaestor_requests_total{operation="CHAT_COMPLETIONS",status="404"} 1.0' in text
