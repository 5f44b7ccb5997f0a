"""Budgets by the console's API: what is set is recorded, repeats are harmless, and refusals say what is wrong."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from processors.budgets import Counter, Sums
from processors.calendar import window_of
from processors.control import Limit
from schemas.errors import StoreUnavailableError
from schemas.limits import CONSOLE_BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARACTERS_MAX
from schemas.money import NANO_PER_UNIT
from sinks.redis.reads import TenantState
from tests.support.console import TOKEN, Answer, ConsoleWorld

BUDGETS = "/api/budgets"
BASIC = {"tenant": "acme", "amount": "100.50"}
LATER, EARLIER = "2999-01-01T00:00:00Z", "2001-01-01T00:00:00Z"
NOWHERE = f"{BUDGETS}/lim_0000000000000000"


@pytest.fixture
def world(tmp_path: Path) -> ConsoleWorld:
    """A console over an empty log in memory."""
    return ConsoleWorld(tmp_path)


async def a_limit(world: ConsoleWorld, **more: Any) -> str:
    """The id of a limit of acme's."""
    return str((await world.change(BUDGETS, BASIC | more, key="first")).json()["limit"]["id"])


async def test_a_limit_that_is_set_is_an_event(world: ConsoleWorld) -> None:
    """Recorded with who did it and why; the answer has its id and the limit with its usual thresholds."""
    answer = await world.change(BUDGETS, BASIC | {"currency": "EUR", "reason": "pilot"})

    (event,), told = world.events(), answer.json()
    actor = f"console/{hashlib.sha256(TOKEN.encode()).hexdigest()[:8]}"
    assert (200, event.event_id, event.entity_id) == (answer.status, told["event_id"], told["limit"]["id"])
    assert (actor, "pilot") == (event.actor, event.reason)
    assert ("100.50", "EUR", "month", "tenant", "acme") == tuple(
        told["limit"][name] for name in ("amount", "currency", "window", "scope", "scope_id")
    )
    assert [85, 95] == [one["percent"] for one in told["limit"]["thresholds"]]


async def test_everything_of_a_limit_can_be_said(world: ConsoleWorld) -> None:
    """Place, unit, window, zone, times, thresholds: all of it is in the event."""
    wanted = {
        "tenant": "acme",
        "amount": "5000",
        "currency": "tokens",
        "window": "day",
        "scope": "tag",
        "scope_id": "environment=*",
        "hard": False,
        "time_zone": "Europe/Rome",
        "valid_from": "2026-01-01T00:00:00+01:00",
        "valid_until": LATER,
        "name": "second",
        "thresholds": [{"percent": 95, "action": "block"}, {"percent": 80, "action": "cheaper", "models": ["small*"]}],
    }

    limit = (await world.change(BUDGETS, wanted)).json()["limit"]

    recorded = msgspec.json.decode(world.events()[0].after or "", type=Limit)
    assert ("TOK", 5000, False) == (recorded.currency, recorded.amount_nano, recorded.hard)
    assert ("environment=*", "Europe/Rome", "second") == (limit["scope_id"], limit["time_zone"], limit["name"])
    assert ("2025-12-31T23:00:00+00:00", "2999-01-01T00:00:00+00:00") == (limit["valid_from"], limit["valid_until"])
    assert [(80, "cheaper", ["small*"]), (95, "block", [])] == [
        (one["percent"], one["action"], one["models"]) for one in limit["thresholds"]
    ]


async def test_what_a_change_does_not_say_stays(world: ConsoleWorld) -> None:
    """Zone and times of a limit; null takes a time away."""
    zoned = BASIC | {"time_zone": "Europe/Rome", "valid_from": EARLIER, "valid_until": LATER}
    await world.change(BUDGETS, zoned, key="first")

    raised = (await world.change(BUDGETS, BASIC | {"amount": "7"}, key="second")).json()["limit"]
    for_ever = (await world.change(BUDGETS, BASIC | {"valid_until": None}, key="third")).json()["limit"]

    assert ("7.00", "Europe/Rome", "2001-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00") == tuple(
        raised[name] for name in ("amount", "time_zone", "valid_from", "valid_until")
    )
    assert (raised["valid_from"], None) == (for_ever["valid_from"], for_ever["valid_until"])


async def test_a_limit_does_not_move_to_another_zone(world: ConsoleWorld) -> None:
    """It would begin at nothing."""
    await world.change(BUDGETS, BASIC | {"time_zone": "Europe/Rome"}, key="first")

    refused = await world.change(BUDGETS, BASIC | {"time_zone": "UTC"}, key="second")

    assert (422, "invalid_value", "time_zone") == told(refused)


async def test_a_repeat_is_answered_as_before(world: ConsoleWorld) -> None:
    """The same bytes, though the limit has changed since, and no second event."""
    first = await world.change(BUDGETS, BASIC)
    await world.change(BUDGETS, BASIC | {"amount": "7"}, key="another")

    again = await world.change(BUDGETS, BASIC)

    assert (200, first.body) == (again.status, again.body)
    assert 2 == len(world.events())


async def test_a_repeat_is_known_after_a_restart(world: ConsoleWorld, tmp_path: Path) -> None:
    """The log remembers: another console over it gives the same answer."""
    made = await world.change(BUDGETS, BASIC)
    restarted = ConsoleWorld(tmp_path / "other")
    restarted.control_log = world.control_log

    again = await restarted.change(BUDGETS, BASIC)

    assert made.body == again.body
    assert 1 == len(world.events())


async def test_repeats_at_the_same_time_are_one_change(world: ConsoleWorld) -> None:
    """Callers that lost patience find each other."""
    limit = await a_limit(world)
    more = {"amount": "1", "valid_until": LATER, "approval_code": "FIN-1"}

    answers = await asyncio.gather(*(world.change(f"{BUDGETS}/{limit}/increases", more) for _ in range(8)))

    assert 1 == len({answer.body for answer in answers})
    assert "101.50" == answers[0].json()["limit"]["allowed"]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"amount": "100.51"}, "amount"),
        ({"tenant": "other"}, "tenant"),
        ({"window": "day"}, "window"),
        ({"currency": "EUR"}, "currency"),
        ({"hard": False}, "hard"),
        ({"time_zone": "Europe/Rome"}, "time_zone"),
        ({"valid_until": LATER}, "valid_until"),
        ({"name": "second"}, "name"),
        ({"thresholds": [{"percent": 3}]}, "thresholds"),
        ({"reason": "other"}, "reason"),
    ],
)
async def test_a_key_belongs_to_one_body(world: ConsoleWorld, more: dict[str, Any], field: str) -> None:
    """409 with the field that differs, and nothing recorded."""
    await world.change(BUDGETS, BASIC)

    refused = await world.change(BUDGETS, BASIC | more)

    assert (409, "idempotency_key_reused", field) == told(refused)
    assert 1 == len(world.events())


async def test_a_key_belongs_to_one_operation(world: ConsoleWorld) -> None:
    """Whatever else is asked under it, on this limit or another."""
    limit = await a_limit(world)
    more = {"amount": "1", "valid_until": LATER, "approval_code": "FIN-1"}
    asked: list[tuple[str, Any]] = [
        (f"{BUDGETS}/{limit}", None),
        (NOWHERE, None),
        (f"{BUDGETS}/{limit}/increases", more),
        ("/api/budget-profiles/eu-default", {"tenant": "acme"}),
        ("/api/rates", {"base": "USD", "quote": "EUR", "rate": "0.9", "dated": "2026-11-20", "source": "treasury"}),
    ]

    refused = [await world.change(path, body, key="first") for path, body in asked]

    assert [(409, "idempotency_key_reused")] * len(asked) == [told(one)[:2] for one in refused]
    assert 1 == len(world.events())


async def test_the_same_said_otherwise_is_the_same(world: ConsoleWorld) -> None:
    """A repeat is judged by what it would change, not by its bytes."""
    first = await world.change(BUDGETS, BASIC)

    again = await world.change(BUDGETS, {"amount": "100.500", "tenant": "acme", "scope": "tenant", "scope_id": "acme"})

    assert first.body == again.body


async def test_what_is_so_already_records_nothing(world: ConsoleWorld) -> None:
    """And says so by having no event."""
    await world.change(BUDGETS, BASIC)

    answer = (await world.change(BUDGETS, BASIC, key="another")).json()

    assert (None, None, "100.50") == (answer["event_id"], answer["occurred_at"], answer["limit"]["amount"])
    assert 1 == len(world.events())


@pytest.mark.parametrize("key", ["", "x" * (IDEMPOTENCY_KEY_CHARACTERS_MAX + 1), "with space", "ü"])
async def test_a_change_needs_a_key(world: ConsoleWorld, key: str) -> None:
    """One that names a change, and can be a header."""
    headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})

    answer = await world.ask(BUDGETS, method="POST", headers=headers, body=b'{"tenant": "acme", "amount": "1"}')

    assert (400, "idempotency_key_missing", "Idempotency-Key") == told(answer)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'{"tenant": "\xff", "amount": "1"}', None),
        (b'{"tenant": "acme"}', "amount"),
        (b'{"tenant": "acme", "amount": 100.5}', "amount"),
        (b'{"tenant": "acme", "amount": 100}', "amount"),
        (b'{"tenant": "acme", "amount": "1", "ammount": "2"}', "ammount"),
        (b'{"tenant": "acme", "amount": "1", "hard": "yes"}', "hard"),
        (b'{"tenant": "acme", "amount": "1", "valid_from": "tomorrow"}', "valid_from"),
        (b'{"tenant": "acme", "amount": "1", "valid_from": "2026-01-01T00:00:00"}', "valid_from"),
        (b'{"tenant": "acme", "amount": "1", "thresholds": [{"percent": "80"}]}', "thresholds[0].percent"),
        (b'{"tenant": "acme", "amount": "1", "thresholds": [{"per": 80}]}', "thresholds[0].per"),
        (b'{"tenant": "acme", "amount": "1", "reason": "two\\nlines"}', "reason"),
    ],
)
async def test_a_body_of_another_shape_is_told(world: ConsoleWorld, body: bytes, field: str | None) -> None:
    """400 with the field; money is a string, times have a zone, and nothing is guessed."""
    headers = {"idempotency-key": "k", "content-type": "application/json; charset=utf-8"}

    answer = await world.ask(BUDGETS, method="POST", headers=headers, body=body)

    assert (400, "invalid_request", field) == told(answer)
    assert not world.events()


@pytest.mark.parametrize(
    ("more", "code", "field", "words"),
    [
        ({"tenant": "_system"}, "invalid_name", "tenant", "names that begin with _ are the system's"),
        ({"amount": "9000000.000000001"}, "invalid_amount", "amount", "from 0 to 9,000,000 units of currency"),
        ({"amount": "-1"}, "invalid_amount", "amount", "from 0 to 9,000,000 units of currency"),
        ({"amount": "1e3x"}, "invalid_amount", "amount", "'1e3x' is not a decimal number"),
        ({"amount": "0.0000000001"}, "invalid_amount", "amount", "finer than"),
        ({"amount": "1.5", "currency": "tokens"}, "invalid_amount", "amount", "not a whole number of tokens"),
        ({"currency": "GBP"}, "invalid_value", "currency", "a limit counts one of USD, EUR, TOK, REQ, not 'GBP'"),
        ({"window": "fortnight"}, "invalid_value", "window", "the window is one of"),
        ({"scope": "planet"}, "invalid_value", "scope", "a limit stands on one of"),
        ({"scope": "team"}, "invalid_name", "scope_id", "'' can't be a team"),
        ({"scope": "key", "scope_id": "key_none"}, "unknown_key", "scope_id", "has no key 'key_none'"),
        ({"scope": "tag", "scope_id": "customer=*"}, "invalid_value", "scope_id", "no call would count"),
        ({"scope": "tag", "scope_id": "prod"}, "invalid_name", "scope_id", "a tag is given as name=value"),
        ({"scope": "team", "scope_id": "a", "user": "ann"}, "invalid_value", "user", "stands on one thing"),
        ({"scope": "model", "scope_id": "gpt-4o*"}, "invalid_name", "scope_id", "'gpt-4o*' would match no call"),
        ({"user": "ann*"}, "invalid_name", "user", "'ann*' would match no call"),
        ({"time_zone": "Mars/Base"}, "invalid_value", "time_zone", "Mars/Base"),
        ({"valid_from": LATER, "valid_until": EARLIER}, "invalid_value", "valid_until", "ends after it begins"),
        ({"thresholds": [{"percent": 0}]}, "invalid_value", "thresholds", "from 1 to 1000 per cent"),
        ({"thresholds": [{"percent": 5, "action": "x"}]}, "invalid_value", "thresholds", "a threshold does one of"),
        ({"thresholds": [{"percent": 5, "action": "cheaper"}]}, "invalid_value", "thresholds", "names the models"),
    ],
)
async def test_what_the_control_plane_refuses_is_told_in_its_words(
    world: ConsoleWorld, more: dict[str, Any], code: str, field: str, words: str
) -> None:
    """422 with what the command line says, and the field; nothing is recorded."""
    answer = await world.change(BUDGETS, BASIC | more)

    assert (422, code, field) == told(answer)
    assert words in answer.json()["detail"]
    assert not world.events()


async def test_a_refused_change_may_be_tried_again_under_its_key(world: ConsoleWorld) -> None:
    """Only what was recorded holds a key."""
    await world.change(BUDGETS, BASIC | {"amount": "wrong"})

    assert 200 == (await world.change(BUDGETS, BASIC)).status


async def test_a_body_has_a_limit(world: ConsoleWorld) -> None:
    """413 before it is parsed."""
    headers = {"idempotency-key": "k", "content-type": "application/json"}

    answer = await world.ask(BUDGETS, method="POST", headers=headers, body=b" " * (CONSOLE_BODY_BYTES_MAX + 1))

    assert (413, "body_too_large") == told(answer)[:2]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_is_json(world: ConsoleWorld, kind: str) -> None:
    """415 for what a page of another site could send."""
    headers = {"idempotency-key": "k", "content-type": kind}

    answer = await world.ask(BUDGETS, method="POST", headers=headers, body=b"{}")

    assert (415, "unsupported_media_type") == told(answer)[:2]


async def test_an_increase_begins_when_it_is_recorded(world: ConsoleWorld) -> None:
    """Unless it says otherwise; the limit allows more from then on."""
    limit = await a_limit(world)
    more = {"amount": "10", "valid_until": LATER, "approval_code": "FIN-1"}

    shown = (await world.change(f"{BUDGETS}/{limit}/increases", more)).json()

    (added,) = shown["limit"]["increases"]
    assert ("110.50", "10.00", "FIN-1") == (shown["limit"]["allowed"], added["amount"], added["approval_code"])
    recorded = msgspec.json.decode(world.events()[-1].after or "", type=Limit)
    assert shown["occurred_at"] == recorded.increases[0].valid_from


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "x"}, "amount"),
        ({"approval_code": ""}, "approval_code"),
        ({"valid_until": EARLIER}, "valid_until"),
    ],
)
async def test_an_increase_that_is_none_is_refused(world: ConsoleWorld, more: dict[str, Any], field: str) -> None:
    """With the field at fault."""
    limit = await a_limit(world)
    wanted = {"amount": "10", "valid_until": LATER, "approval_code": "FIN-1"} | more

    answer = await world.change(f"{BUDGETS}/{limit}/increases", wanted)

    assert (422, field) == (answer.status, answer.json()["field"])


async def test_an_increase_asked_for_again_otherwise_is_a_conflict(world: ConsoleWorld) -> None:
    """The field within the increase is named."""
    limit = await a_limit(world)
    more = {"amount": "10", "valid_until": LATER, "approval_code": "FIN-1"}
    await world.change(f"{BUDGETS}/{limit}/increases", more)

    refused = [
        await world.change(f"{BUDGETS}/{limit}/increases", more | other)
        for other in ({"amount": "11"}, {"valid_until": "2999-01-02T00:00:00Z"}, {"approval_code": "FIN-2"})
    ]

    assert [(409, "amount"), (409, "valid_until"), (409, "approval_code")] == [
        (one.status, one.json()["field"]) for one in refused
    ]


async def test_an_approval_is_a_code_that_the_log_does_not_have(world: ConsoleWorld) -> None:
    """Only its hash; a repeat gets the same code, another key another one."""
    limit = await a_limit(world, thresholds=[{"percent": 95, "action": "approval"}])
    wanted = {"valid_until": LATER, "approval_code": "FIN-2"}

    made = (await world.change(f"{BUDGETS}/{limit}/approvals", wanted)).json()
    again = (await world.change(f"{BUDGETS}/{limit}/approvals", wanted)).json()
    other = (await world.change(f"{BUDGETS}/{limit}/approvals", wanted, key="other")).json()

    recorded = msgspec.json.decode(world.events()[-1].after or "", type=Limit)
    assert made == again
    assert made["code"] != other["code"]
    assert made["code"] not in (world.events()[1].after or "")
    assert [hashlib.sha256(one["code"].encode()).hexdigest() for one in (made, other)] == [
        one.code_hash for one in recorded.approvals
    ]


async def test_a_code_is_not_given_to_another_token(world: ConsoleWorld) -> None:
    """Whose token was replaced asks under a new key."""
    limit = await a_limit(world, thresholds=[{"percent": 95, "action": "approval"}])
    wanted = {"valid_until": LATER, "approval_code": "FIN-2"}
    await world.change(f"{BUDGETS}/{limit}/approvals", wanted)
    world.token = "qa_the_next"

    refused = await world.change(f"{BUDGETS}/{limit}/approvals", wanted, token="qa_the_next")

    assert (409, "token") == (refused.status, refused.json()["field"])


async def test_a_limit_without_an_approval_threshold_has_no_codes(world: ConsoleWorld) -> None:
    """In the words of the command line."""
    limit = await a_limit(world)

    answer = await world.change(f"{BUDGETS}/{limit}/approvals", {"valid_until": LATER, "approval_code": "x"})

    assert (422, "invalid_value") == told(answer)[:2]
    assert "has no approval threshold" in answer.json()["detail"]


async def test_a_removed_limit_is_told_as_it_was(world: ConsoleWorld) -> None:
    """Also when the removal is repeated; a second one finds nothing."""
    limit = await a_limit(world)

    removed, again = [await world.change(f"{BUDGETS}/{limit}", query="reason=over") for _ in range(2)]
    other = await world.change(f"{BUDGETS}/{limit}", key="other")

    assert (200, "100.50", removed.body) == (removed.status, removed.json()["limit"]["amount"], again.body)
    assert ("over", None) == (world.events()[-1].reason, world.events()[-1].after)
    assert (404, "unknown_limit") == told(other)[:2]
    assert 404 == (await world.ask(f"{BUDGETS}/{limit}")).status


async def test_a_profile_sets_its_limits_once(world: ConsoleWorld) -> None:
    """Two events together, and what rate calls will wait for."""
    answers = [await world.change("/api/budget-profiles/eu-default", {"tenant": "acme"}) for _ in range(2)]

    told_ = answers[0].json()
    assert answers[0].body == answers[1].body
    assert [event.event_id for event in world.events()] == [one["event_id"] for one in told_["changes"]]
    assert [("450.00", "day"), ("12000.00", "month")] == [
        (one["limit"]["amount"], one["limit"]["window"]) for one in told_["changes"]
    ]
    assert ["USD", "EUR"] == told_["needs_rate"]


async def test_a_profile_tells_at_80_85_95(world: ConsoleWorld) -> None:
    """Put on again by another request too, where nothing was to be told meanwhile."""

    async def told_at(number: int) -> dict[str, list[int]]:
        answer = await world.change("/api/budget-profiles/eu-default", {"tenant": "acme"}, key=f"profile-{number}")
        limits = [one["limit"] for one in answer.json()["changes"]]
        return {limit["window"]: [one["percent"] for one in limit["thresholds"]] for limit in limits}

    first = await told_at(1)
    place = {"tenant": "acme", "currency": "EUR", "name": "eu-default", "time_zone": "Europe/Brussels"}
    for window in ("day", "month"):
        wanted = {"amount": "1", "window": window, "thresholds": []}
        answer = await world.change(BUDGETS, place | wanted, key=f"silent-{window}")
        assert [] == answer.json()["limit"]["thresholds"]

    assert {"day": [80], "month": [85, 95]} == first == await told_at(2)


async def test_a_profile_of_another_name_is_not_there(world: ConsoleWorld) -> None:
    """404 with those that are."""
    answer = await world.change("/api/budget-profiles/moon", {"tenant": "acme"})

    assert (404, True) == (answer.status, "eu-default" in answer.json()["detail"])


async def test_an_end_user_is_limited_by_handle(world: ConsoleWorld) -> None:
    """Their name reaches no event."""
    answer = (await world.change(BUDGETS, BASIC | {"user": "ann@example.com"})).json()

    assert ("user", "acme-15") == (answer["limit"]["scope"], answer["limit"]["scope_id"])
    assert "ann@" not in (world.events()[0].after or "")


async def test_limits_are_listed_by_filter_in_pages(world: ConsoleWorld) -> None:
    """Each once, by id; a filter leaves the others out."""
    for number, more in enumerate(
        ({}, {"window": "day"}, {"scope": "team", "scope_id": "*"}, {"valid_until": EARLIER}, {"tenant": "other"})
    ):
        await world.change(BUDGETS, BASIC | more | {"name": f"n{number}"}, key=f"k{number}")
    await world.change(BUDGETS, BASIC | {"valid_from": LATER, "name": "n5"}, key="k5")

    pages, query = [], "limit=4"
    while query:
        page = (await world.ask(BUDGETS, query)).json()
        pages.append([one["id"] for one in page["limits"]])
        query = f"limit=4&cursor={page['next']}" if page["next"] else ""

    assert [4, 2] == [len(page) for page in pages]
    assert sorted({each for page in pages for each in page}) == [each for page in pages for each in page]
    for query, names in {
        "tenant=other": {"n4"},
        "scope=team": {"n2"},
        "scope=tenant&scope_id=other": {"n4"},
        "state=over": {"n3"},
        "state=scheduled": {"n5"},
        "tenant=acme&state=in_force": {"n0", "n1", "n2"},
    }.items():
        assert names == {one["name"] for one in (await world.ask(BUDGETS, query)).json()["limits"]}


@pytest.mark.parametrize("query", ["state=gone", "limit=0", "cursor=x", "tenant=", "colour=red"])
async def test_a_list_that_makes_no_sense_is_refused(world: ConsoleWorld, query: str) -> None:
    """With the parameter at fault."""
    answer = await world.ask(BUDGETS, query)

    assert (400, "invalid_request", query.partition("=")[0]) == told(answer)


async def test_a_limit_is_shown_with_what_is_used_of_it(world: ConsoleWorld) -> None:
    """Charged, held with what the log has not confirmed, left, and when it starts anew."""
    limit = await a_limit(world)
    counter = Counter(limit, "USD", *window_of("month", world.now, "UTC"))
    sums = {counter: Sums(posted_nano=40 * NANO_PER_UNIT, held_nano=NANO_PER_UNIT)}
    world.live.states["acme"] = TenantState("acme", "g", True, 7, sums, {}, {}, {counter: NANO_PER_UNIT // 2})

    shown = (await world.ask(f"{BUDGETS}/{limit}")).json()

    (standing,) = shown["standings"]
    assert limit == shown["limit"]["id"]
    assert ("100.50", "40.00", "1.50", "59.00", 39) == tuple(
        standing[name] for name in ("allowed", "charged", "held", "left", "percent")
    )
    assert "2027-02-01T00:00:00+00:00" == standing["window_end"]


async def test_while_the_log_is_away_a_change_is_told_to_come_again(world: ConsoleWorld) -> None:
    """503 that says how; the next one opens a new sitting, and finds the log."""
    await world.change(BUDGETS, BASIC)
    world.control_log.away = True
    refused = await world.change(BUDGETS, BASIC, key="other")
    world.control_log.away = False

    assert (503, "log_unavailable", "1") == (*told(refused)[:2], refused.headers["retry-after"])
    assert 200 == (await world.change(BUDGETS, BASIC)).status
    assert 2 == world.sittings


async def test_each_end_user_is_limited_by_a_star(world: ConsoleWorld) -> None:
    """As at the command line; it is nobody's handle."""
    answer = (await world.change(BUDGETS, BASIC | {"user": "*"})).json()

    assert ("user", "*") == (answer["limit"]["scope"], answer["limit"]["scope_id"])


async def test_while_the_vault_is_away_no_end_user_is_limited(world: ConsoleWorld) -> None:
    """503, and nothing recorded."""
    world.fault = StoreUnavailableError("secret words")

    assert (503, "unavailable") == told(await world.change(BUDGETS, BASIC | {"user": "ann"}))[:2]
    assert not world.events()


async def test_a_console_that_is_never_asked_opens_nothing(world: ConsoleWorld) -> None:
    """Kafka's client is for those who need it."""
    await world.ask("/api/openapi.json")

    assert 0 == world.sittings


async def test_an_exchange_rate_is_set_listed_and_removed(world: ConsoleWorld) -> None:
    """With the event that set it as its id; repeats are answered as before."""
    rate = {"base": "USD", "quote": "EUR", "rate": "0.92", "dated": "2026-11-20", "source": "treasury"}

    made, again = [await world.change("/api/rates", rate) for _ in range(2)]
    listed = (await world.ask("/api/rates")).json()["rates"]
    removed, repeated = [await world.change("/api/rates/USD/EUR", key="gone") for _ in range(2)]

    assert made.body == again.body
    assert [made.json()["rate"]] == listed
    assert (made.json()["event_id"], "0.92") == (listed[0]["id"], listed[0]["rate"])
    assert (200, made.json()["rate"], removed.body) == (removed.status, removed.json()["rate"], repeated.body)
    assert [] == (await world.ask("/api/rates")).json()["rates"]
    assert (404, "unknown_rate") == told(await world.change("/api/rates/USD/EUR", key="again"))[:2]


async def test_an_older_rate_is_put_in_force_only_when_it_is_meant(world: ConsoleWorld) -> None:
    """And both are listed among all that ever were."""
    rate = {"base": "USD", "quote": "EUR", "rate": "0.92", "dated": "2026-11-20", "source": "treasury"}
    older = rate | {"rate": "0.90", "dated": "2026-11-19"}
    await world.change("/api/rates", rate, key="first")

    refused = await world.change("/api/rates", older, key="second")
    await world.change("/api/rates", older | {"replace": True}, key="third")

    assert (422, "invalid_value", "dated") == told(refused)
    assert ["0.90", "0.92"] == [one["rate"] for one in (await world.ask("/api/rates", "past=true")).json()["rates"]]
    assert ["0.90"] == [one["rate"] for one in (await world.ask("/api/rates")).json()["rates"]]


@pytest.mark.parametrize(
    ("more", "status", "field"),
    [
        ({"rate": "0"}, 422, "rate"),
        ({"rate": "x"}, 422, "rate"),
        ({"quote": "USD"}, 422, "quote"),
        ({"base": "GBP"}, 422, "base"),
        ({"dated": "today"}, 422, "dated"),
        ({"source": ""}, 422, "source"),
        ({"base": "dollars"}, 400, "base"),
        ({"rate": 0.92}, 400, "rate"),
    ],
)
async def test_a_rate_that_is_none_is_refused(
    world: ConsoleWorld, more: dict[str, Any], status: int, field: str
) -> None:
    """With the field at fault."""
    rate = {"base": "USD", "quote": "EUR", "rate": "0.92", "dated": "2026-11-20", "source": "treasury"}

    answer = await world.change("/api/rates", rate | more)

    assert (status, field) == (answer.status, answer.json()["field"])


async def test_the_openapi_document_describes_changes(world: ConsoleWorld) -> None:
    """The key is required, what is sent fits the body's schema, and what is answered that of the answer."""
    document: dict[str, Any] = (await world.ask("/api/openapi.json")).json()
    described = document["paths"][BUDGETS]["post"]

    answer = (await world.change(BUDGETS, BASIC)).json()

    refer = {"components": document["components"]}
    jsonschema.validate(BASIC, described["requestBody"]["content"]["application/json"]["schema"] | refer)
    jsonschema.validate(answer, described["responses"]["200"]["content"]["application/json"]["schema"] | refer)
    assert ["Idempotency-Key"] == [one["name"] for one in described["parameters"] if one["required"]]


def told(answer: Answer) -> tuple[int, str, str | None]:
    """Status, code and field of a problem."""
    document = answer.json()
    assert answer.headers["x-correlation-id"] == document["correlation_id"]
    return answer.status, document["code"], document.get("field")
