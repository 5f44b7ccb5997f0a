"""The ordered policy: which candidates are tried in which order, and why others are not."""

from __future__ import annotations

import msgspec
import pytest

from processors.control import ControlState, Provider, Route, RouteCandidate, VirtualKey
from processors.pricing import Price, Rates, make_book
from processors.routing import (
    OrderedRouter,
    Routed,
    RouteRefusal,
    RouteRefusalCode,
    RouteRequest,
    is_known,
    models_for,
)
from schemas.events import Operation

KEY = VirtualKey(key_id="key_1", tenant_id="acme", team_id="t", project_id="p", key_hash="aa")


def priced(provider_id: str, *models: str) -> tuple[Price, ...]:
    """Prices of these models."""
    rates = Rates(input=1, output=1)
    return tuple(
        Price(price_id=f"{provider_id}/{model}", provider_id=provider_id, model=model, rates=rates) for model in models
    )


def state() -> ControlState:
    """Three providers: one passes names through, one maps them, one has gone but its route and prices stand."""
    books = {
        "pass": make_book("pass", priced("pass", "small", "large", "both")),
        "map": make_book("map", priced("map", "own-small", "both")),
        "gone": make_book("gone", priced("gone", "small")),
    }
    mapping = {"mapped": "own-small", "both": "both", "unpriced": "own-unpriced"}
    routes = [
        route("fast", ("pass", "small"), ("map", "mapped")),
        route("ghost", ("gone", "small"), ("map", "unpriced"), ("map", "absent"), ("pass", "large")),
        route("dead", ("gone", "small"), ("pass", "unknown")),
        route("poor", ("pass", "unknown")),
        route("fast", ("pass", "large"), tenant_id="acme"),
    ]
    return ControlState(
        providers={
            "pass": Provider(provider_id="pass", base_url="https://a.example"),
            "map": Provider(provider_id="map", base_url="https://b.example", models=mapping),
        },
        routes={(one.tenant_id, one.alias): one for one in routes},
        route_versions={("acme", "fast"): "event-1"},
        books=books,
        prices={(price.provider_id, price.model): price for book in books.values() for price in book.prices},
    )


def route(alias: str, *candidates: tuple[str, str], tenant_id: str = "_system") -> Route:
    """A route."""
    return Route(alias=alias, tenant_id=tenant_id, candidates=tuple(RouteCandidate(*one) for one in candidates))


def decide(model: str, allowed: tuple[str, ...] = (), tenant_id: str = "other") -> Routed | RouteRefusal:
    """What the router says to a key of this tenant."""
    key = msgspec.structs.replace(KEY, allowed_models=allowed, tenant_id=tenant_id)
    return OrderedRouter().decide(RouteRequest(key=key, model=model, operation=Operation.CHAT_COMPLETIONS), state(), 0)


ROUTED: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "an alias, in order, by the providers' own names": ("fast", (), ["pass/small", "map/own-small"]),
    "an alias allowed by its name": ("fast", ("fast",), ["pass/small", "map/own-small"]),
    "an alias with one model allowed": ("fast", ("mapped",), ["map/own-small"]),
    "an alias with one place allowed": ("fast", ("pass/small",), ["pass/small"]),
    "an alias, passing over what can't serve": ("ghost", (), ["pass/large"]),
    "a model of one provider": ("small", (), ["pass/small"]),
    "a model under the name callers use": ("mapped", (), ["map/own-small"]),
    "a place by name": ("map/both", (), ["map/both"]),
    "a place by name, allowed by its model": ("pass/large", ("large",), ["pass/large"]),
    "a place by name, allowed by a beginning": ("pass/large", ("pass/*",), ["pass/large"]),
}


@pytest.mark.parametrize("name", ROUTED)
def test_calls_go_where_they_should(name: str) -> None:
    """Each request is tried at exactly these places in this order."""
    model, allowed, expected = ROUTED[name]
    found = decide(model, allowed)

    assert isinstance(found, Routed), found
    assert expected == [f"{choice.provider.provider_id}/{choice.model}" for choice in found.order]


REFUSED: dict[str, tuple[str, tuple[str, ...], RouteRefusalCode]] = {
    "nobody serves it": ("nothing", (), RouteRefusalCode.MODEL_NOT_FOUND),
    "several serve it": ("both", (), RouteRefusalCode.MODEL_AMBIGUOUS),
    "the provider's own name is not the callers'": ("own-small", (), RouteRefusalCode.MODEL_NOT_FOUND),
    "the key may not": ("small", ("large",), RouteRefusalCode.MODEL_NOT_ALLOWED),
    "the key may not use the alias nor its models": ("fast", ("large",), RouteRefusalCode.MODEL_NOT_ALLOWED),
    "it has no price": ("pass/unknown", (), RouteRefusalCode.MODEL_WITHOUT_PRICE),
    "it is served and has no price": ("unpriced", (), RouteRefusalCode.MODEL_WITHOUT_PRICE),
    "an alias without a price": ("poor", (), RouteRefusalCode.MODEL_WITHOUT_PRICE),
    "the provider does not serve it": ("map/absent", (), RouteRefusalCode.MODEL_NOT_FOUND),
    "no candidate is left": ("dead", (), RouteRefusalCode.NO_CANDIDATE),
    "the provider has gone": ("gone/small", (), RouteRefusalCode.MODEL_NOT_FOUND),
    "no name": ("", (), RouteRefusalCode.MODEL_NOT_FOUND),
    "half a place": ("pass/", (), RouteRefusalCode.MODEL_NOT_FOUND),
}


@pytest.mark.parametrize("name", REFUSED)
def test_calls_that_go_nowhere_say_why(name: str) -> None:
    """Each request that no place can serve is refused with its own code."""
    model, allowed, code = REFUSED[name]
    found = decide(model, allowed)

    assert isinstance(found, RouteRefusal), found
    assert code is found.code


def test_every_candidate_stands_in_the_decision_with_its_reason() -> None:
    """The decision event names those that were passed over, and why, after those that are tried."""
    found = decide("ghost")

    assert isinstance(found, Routed)
    assert [
        ("pass", "large", True, None),
        ("gone", "small", False, "provider_removed"),
        ("map", "own-unpriced", False, "no_price"),
        ("map", "absent", False, "model_not_served"),
    ] == [(one.provider_id, one.model, one.eligible, one.ruled_out_by) for one in found.candidates]


def test_a_choice_carries_its_price_and_version() -> None:
    """What an attempt needs for its hold and its charge comes with the choice."""
    found = decide("small")

    assert isinstance(found, Routed)
    assert ("pass/small", state().price_version("pass")) == (
        found.order[0].price.price_id,
        found.order[0].price_version,
    )


def test_the_tenants_own_route_decides_and_names_its_version() -> None:
    """A tenant's alias hides everybody's; its last change is the policy's version."""
    found = decide("fast", tenant_id="acme")

    assert isinstance(found, Routed)
    assert ("ordered", "event-1", "large") == (found.policy, found.policy_version, found.order[0].model)


def test_a_direct_model_has_no_policy_version() -> None:
    """Without a route there is nothing whose version could be named."""
    found = decide("small")

    assert isinstance(found, Routed)
    assert ("direct", "", 1.0) == (found.policy, found.policy_version, found.probability)


@pytest.mark.parametrize("allowed", [(), ("fast",), ("pass/*",), ("own-small",)])
def test_listed_models_are_those_that_would_be_routed(allowed: tuple[str, ...]) -> None:
    """What /v1/models shows a key is what the key can call."""
    key = msgspec.structs.replace(KEY, allowed_models=allowed, tenant_id="other")
    listed = models_for(key, state(), OrderedRouter(), 0)

    assert [] == [name for name in listed if not isinstance(decide(name, allowed), Routed)]


def test_listed_models_of_a_free_key() -> None:
    """Aliases that lead somewhere, models of one provider, and every place."""
    expected = {"fast", "ghost", "small", "large", "mapped", "pass/small", "pass/large", "pass/both", "map/both"}

    assert expected | {"map/mapped"} == set(models_for(KEY, state(), OrderedRouter(), 0))


@pytest.mark.parametrize("name", ["fast", "mapped", "own-small", "map/unpriced", "map/large", "pass/small", "small"])
def test_names_that_somebody_set_are_known(name: str) -> None:
    """By a route, a list, or a price, alone or behind a provider."""
    assert is_known(name, "other", state())


@pytest.mark.parametrize("name", ["", "nothing", "pass/nothing", "pass/", "/small", "nobody/small", "pass/fast"])
def test_names_that_nobody_set_are_not_known(name: str) -> None:
    """Though a provider without a list would be asked for them."""
    assert not is_known(name, "other", state())


def test_another_tenants_alias_is_not_known() -> None:
    """It is theirs."""
    mine = msgspec.structs.replace(state(), routes={("acme", "own"): route("own", ("pass", "small"), tenant_id="acme")})

    assert [True, False] == [is_known("own", tenant_id, mine) for tenant_id in ("acme", "other")]
