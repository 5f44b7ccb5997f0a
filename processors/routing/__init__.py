"""Which provider and model serve a call: the seam `Router` and the ordered policy behind it. Pure."""

from __future__ import annotations

from processors.routing.router import (
    Choice,
    OrderedRouter,
    Routed,
    Router,
    RouteRefusal,
    RouteRefusalCode,
    RouteRequest,
    RuledOut,
    is_known,
    models_for,
)

__all__ = [
    "Choice",
    "OrderedRouter",
    "RouteRefusal",
    "RouteRefusalCode",
    "RouteRequest",
    "Routed",
    "Router",
    "RuledOut",
    "is_known",
    "models_for",
]
