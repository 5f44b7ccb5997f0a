"""What is refused before a provider is called: status, shape, and the event where a tenant is known."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from api.gateway.subjects import Subjects
from processors.control import ExchangeRate
from schemas.errors import RecordRefusedError
from schemas.events import (
    BudgetEvent,
    BudgetKind,
    Operation,
    ProviderAttempt,
    RequestEvent,
    RequestKind,
    RoutingDecision,
)
from schemas.money import divide_half_even
from sinks.redis.holds import PlaceHold, Placement
from tests.support.gateway_answers import chat_answer
from tests.support.gateway_world import (
    KEY,
    OTHER_KEY,
    REVOKED_KEY,
    AwayRows,
    Response,
    World,
    chat,
    control_state,
    limit,
    memory_vault,
    nobody,
)

SHAPE = {"message", "type", "param", "code"}
EMBEDDINGS = "/v1/embeddings"

BAD_BODIES: list[tuple[str, bytes, str | None]] = [
    ("empty", b"", None),
    ("not JSON", b"{", None),
    ("trailing", b'{"model":"default","messages":[{"role":"user"}]} x', None),
    ("not UTF-8", b'{"model":"\xff"}', None),
    ("not an object", b"[]", None),
    ("deep", b'{"model":"default","messages":' + b"[" * 100_000, None),
    ("NaN", b'{"model":"default","messages":[{"role":"user"}],"temperature":NaN}', None),
    ("no model", json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode(), "model"),
    ("model of wrong type", json.dumps(chat(model=7)).encode(), "model"),
    ("empty model", json.dumps(chat(model="")).encode(), "model"),
    ("no messages", json.dumps({"model": "default"}).encode(), "messages"),
    ("empty messages", json.dumps(chat(messages=[])).encode(), "messages"),
    ("messages of wrong type", json.dumps(chat(messages="hi")).encode(), "messages"),
    ("message without role", json.dumps(chat(messages=[{"content": "x"}])).encode(), "role"),
    ("stream of wrong type", json.dumps(chat(stream="yes")).encode(), "stream"),
    ("negative bound", json.dumps(chat(max_tokens=-1)).encode(), "max_tokens"),
    ("too many choices", json.dumps(chat(n=1_000)).encode(), "n"),
    ("metadata of wrong type", json.dumps(chat(metadata={"a": 1})).encode(), "metadata"),
    ("too much metadata", json.dumps(chat(metadata={str(at): "x" for at in range(17)})).encode(), "metadata"),
]


@pytest.mark.parametrize(("_name", "body", "param"), BAD_BODIES, ids=[name for name, *_ in BAD_BODIES])
async def test_a_bad_body_is_400_and_recorded(tmp_path: Path, _name: str, body: bytes, param: str | None) -> None:
    """OpenAI's shape, the field's name, no call, one REFUSED event."""
    async with World(tmp_path) as world:
        response = await world.call(body=body)
        refused = world.one(RequestEvent)

    assert (400, SHAPE, param) == (response.status, response.error.keys(), response.error["param"])
    assert (RequestKind.REFUSED, 400, len(body)) == (refused.kind, refused.status_code, refused.body_bytes)
    assert [] == world.upstream.calls


@pytest.mark.parametrize("given", [{}, {"input": ""}, {"input": []}, {"input": 5}, {"input": None}])
async def test_embeddings_need_an_input(tmp_path: Path, given: dict[str, object]) -> None:
    """A text, or a list."""
    async with World(tmp_path) as world:
        response = await world.call(EMBEDDINGS, {"model": "default", **given})

    assert (400, "input") == (response.status, response.error["param"])


@pytest.mark.parametrize("metadata", [{"a": 1}, {str(at): "x" for at in range(17)}, {"k" * 65: "x"}, {"k": "x" * 513}])
async def test_metadata_of_embeddings_is_bounded(tmp_path: Path, metadata: dict[str, object]) -> None:
    """As that of chats."""
    async with World(tmp_path) as world:
        response = await world.call(EMBEDDINGS, {"model": "default", "input": "x", "metadata": metadata})

    assert (400, "metadata") == (response.status, response.error["param"])


@pytest.mark.parametrize("size", [1_001, 5_000])
async def test_a_body_over_the_limit_is_413(tmp_path: Path, size: int) -> None:
    """Whether its length is announced or not."""
    async with World(tmp_path, body_bytes_max=1_000) as world:
        announced = await world.call(body=b"x" * size, headers={"content-length": str(size)})
        found = await world.call(body=b"x" * size)

    assert [(413, "request_too_large")] * 2 == [(one.status, one.error["code"]) for one in (announced, found)]


@pytest.mark.parametrize(
    ("key", "headers", "code"),
    [
        (None, {}, "missing_api_key"),
        (None, {"authorization": "Basic abc"}, "invalid_request"),
        (None, {"authorization": "Bearer "}, "missing_api_key"),
        ("qk_wrong", {}, "invalid_api_key"),
        ("x" * 10_000, {}, "invalid_api_key"),
        ("ключ", {"authorization": "Bearer \xff"}, "invalid_api_key"),
    ],
    ids=["missing", "basic", "empty", "wrong", "long", "bytes"],
)
async def test_without_a_known_key_nothing_is_recorded(
    tmp_path: Path, key: str | None, headers: dict[str, str], code: str
) -> None:
    """401, and no event: there is no tenant."""
    async with World(tmp_path) as world:
        response = await world.call(key=key, headers=headers)

    assert (401, code, []) == (response.status, response.error["code"], world.kinds())


async def test_a_revoked_key_is_401_and_recorded(tmp_path: Path) -> None:
    """Its tenant is still known."""
    async with World(tmp_path) as world:
        response = await world.call(key=REVOKED_KEY)
        refused = world.one(RequestEvent)

    assert (401, "invalid_api_key") == (response.status, response.error["code"])
    assert ("key_c", 401) == (refused.key_id, refused.status_code)


async def test_an_unknown_model_is_404_and_its_name_not_kept(tmp_path: Path) -> None:
    """A name that nobody knows may be anything, so the log does not hold it."""
    async with World(tmp_path) as world:
        response = await world.call(body=chat(model="bob@example.com"))
        refused = world.one(RequestEvent)

    assert (404, "model_not_found", "model") == (response.status, response.error["code"], response.error["param"])
    assert (None, "model_not_found") == (refused.model_requested, refused.error_code)


async def test_a_model_the_key_may_not_use_is_403(tmp_path: Path) -> None:
    """The decision says why every candidate was ruled out."""
    async with World(tmp_path) as world:
        response = await world.call(key=OTHER_KEY)
        decision = world.one(RoutingDecision)

    assert (403, "model_not_allowed") == (response.status, response.error["code"])
    assert {"model_not_allowed"} == {candidate.ruled_out_by for candidate in decision.candidates}
    assert decision.chosen_provider_id is None


async def test_a_model_without_price_is_refused(tmp_path: Path) -> None:
    """Its cost could not be accounted for."""
    async with World(tmp_path, state=control_state(prices={})) as world:
        response = await world.call()

    assert (400, "model_without_price") == (response.status, response.error["code"])


async def refused_by_budget(tmp_path: Path) -> tuple[World, Response]:
    """A request that finds no room."""
    async with World(tmp_path, state=control_state(limits=(limit(1_000),))) as world:
        return world, await world.call()


async def test_no_room_in_the_budget_is_429(tmp_path: Path) -> None:
    """With the limit, what is left, when it resets; the SDK is told not to try again."""
    _, response = await refused_by_budget(tmp_path)

    assert (429, "budget_exceeded", "insufficient_quota") == (
        response.status,
        response.error["code"],
        response.error["type"],
    )
    assert ("lim_a", "0.000001", "0.000001", "USD") == tuple(
        response.error[name] for name in ("limit_id", "limit", "remaining", "currency")
    )
    assert int(response.headers["retry-after"]) > 0
    assert "false" == response.headers["x-should-retry"]


async def test_no_room_in_the_budget_is_recorded_twice(tmp_path: Path) -> None:
    """As a movement that did not happen, and as the request's end."""
    world, _ = await refused_by_budget(tmp_path)

    assert ["budgets REFUSED", "decisions", "requests RECEIVED", "requests REFUSED"] == world.kinds()
    refused = world.one(BudgetEvent)
    assert ("lim_a", 1_000) == (refused.refused_by_limit_id, refused.remaining_nano)


async def test_closed_admission_is_503_with_its_reason(tmp_path: Path) -> None:
    """Redis away: come back in a second."""
    async with World(tmp_path, state=control_state(limits=(limit(10**12),))) as world:
        world.holds.away = True
        response = await world.call()

    assert (503, "redis_unreachable", "1") == (
        response.status,
        response.error["code"],
        response.headers["retry-after"],
    )
    assert [] == world.upstream.calls


async def test_a_hold_id_that_is_taken_is_409(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's shape, with the field in which the holds differ; the provider is not called, the end is recorded."""
    async with World(tmp_path, state=control_state(limits=(limit(10**12),))) as world:
        place = world.holds.place

        async def taken(ask: PlaceHold) -> Placement:
            await place(ask._replace(legs=(msgspec.structs.replace(ask.legs[0], amount_nano=1),)))
            return await place(ask)

        monkeypatch.setattr(world.holds, "place", taken)
        response = await world.call()

    assert (409, "hold_conflict", "amount_nano") == (response.status, response.error["code"], response.error["field"])
    assert response.error.keys() >= SHAPE
    assert [] == world.upstream.calls
    assert ["decisions", "requests RECEIVED", "requests REFUSED"] == world.kinds()


async def test_without_limits_redis_is_not_needed(tmp_path: Path) -> None:
    """There is nothing to guard."""
    async with World(tmp_path) as world:
        world.holds.away = True
        response = await world.call()

    assert 200 == response.status


async def test_a_limit_that_lacks_its_exchange_rate_refuses_rather_than_guesses(tmp_path: Path) -> None:
    """It can't be compared."""
    euros = msgspec.structs.replace(limit(10**12), currency="EUR")
    async with World(tmp_path, state=control_state(limits=(euros,))) as world:
        response = await world.call()

    assert (503, "limit_unusable") == (response.status, response.error["code"])
    assert [] == world.upstream.calls


async def test_a_limit_in_another_currency_is_held_at_the_rate_in_force(tmp_path: Path) -> None:
    """Rate and amount are pinned in PLACED, and what is charged is charged at it."""
    euros = msgspec.structs.replace(limit(10**12), currency="EUR")
    rate = ExchangeRate(base="USD", quote="EUR", rate_nano=500_000_000, dated="2026-11-20", source="t", rate_id="r-1")
    async with World(tmp_path, state=control_state(limits=(euros,), rates={("USD", "EUR"): rate})) as world:
        await world.call()

    placed, committed = (world.one(BudgetEvent, kind=kind) for kind in (BudgetKind.PLACED, BudgetKind.COMMITTED))
    assert ("r-1", 500_000_000) == (placed.exchange_rate_id, placed.legs[0].exchange_rate_nano)
    assert -(-placed.amount_nano // 2) == placed.legs[0].amount_nano
    assert divide_half_even(committed.amount_nano, 2) == committed.legs[0].amount_nano


@pytest.mark.parametrize(("currency", "allowed", "kind"), [("TOK", 50, "tokens"), ("REQ", 0, "requests")])
async def test_no_room_for_tokens_or_requests_is_a_rate_limit(
    tmp_path: Path, currency: str, allowed: int, kind: str
) -> None:
    """In OpenAI's words, in whole numbers; within a minute the SDK may wait and try again."""
    rate = msgspec.structs.replace(limit(allowed), currency=currency, window="minute")
    async with World(tmp_path, state=control_state(limits=(rate,))) as world:
        response = await world.call()

    assert (429, "rate_limit_exceeded", kind) == (response.status, response.error["code"], response.error["type"])
    assert (str(allowed), str(allowed), currency) == tuple(
        response.error[name] for name in ("limit", "remaining", "currency")
    )
    assert 0 < int(response.headers["retry-after"]) <= 60
    assert "x-should-retry" not in response.headers


async def test_tokens_and_requests_are_charged_as_used(tmp_path: Path) -> None:
    """What the provider counted, and one request."""
    limits = (
        msgspec.structs.replace(limit(10**6, "lim_t"), currency="TOK"),
        msgspec.structs.replace(limit(10, "lim_r"), currency="REQ"),
    )
    async with World(tmp_path, state=control_state(limits=limits)) as world:
        await world.call()

    committed, tried = world.one(BudgetEvent, kind=BudgetKind.COMMITTED), world.one(ProviderAttempt)
    used = tried.input_tokens + tried.output_tokens
    assert {"TOK": used, "REQ": 1} == {leg.currency: leg.amount_nano for leg in committed.legs}


async def test_each_run_has_a_budget_of_its_own(tmp_path: Path) -> None:
    """One run has used its own up, another has not begun."""
    each = limit(1, "lim_run", "run", "*")
    each = msgspec.structs.replace(each, currency="REQ", window="total")
    async with World(tmp_path, state=control_state(limits=(each,))) as world:
        statuses = [
            (await world.call(headers={"x-quaestor-run-id": run})).status for run in ("run-1", "run-1", "run-2")
        ]

    assert [200, 429, 200] == statuses


async def test_the_first_calls_of_an_unknown_user_are_counted(tmp_path: Path) -> None:
    """Many at once, before anybody has heard of the user: exactly the allowed ones pass."""
    each = msgspec.structs.replace(limit(3, "lim_user", "user", "*"), currency="REQ", window="total")
    async with World(tmp_path, state=control_state(limits=(each,))) as world:
        answers = await asyncio.gather(*(world.call(body=chat(user="nobody yet")) for _ in range(8)))

    assert [200] * 3 + [429] * 5 == sorted(answer.status for answer in answers)


async def test_a_user_who_can_not_be_known_waits_where_users_are_limited(tmp_path: Path) -> None:
    """The vault is away: neither counted on nobody nor let through."""
    each = msgspec.structs.replace(limit(3, "lim_user", "user", "*"), currency="REQ")
    async with World(tmp_path, state=control_state(limits=(each,))) as world:
        world.parts.subjects = Subjects(memory_vault(rows=AwayRows()), (), nobody)
        response = await world.call(body=chat(user="bob"))

    assert (503, "user_unavailable") == (response.status, response.error["code"])
    assert [] == world.upstream.calls


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-quaestor-run-id": "has spaces"}, "x-quaestor-run-id"),
        ({"x-quaestor-tags": "novalue"}, "x-quaestor-tags"),
        ({"x-quaestor-tags": "=x"}, "x-quaestor-tags"),
        ({"x-quaestor-tags": ",".join(f"k{at}=v" for at in range(17))}, "x-quaestor-tags"),
        ({"x-quaestor-tags": f"k={'v' * 600}"}, "x-quaestor-tags"),
    ],
)
async def test_labels_that_do_not_fit_are_400(tmp_path: Path, headers: dict[str, str], param: str) -> None:
    """Refused rather than cut."""
    async with World(tmp_path) as world:
        response = await world.call(headers=headers)

    assert (400, param) == (response.status, response.error["param"])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/responses", 404, "unknown_url"),
        ("POST", "/v1/messages", 404, "unknown_url"),
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_other_paths_answer_in_openais_shape(
    tmp_path: Path, method: str, path: str, status: int, code: str
) -> None:
    """Also those that come later."""
    async with World(tmp_path) as world:
        response = await world.call(path, method=method)

    assert (status, code, SHAPE) == (response.status, response.error["code"], response.error.keys())


async def test_models_are_those_the_key_may_ask_for(tmp_path: Path) -> None:
    """OpenAI's list shape."""
    async with World(tmp_path) as world:
        mine = await world.call("/v1/models", method="GET")
        others = await world.call("/v1/models", method="GET", key=OTHER_KEY)
        nobody = await world.call("/v1/models", method="GET", key=None)

    assert ["cheap", "default", "one/big", "two/big"] == [model["id"] for model in mine.json["data"]]
    assert ["cheap"] == [model["id"] for model in others.json["data"]]
    assert 401 == nobody.status


async def test_too_many_requests_at_once_are_turned_away(tmp_path: Path) -> None:
    """503 with Retry-After, before anything is read."""
    async with World(tmp_path) as world:
        world.parts.meters.in_flight = 1_000
        response = await world.call()

    assert (503, "overloaded") == (response.status, response.error["code"])


async def test_a_bug_is_500_and_leaves_no_open_hold(tmp_path: Path) -> None:
    """What was placed is settled on the way out, through the spool."""
    async with World(tmp_path, lambda _: chat_answer()) as world:
        world.parts.secrets.resolve = None  # type: ignore[assignment,method-assign]  # a bug, for once
        response = await world.call()
        await world.journal.stop()

    assert (500, "internal_error") == (response.status, response.error["code"])
    assert "budgets RELEASED" in world.kinds()
    assert "requests REFUSED" in world.kinds()


async def test_an_answer_that_can_not_be_recorded_is_not_given(tmp_path: Path) -> None:
    """A record that Kafka refuses for good: 500, and nothing of the provider's answer."""
    async with World(tmp_path) as world:
        record = world.journal._recorder.record

        async def refuse_the_end(events: list[RequestEvent], traceparent: bytes | None = None) -> None:
            if any(getattr(event, "kind", None) is RequestKind.COMPLETED for event in events):
                raise RecordRefusedError
            await record(events, traceparent)

        world.journal._recorder.record = refuse_the_end  # type: ignore[method-assign,assignment]  # Kafka's part
        response = await world.call()

    assert (500, "not_recorded") == (response.status, response.error["code"])
    assert b"hi there" not in response.body


async def test_nothing_personal_is_in_refusals(tmp_path: Path) -> None:
    """Neither the caller's words nor its key stand in an error or an event."""
    async with World(tmp_path) as world:
        response = await world.call(body=b'{"model":"default","messages":"my secret words"}')
        everything = b"".join(record.value or b"" for records in world.log.records.values() for record in records)

    assert b"secret" not in response.body + everything
    assert KEY.encode() not in response.body + everything
    assert Operation.CHAT_COMPLETIONS == world.one(RequestEvent).operation
