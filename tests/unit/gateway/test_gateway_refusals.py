"""What is refused before a provider is called: status, shape, and the event where a tenant is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.errors import RecordRefusedError
from schemas.events import BudgetEvent, Operation, RequestEvent, RequestKind, RoutingDecision
from tests.support.gateway_answers import chat_answer
from tests.support.gateway_world import KEY, OTHER_KEY, REVOKED_KEY, Response, World, chat, control_state, limit

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


async def test_without_limits_redis_is_not_needed(tmp_path: Path) -> None:
    """There is nothing to guard."""
    async with World(tmp_path) as world:
        world.holds.away = True
        response = await world.call()

    assert 200 == response.status


async def test_a_limit_in_another_currency_refuses_rather_than_guesses(tmp_path: Path) -> None:
    """Until exchange rates exist, it can't be compared."""
    euros = limit(10**12)
    async with World(
        tmp_path,
        state=control_state(
            limits=(type(euros)(**{**{f: getattr(euros, f) for f in euros.__struct_fields__}, "currency": "EUR"}),)
        ),
    ) as world:
        response = await world.call()

    assert (503, "limit_currency") == (response.status, response.error["code"])


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
