"""The control plane's state as the fold of quaestor.control: keys, providers, routes, limits, rates, prices. Pure."""

from __future__ import annotations

from processors.control.check import CURRENCY, Refusal, RefusalCode
from processors.control.decide import (
    Origin,
    add_provider,
    create_key,
    increase_limit,
    publish_prices,
    remove_exchange_rate,
    remove_limit,
    remove_provider,
    remove_route,
    revoke_key,
    set_exchange_rate,
    set_limit,
    set_route,
)
from processors.control.entities import (
    EACH,
    SCOPES,
    ExchangeRate,
    Increase,
    Limit,
    Provider,
    Route,
    RouteCandidate,
    VirtualKey,
    limit_id_of,
)
from processors.control.state import ControlState, evolve, evolve_all

__all__ = [
    "CURRENCY",
    "EACH",
    "SCOPES",
    "ControlState",
    "ExchangeRate",
    "Increase",
    "Limit",
    "Origin",
    "Provider",
    "Refusal",
    "RefusalCode",
    "Route",
    "RouteCandidate",
    "VirtualKey",
    "add_provider",
    "create_key",
    "evolve",
    "evolve_all",
    "increase_limit",
    "limit_id_of",
    "publish_prices",
    "remove_exchange_rate",
    "remove_limit",
    "remove_provider",
    "remove_route",
    "revoke_key",
    "set_exchange_rate",
    "set_limit",
    "set_route",
]
