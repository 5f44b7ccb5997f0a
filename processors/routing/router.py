"""The seam to routing and its first policy: an alias with ordered candidates, or a model named directly."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from processors.control.entities import Provider, VirtualKey
from processors.control.state import ControlState
from processors.pricing.prices import Price
from schemas.events import Candidate, Operation

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


class OrderedRouter:
    """Tries the candidates of a route in their order; a model named directly has one candidate."""

    def decide(self, request: RouteRequest, state: ControlState, now_micros: int) -> Routed | RouteRefusal:
        """See Router. A route comes first, then `provider/model`, then a model that exactly one provider serves."""
        raise NotImplementedError


def models_for(key: VirtualKey, state: ControlState) -> tuple[str, ...]:
    """Every name this key may ask for: aliases, models with a price that one provider serves, provider/model forms."""
    raise NotImplementedError
