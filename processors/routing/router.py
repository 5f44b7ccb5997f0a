"""The seam to routing and its first policy: an alias with ordered candidates, or a model named directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from processors.control.entities import Provider, Route, VirtualKey
from processors.control.state import ControlState
from processors.pricing.prices import Price
from schemas.events import Candidate, Operation
from schemas.topics import SYSTEM_TENANT

POLICY = "ordered"
DIRECT = "direct"


class RuledOut(StrEnum):
    """Why a candidate is not tried."""

    NO_PRICE = "no_price"
    PROVIDER_REMOVED = "provider_removed"
    MODEL_NOT_SERVED = "model_not_served"
    MODEL_NOT_ALLOWED = "model_not_allowed"


class RouteRefusalCode(StrEnum):
    """Why no candidate is tried at all."""

    MODEL_NOT_FOUND = "model_not_found"
    MODEL_AMBIGUOUS = "model_ambiguous"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    MODEL_WITHOUT_PRICE = "model_without_price"
    NO_CANDIDATE = "no_candidate"


class RouteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What routing may know of a call."""

    #: The key that asks.
    key: VirtualKey
    #: Model or alias as the caller named it.
    model: str
    #: The API called.
    operation: Operation
    #: Whether a stream is asked for.
    stream: bool = False


class Choice(msgspec.Struct, frozen=True):
    """A candidate to try, with all that an attempt needs."""

    #: The provider.
    provider: Provider
    #: The provider's own name of the model.
    model: str
    #: Its price.
    price: Price
    #: Version of the price book in force.
    price_version: str


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call goes."""

    #: Policy that decided.
    policy: str
    #: Version of the policy: event_id of the route's last change; empty when there is no route.
    policy_version: str
    #: All candidates with reasons, eligible ones first in the order they are tried, for the decision event.
    candidates: tuple[Candidate, ...]
    #: What to try, in order; never empty.
    order: tuple[Choice, ...]
    #: Probability with which this policy makes the first choice.
    probability: float = 1.0


class RouteRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call goes nowhere."""

    #: Why.
    code: RouteRefusalCode
    #: One line for the caller.
    message: str
    #: The candidates and why each was ruled out.
    candidates: tuple[Candidate, ...] = ()


class Router(Protocol):
    """The seam that policies fill."""

    def decide(self, request: RouteRequest, state: ControlState, now_micros: int) -> Routed | RouteRefusal:
        """Where the call goes, or why nowhere. Pure: the same arguments give the same answer."""


class _Target(NamedTuple):
    """A candidate before it is judged."""

    provider_id: str
    model: str


class OrderedRouter:
    """Tries the candidates of a route in their order; a model named directly has one candidate."""

    def decide(self, request: RouteRequest, state: ControlState, now_micros: int) -> Routed | RouteRefusal:
        """See Router. A route comes first, then `provider/model`, then a model that exactly one provider serves."""
        del now_micros  # this policy has no memory
        route = state.route(request.key.tenant_id, request.model)
        if route is not None:
            targets = [_Target(candidate.provider_id, candidate.model) for candidate in route.candidates]
            return _judged(request, state, targets, route)
        direct = _direct(request.model, state)
        if isinstance(direct, RouteRefusal):
            return direct
        return _judged(request, state, [direct], None)


def _direct(name: str, state: ControlState) -> _Target | RouteRefusal:
    provider_id, _, model = name.partition("/")
    if model and provider_id in state.providers:
        return _Target(provider_id, model)
    serving = _serving(name, state)
    if len(serving) == 1:
        return _Target(serving[0], name)
    if serving:
        forms = ", ".join(f"{provider_id}/{name}" for provider_id in serving)
        message = f"The model '{name}' is served by several providers: ask for one of {forms}, or set a route."
        return RouteRefusal(code=RouteRefusalCode.MODEL_AMBIGUOUS, message=message)
    unpriced = [provider.provider_id for provider in state.providers.values() if name in provider.models]
    if unpriced:
        return _Target(unpriced[0], name)
    message = f"The model '{name}' does not exist or no provider serves it at a known price."
    return RouteRefusal(code=RouteRefusalCode.MODEL_NOT_FOUND, message=message)


def _serving(name: str, state: ControlState) -> list[str]:
    """Providers that serve a model of this name and have a price for it."""
    found = []
    for provider_id, provider in state.providers.items():
        model = provider.resolve(name)
        if model is not None and (provider_id, model) in state.prices:
            found.append(provider_id)
    return sorted(found)


def _judged(
    request: RouteRequest, state: ControlState, targets: Sequence[_Target], route: Route | None
) -> Routed | RouteRefusal:
    allowed_by_name = request.key.allows(request.model)
    order, eligible, refused = [], [], []
    for target in targets:
        allowed = allowed_by_name or _allows(request.key, target)
        choice = _choice(target, state) if allowed else RuledOut.MODEL_NOT_ALLOWED
        if isinstance(choice, RuledOut):
            refused.append(_ruled_out(target, choice, state))
        else:
            order.append(choice)
            eligible.append(_eligible(choice))
    candidates = (*eligible, *refused)
    if not order:
        return _refusal(request.model, candidates)
    policy, version = DIRECT, ""
    if route is not None:
        policy, version = POLICY, state.route_versions.get((route.tenant_id, route.alias), "")
    return Routed(policy=policy, policy_version=version, candidates=candidates, order=tuple(order))


def _allows(key: VirtualKey, target: _Target) -> bool:
    return key.allows(target.model) or key.allows(f"{target.provider_id}/{target.model}")


def _choice(target: _Target, state: ControlState) -> Choice | RuledOut:
    provider = state.provider(target.provider_id)
    if provider is None:
        return RuledOut.PROVIDER_REMOVED
    model = provider.resolve(target.model)
    if model is None:
        return RuledOut.MODEL_NOT_SERVED
    price = state.price(target.provider_id, model)
    if price is None:
        return RuledOut.NO_PRICE
    return Choice(provider, model, price, state.price_version(target.provider_id) or "")


def _eligible(choice: Choice) -> Candidate:
    return Candidate(
        provider_id=choice.provider.provider_id, model=choice.model, eligible=True, price_id=choice.price.price_id
    )


def _ruled_out(target: _Target, reason: RuledOut, state: ControlState) -> Candidate:
    provider = state.provider(target.provider_id)
    model = (provider.resolve(target.model) if provider else None) or target.model
    return Candidate(provider_id=target.provider_id, model=model, eligible=False, ruled_out_by=reason.value)


#: The refusal when every candidate was ruled out for the same reason.
_SHARED: Mapping[str, tuple[RouteRefusalCode, str]] = {
    RuledOut.MODEL_NOT_ALLOWED: (RouteRefusalCode.MODEL_NOT_ALLOWED, "This key may not use the model '{}'."),
    RuledOut.NO_PRICE: (
        RouteRefusalCode.MODEL_WITHOUT_PRICE,
        "The model '{}' has no price, so its cost could not be accounted for; `quaestor price set` gives it one.",
    ),
    RuledOut.MODEL_NOT_SERVED: (RouteRefusalCode.MODEL_NOT_FOUND, "The model '{}' does not exist at this provider."),
}


def _refusal(model: str, candidates: tuple[Candidate, ...]) -> RouteRefusal:
    reasons = {candidate.ruled_out_by or "" for candidate in candidates}
    if len(reasons) == 1 and (shared := _SHARED.get(min(reasons))):
        return RouteRefusal(code=shared[0], message=shared[1].format(model), candidates=candidates)
    listed = ", ".join(f"{one.provider_id}/{one.model}: {one.ruled_out_by}" for one in candidates)
    message = f"No candidate of '{model}' can be used ({listed})."
    return RouteRefusal(code=RouteRefusalCode.NO_CANDIDATE, message=message, candidates=candidates)


def is_known(name: str, tenant_id: str, state: ControlState) -> bool:
    """Whether a route, a price book or a provider's list has this name of a model, or its part behind `provider/`.

    A provider without a list takes any name, so a name that is merely routed there may be anything a caller wrote.
    """
    if state.route(tenant_id, name) is not None or _is_somebodys(name, state):
        return True
    provider_id, _, model = name.partition("/")
    return provider_id in state.providers and _is_somebodys(model, state)


def _is_somebodys(model: str, state: ControlState) -> bool:
    if any(model in provider.models for provider in state.providers.values()):
        return True
    return any((provider_id, model) in state.prices for provider_id in state.books)


def models_for(key: VirtualKey, state: ControlState, router: Router, now_micros: int) -> tuple[str, ...]:
    """Every name this key may ask for: exactly those aliases, models and provider/model forms that would be routed."""
    names = {alias for tenant_id, alias in state.routes if tenant_id in {key.tenant_id, SYSTEM_TENANT}}
    for provider_id, provider in state.providers.items():
        for name in _named(provider, state):
            names.update((name, f"{provider_id}/{name}"))
    requests = [RouteRequest(key=key, model=name, operation=Operation.UNKNOWN) for name in sorted(names)]
    return tuple(one.model for one in requests if isinstance(router.decide(one, state, now_micros), Routed))


def _named(provider: Provider, state: ControlState) -> list[str]:
    """Names under which callers reach models of this provider that have a price."""
    if provider.models:
        return [name for name, model in provider.models.items() if (provider.provider_id, model) in state.prices]
    book = state.books.get(provider.provider_id)
    return [price.model for price in book.prices] if book else []
