"""The control plane's state: keys, providers, routes, limits and price books as the fold of quaestor.control. Pure."""

from __future__ import annotations

from processors.control.check import CURRENCY, Refusal, RefusalCode
from processors.control.decide import (
    Origin,
    add_provider,
    create_key,
    publish_prices,
    remove_limit,
    remove_provider,
    remove_route,
    revoke_key,
    set_limit,
    set_route,
)
from processors.control.entities import Limit, Provider, Route, RouteCandidate, VirtualKey, limit_id_of
from processors.control.state import ControlState, evolve, evolve_all

__all__ = [
    "CURRENCY",
    "ControlState",
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
    "limit_id_of",
    "publish_prices",
    "remove_limit",
    "remove_provider",
    "remove_route",
    "revoke_key",
    "set_limit",
    "set_route",
]
