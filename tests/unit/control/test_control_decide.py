"""Changes of the control plane: what is refused, and the event of what is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from processors import control
from processors.control import (
    ControlState,
    ExchangeRate,
    Increase,
    LegalHold,
    Limit,
    Origin,
    Provider,
    Refusal,
    RefusalCode,
    Route,
    RouteCandidate,
    Threshold,
    VirtualKey,
    evolve,
    limit_id_of,
)
from processors.pricing import Price, Rates, Tier, make_book
from schemas.events import ControlAction, ControlEvent
from schemas.limits import LIMIT_UNITS_MAX, RECORD_BYTES_MAX, TEXT_CHARACTERS_MAX
from schemas.money import NANO_PER_UNIT

ORIGIN = Origin(event_id="01900000-0000-7000-8000-000000000001", now_micros=1_000, actor="cli/0", reason="because")
KEY = VirtualKey(key_id="key_1", tenant_id="acme", team_id="search", project_id="web", key_hash="aa")
PROVIDER = Provider(provider_id="openai", base_url="https://api.openai.com/v1", secret_ref="env:OPENAI_API_KEY")
LIMIT = Limit(
    limit_id=limit_id_of("acme", "tenant", "acme", "month"),
    tenant_id="acme",
    scope="tenant",
    scope_id="acme",
    amount_nano=NANO_PER_UNIT,
    currency="USD",
    window="month",
)
ROUTE = Route(alias="fast", tenant_id="_system", candidates=(RouteCandidate("openai", "gpt-4o-mini"),))
PRICE = Price(price_id="openai/m", provider_id="openai", model="m", rates=Rates(input=1, output=2))
Change = Callable[[ControlState], ControlEvent | Refusal]


def accepted(state: ControlState, change: Change) -> ControlState:
    """The state after a change that must not be refused."""
    event = change(state)
    assert isinstance(event, ControlEvent), event
    return evolve(state, event)


def known() -> ControlState:
    """A state with a key, a provider, a route, a limit and prices."""
    state = accepted(ControlState(), lambda one: control.create_key(one, KEY, ORIGIN))
    state = accepted(state, lambda one: control.add_provider(one, PROVIDER, ORIGIN))
    state = accepted(state, lambda one: control.set_route(one, ROUTE, ORIGIN))
    state = accepted(state, lambda one: control.set_limit(one, LIMIT, ORIGIN))
    return accepted(state, lambda one: control.publish_prices(one, make_book("openai", [PRICE]), ORIGIN))


def key(**changes: object) -> Change:
    """Create a key like KEY."""
    made = msgspec.structs.replace(KEY, **({"key_id": "key_2", "key_hash": "bb"} | changes))
    return lambda state: control.create_key(state, made, ORIGIN)


def provider(insecure: bool = False, replace: bool = False, **changes: object) -> Change:
    """Add a provider like PROVIDER under another name."""
    made = msgspec.structs.replace(PROVIDER, **({"provider_id": "other"} | changes))
    return lambda state: control.add_provider(state, made, ORIGIN, insecure=insecure, replace=replace)


def route(*candidates: tuple[str, str], alias: str = "smart") -> Change:
    """Set a route."""
    made = Route(alias=alias, tenant_id="acme", candidates=tuple(RouteCandidate(*one) for one in candidates))
    return lambda state: control.set_route(state, made, ORIGIN)


def limit(**changes: object) -> Change:
    """Set a limit like LIMIT."""
    return lambda state: control.set_limit(state, msgspec.structs.replace(LIMIT, **changes), ORIGIN)


def prices(*changed: Price) -> Change:
    """Publish prices of provider openai."""
    return lambda state: control.publish_prices(state, make_book("openai", changed), ORIGIN)


def priced(**changes: object) -> Change:
    """Publish a price like PRICE."""
    return prices(msgspec.structs.replace(PRICE, **changes))


def increase(limit_id: str | None = None, **changes: Any) -> Change:
    """Increase the limit that is known."""
    given = {"amount_nano": 5, "valid_from": 1, "valid_until": 9_000, "approval_code": "A-1"} | changes
    made = Increase(**given)
    return lambda state: control.increase_limit(state, limit_id or LIMIT.limit_id, made, ORIGIN)


def rate(**changes: Any) -> Change:
    """Set an exchange rate."""
    given = {"base": "USD", "quote": "EUR", "rate_nano": 9, "dated": "2026-11-20", "source": "test"} | changes
    made = ExchangeRate(**given)
    return lambda state: control.set_exchange_rate(state, made, ORIGIN, replace=True)


REFUSED: dict[str, tuple[Change, RefusalCode]] = {
    "key of an invalid tenant": (key(tenant_id="a/b"), RefusalCode.INVALID_NAME),
    "key of the system's tenant": (key(tenant_id="_system"), RefusalCode.INVALID_NAME),
    "key of an empty team": (key(team_id=""), RefusalCode.INVALID_NAME),
    "key with a control character": (key(name="a\nb"), RefusalCode.INVALID_VALUE),
    "key with a model of spaces": (key(allowed_models=("a b",)), RefusalCode.INVALID_NAME),
    "key with too many models": (key(allowed_models=("a",) * 101), RefusalCode.TOO_MANY),
    "key id taken": (key(key_id="key_1"), RefusalCode.TAKEN),
    "key hash taken": (key(key_hash="aa"), RefusalCode.TAKEN),
    "revoke an unknown key": (lambda state: control.revoke_key(state, "no", ORIGIN), RefusalCode.UNKNOWN_KEY),
    "provider with a slash": (provider(provider_id="a/b"), RefusalCode.INVALID_NAME),
    "provider taken": (provider(provider_id="openai", region="eu"), RefusalCode.TAKEN),
    "provider unchanged": (provider(provider_id="openai"), RefusalCode.UNCHANGED),
    "http to a public name": (provider(base_url="http://api.example.com/v1"), RefusalCode.INVALID_URL),
    "http to a public address": (provider(base_url="http://8.8.8.8/v1"), RefusalCode.INVALID_URL),
    "credentials in the URL": (provider(base_url="https://u:p@example.com/v1"), RefusalCode.INVALID_URL),
    "query in the URL": (provider(base_url="https://example.com/v1?key=1"), RefusalCode.INVALID_URL),
    "no URL": (provider(base_url="api.example.com"), RefusalCode.INVALID_URL),
    "port out of range": (provider(base_url="https://example.com:70000/v1"), RefusalCode.INVALID_URL),
    "a secret itself": (provider(secret_ref="sk-123"), RefusalCode.INVALID_REFERENCE),
    "an endless timeout": (provider(timeout_seconds=1e9), RefusalCode.INVALID_VALUE),
    "a timeout of nothing": (provider(timeout_seconds=0), RefusalCode.INVALID_VALUE),
    "no timeout at all": (provider(timeout_seconds=float("nan")), RefusalCode.INVALID_VALUE),
    "remove an unknown provider": (
        lambda state: control.remove_provider(state, "no", ORIGIN),
        RefusalCode.UNKNOWN_PROVIDER,
    ),
    "route to an unknown provider": (route(("no", "m")), RefusalCode.UNKNOWN_PROVIDER),
    "route to nothing": (route(), RefusalCode.TOO_MANY),
    "route with a candidate twice": (route(("openai", "m"), ("openai", "m")), RefusalCode.INVALID_VALUE),
    "route with a slash": (route(("openai", "m"), alias="a/b"), RefusalCode.INVALID_NAME),
    "remove an unknown route": (
        lambda state: control.remove_route(state, "acme", "no", ORIGIN),
        RefusalCode.UNKNOWN_ROUTE,
    ),
    "limit above the most": (limit(amount_nano=LIMIT_UNITS_MAX * NANO_PER_UNIT + 1), RefusalCode.INVALID_AMOUNT),
    "limit below nothing": (limit(amount_nano=-1), RefusalCode.INVALID_AMOUNT),
    "limit in a currency without rates": (limit(currency="JPY"), RefusalCode.INVALID_VALUE),
    "limit of an unknown window": (limit(window="year"), RefusalCode.INVALID_VALUE),
    "limit of an unknown scope": (limit(scope="planet", scope_id="earth"), RefusalCode.INVALID_VALUE),
    "limit in an unknown time zone": (limit(time_zone="Mars/Olympus"), RefusalCode.INVALID_VALUE),
    "limit that ends before it begins": (limit(valid_from=2, valid_until=2), RefusalCode.INVALID_VALUE),
    "limit on a tag without a value": (limit(scope="tag", scope_id="env"), RefusalCode.INVALID_NAME),
    "limit on each of everything tagged": (limit(scope="tag", scope_id="*"), RefusalCode.INVALID_NAME),
    "limit on each tenant": (limit(scope_id="*"), RefusalCode.INVALID_VALUE),
    "limit on a model of spaces": (limit(scope="model", scope_id="a b"), RefusalCode.INVALID_NAME),
    "limit on the beginning of a model": (limit(scope="model", scope_id="gpt-4o*"), RefusalCode.INVALID_NAME),
    "limit on the end of a model": (limit(scope="model", scope_id="*/gpt-4o"), RefusalCode.INVALID_NAME),
    "an increase of an unknown limit": (increase(limit_id="no"), RefusalCode.UNKNOWN_LIMIT),
    "an increase without approval": (increase(approval_code=""), RefusalCode.INVALID_VALUE),
    "an increase above the most": (increase(amount_nano=LIMIT_UNITS_MAX * NANO_PER_UNIT), RefusalCode.INVALID_AMOUNT),
    "an increase of nothing": (increase(amount_nano=0), RefusalCode.INVALID_AMOUNT),
    "an increase that ends before it begins": (increase(valid_until=1), RefusalCode.INVALID_VALUE),
    "a rate of nothing": (rate(rate_nano=0), RefusalCode.INVALID_VALUE),
    "a rate to the same currency": (rate(quote="USD"), RefusalCode.INVALID_VALUE),
    "a rate to another currency": (rate(quote="JPY"), RefusalCode.INVALID_VALUE),
    "a rate of no day": (rate(dated=""), RefusalCode.INVALID_VALUE),
    "a rate of nobody": (rate(source=""), RefusalCode.INVALID_VALUE),
    "remove an unknown rate": (
        lambda state: control.remove_exchange_rate(state, "EUR", "USD", ORIGIN),
        RefusalCode.UNKNOWN_RATE,
    ),
    "limit on an unknown key": (limit(scope="key", scope_id="no"), RefusalCode.UNKNOWN_KEY),
    "limit on another tenant's key": (
        limit(tenant_id="globex", scope="key", scope_id="key_1"),
        RefusalCode.UNKNOWN_KEY,
    ),
    "limit on another tenant": (limit(scope_id="globex"), RefusalCode.INVALID_VALUE),
    "remove an unknown limit": (lambda state: control.remove_limit(state, "no", ORIGIN), RefusalCode.UNKNOWN_LIMIT),
    "negative price": (priced(rates=Rates(input=-1, output=1)), RefusalCode.INVALID_PRICE),
    "price beyond reason": (priced(rates=Rates(input=1, output=10**15)), RefusalCode.INVALID_PRICE),
    "price in another currency": (priced(currency="EUR"), RefusalCode.INVALID_VALUE),
    "price of another provider": (priced(provider_id="other"), RefusalCode.INVALID_PRICE),
    "tiers that fall": (
        priced(tiers=tuple(Tier(above_input_tokens=bound, rates=PRICE.rates) for bound in (9, 3))),
        RefusalCode.INVALID_PRICE,
    ),
    "a bound of no tokens": (priced(max_output_tokens=0), RefusalCode.INVALID_PRICE),
    "a date that is none": (priced(dated="today"), RefusalCode.INVALID_PRICE),
    "prices unchanged": (prices(PRICE), RefusalCode.UNCHANGED),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_change_is_refused(name: str) -> None:
    """Each wrong change is refused with its own code."""
    change, code = REFUSED[name]
    refusal = change(known())

    assert isinstance(refusal, Refusal), refusal
    assert code is refusal.code


ACCEPTED: dict[str, Change] = {
    "http to this machine": provider(base_url="http://127.0.0.1:18090/v1"),
    "http to this machine by name": provider(base_url="http://localhost:18090/v1"),
    "http to IPv6 loopback": provider(base_url="http://[::1]:18090/v1"),
    "http to a private network": provider(base_url="http://10.1.2.3/v1"),
    "http to a name without a dot": provider(base_url="http://simulator:8090/v1"),
    "http to a public name when insisted on": provider(base_url="http://api.example.com/v1", insecure=True),
    "a secret in a file": provider(secret_ref="file:/run/secrets/key"),
    "no secret": provider(secret_ref=None),
    "a provider changed on purpose": provider(provider_id="openai", region="eu", replace=True),
    "a limit of nothing": limit(amount_nano=0),
    "the greatest limit": limit(amount_nano=LIMIT_UNITS_MAX * NANO_PER_UNIT),
    "a limit in euros": limit(currency="EUR"),
    "a limit on tokens": limit(currency="TOK"),
    "a limit on each run": limit(scope="run", scope_id="*", limit_id="lim_run"),
    "a limit on each key": limit(scope="key", scope_id="*", limit_id="lim_keys"),
    "a limit on a tag": limit(scope="tag", scope_id="env=prod", limit_id="lim_tag"),
    "a limit on each value of a tag": limit(scope="tag", scope_id="env=*", limit_id="lim_tags"),
    "a limit on a model with a slash": limit(scope="model", scope_id="meta/llama", limit_id="lim_model"),
    "a limit in Lord Howe's weeks": limit(limit_id="lim_week", window="week", time_zone="Australia/Lord_Howe"),
    "an increase": increase(),
    "an exchange rate": rate(),
    "a limit on a key": limit(scope="key", scope_id="key_1", limit_id=limit_id_of("acme", "key", "key_1", "month")),
    "a tenant's own route": route(("openai", "a"), ("openai", "b")),
}


MOST_NANO = LIMIT_UNITS_MAX * NANO_PER_UNIT


@pytest.mark.parametrize(
    ("spans", "accepted_"), [([(1, 5), (5, 9)], True), ([(1, 5), (4, 9)], False), ([(1, 9), (2, 3)], False)]
)
def test_increases_that_overlap_are_bounded_together(spans: list[tuple[int, int]], accepted_: bool) -> None:
    """Each fits beside the amount; both at once are more than a limit may be."""
    half = (MOST_NANO - NANO_PER_UNIT) // 2 + 1
    made = tuple(
        Increase(amount_nano=half, valid_from=2_000 + start, valid_until=2_000 + end, approval_code="A")
        for start, end in spans
    )
    first = accepted(known(), lambda state: control.increase_limit(state, LIMIT.limit_id, made[0], ORIGIN))

    found = control.increase_limit(first, LIMIT.limit_id, made[1], ORIGIN)

    assert accepted_ is isinstance(found, ControlEvent)
    assert accepted_ or "9,000,000 units" in found.message  # type: ignore[union-attr]  # a refusal


def test_an_amount_is_bounded_with_the_increases_that_stay() -> None:
    """Set higher, it would be above the most while they are in force."""
    state = accepted(known(), increase(amount_nano=2 * NANO_PER_UNIT))
    refused = limit(amount_nano=MOST_NANO - NANO_PER_UNIT)(state)

    assert isinstance(refused, Refusal)
    assert (RefusalCode.INVALID_AMOUNT, "amount") == (refused.code, refused.field)


@pytest.mark.parametrize(("percent", "fits"), [(100, True), (101, False)])
def test_a_threshold_that_refuses_lies_where_limits_may(percent: int, fits: bool) -> None:
    """A soft limit's may be above its amount, and must be comparable."""
    blocked = limit(hard=False, amount_nano=MOST_NANO, thresholds=(Threshold(percent=percent, action="block"),))
    assert fits is isinstance(blocked(known()), ControlEvent)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_right_change_is_an_event(name: str) -> None:
    """Each right change gives an event."""
    assert isinstance(ACCEPTED[name](known()), ControlEvent)


@pytest.mark.parametrize("reason", ["x" * (TEXT_CHARACTERS_MAX + 1), "two\nlines"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_no_change_has_an_endless_reason(monkeypatch: pytest.MonkeyPatch, name: str, reason: str) -> None:
    """The log keeps it for ever, whatever was changed."""
    state = known()
    monkeypatch.setattr(sys.modules[__name__], "ORIGIN", msgspec.structs.replace(ORIGIN, reason=reason))
    refusal = ACCEPTED[name](state)

    assert isinstance(refusal, Refusal), refusal
    assert (RefusalCode.INVALID_VALUE, "reason") == (refusal.code, refusal.field)


@pytest.mark.parametrize(
    ("scope", "scope_id", "words"),
    [
        ("model", "gpt-4o*", "a whole model, or on each apart (* alone); name one model in full"),
        ("provider", "open*", "a whole provider, or on each apart (* alone); name one provider in full"),
        ("tag", "env=prod*", "a whole tag, or on each apart (name=*); name one tag in full"),
        ("team", "*search", "a whole team, or on each apart (* alone); name one team in full"),
    ],
)
def test_a_limit_on_a_pattern_is_refused_with_what_to_do(scope: str, scope_id: str, words: str) -> None:
    """Lists of keys take beginnings; a limit on one would never count, and spending would be unbounded."""
    refusal = limit(scope=scope, scope_id=scope_id)(known())

    assert isinstance(refusal, Refusal)
    assert ("scope_id", True) == (refusal.field, f"'{scope_id}' would match no call: " in refusal.message)
    assert words in refusal.message


def test_a_limit_on_a_pattern_that_the_log_has_may_be_removed() -> None:
    """It was taken before patterns were refused."""
    old = msgspec.structs.replace(LIMIT, limit_id="lim_old", scope="model", scope_id="gpt-4o*")
    state = ControlState(limits={old.limit_id: old})

    assert isinstance(control.remove_limit(state, "lim_old", ORIGIN), ControlEvent)


def test_the_event_of_a_key_carries_its_hash_and_no_more() -> None:
    """The log gets the SHA-256 of a key, and when it was made."""
    event = control.create_key(ControlState(), KEY, ORIGIN)

    assert isinstance(event, ControlEvent)
    assert {
        "key_id": "key_1",
        "tenant_id": "acme",
        "team_id": "search",
        "project_id": "web",
        "key_hash": "aa",
        "created_at": 1_000,
    } == msgspec.json.decode(event.after or "")


def test_an_event_says_who_and_why() -> None:
    """Origin's fields stand on the event."""
    event = control.create_key(ControlState(), KEY, ORIGIN)

    assert isinstance(event, ControlEvent)
    assert (ORIGIN.event_id, 1_000, "cli/0", "because", ControlAction.CREATED) == (
        event.event_id,
        event.occurred_at,
        event.actor,
        event.reason,
        event.action,
    )


def test_revoking_removes_a_key_and_keeps_it_known() -> None:
    """A revocation is REMOVED with the key as it was and as it is."""
    event = control.revoke_key(known(), "key_1", ORIGIN)

    assert isinstance(event, ControlEvent)
    assert (ControlAction.REMOVED, None, 1_000) == (
        event.action,
        msgspec.json.decode(event.before or "").get("revoked_at"),
        msgspec.json.decode(event.after or "")["revoked_at"],
    )


def test_removing_a_provider_leaves_nothing_after() -> None:
    """A removal has a before and no after."""
    event = control.remove_provider(known(), "openai", ORIGIN)

    assert isinstance(event, ControlEvent)
    assert (ControlAction.REMOVED, True, None) == (event.action, event.before is not None, event.after)


def test_a_refusal_never_repeats_a_secret() -> None:
    """What was given in place of a reference might be the secret itself."""
    refusal = provider(secret_ref="sk-very-secret")(known())

    assert isinstance(refusal, Refusal)
    assert "sk-very-secret" not in refusal.message


def test_a_base_url_loses_its_last_slash() -> None:
    """The path of a call is put behind the base URL."""
    state = accepted(known(), provider(base_url="https://example.com/v1/"))

    assert (found := state.provider("other")) is not None
    assert found.base_url == "https://example.com/v1"


def test_the_largest_price_book_that_is_accepted_fits_a_record() -> None:
    """A book that would not fit one record of the log is refused."""
    long = "m" * 200
    book = [
        msgspec.structs.replace(PRICE, model=f"{long}{number}", price_id=f"openai/{long}{number}", source="s" * 200)
        for number in range(1_900)
    ]
    refusal = prices(*book)(known())

    assert isinstance(refusal, Refusal)
    assert (RefusalCode.TOO_MANY, True) == (refusal.code, len(msgspec.json.encode(book)) > RECORD_BYTES_MAX)


@pytest.mark.parametrize(
    ("allowed", "asked", "expected"),
    [
        ((), "anything", True),
        (("gpt-4o",), "gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("gpt-4o*",), "gpt-4o-mini", True),
        (("*",), "anything", True),
        (("openai/*",), "gpt-4o", False),
    ],
)
def test_a_key_allows_what_it_names(allowed: tuple[str, ...], asked: str, expected: bool) -> None:
    """No list allows all; an entry allows its model, or all with its beginning."""
    assert expected is msgspec.structs.replace(KEY, allowed_models=allowed).allows(asked)


ERASURE = control.Erasure(handle="ab" * 16, tenant_id="acme", key_version="1", sealed_events=None)


def test_an_erasure_is_made_known_once() -> None:
    """With its time; a second one is refused as done already."""
    event = control.erase_subject(ControlState(), ERASURE, ORIGIN)
    assert isinstance(event, ControlEvent)
    assert (ControlAction.ERASED, "ab" * 16, "acme") == (event.action, event.entity_id, event.tenant_id)
    state = evolve(ControlState(), event)
    again = control.erase_subject(state, ERASURE, ORIGIN)

    assert (ORIGIN.now_micros, ORIGIN.event_id) == (state.erasures["ab" * 16].erased_at, event.event_id)
    assert isinstance(again, Refusal)
    assert RefusalCode.UNCHANGED is again.code


@pytest.mark.parametrize("change", [{"handle": "no handle"}, {"tenant_id": ""}])
def test_an_erasure_names_a_subject(change: dict[str, str]) -> None:
    """What can't be a name is refused."""
    refused = control.erase_subject(ControlState(), msgspec.structs.replace(ERASURE, **change), ORIGIN)

    assert isinstance(refused, Refusal)
    assert RefusalCode.INVALID_NAME is refused.code


def test_what_a_legal_hold_covers_is_not_erased() -> None:
    """The refusal names the hold; once it is released, or for somebody else, nothing stands against it."""
    hold = LegalHold(hold_id="hold_1", tenant_id="acme", subject_handle=ERASURE.handle, reason="case 7")
    held = ControlState(holds={"hold_1": hold})

    refused = control.erase_subject(held, ERASURE, ORIGIN)

    assert isinstance(refused, Refusal)
    assert RefusalCode.HELD is refused.code
    assert "hold_1" in refused.message
    other = msgspec.structs.replace(ERASURE, handle="cd" * 16)
    assert isinstance(control.erase_subject(held, other, ORIGIN), ControlEvent)
