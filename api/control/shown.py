"""Limits, what is used of them, and exchange rates as the command line and the console tell them; money as decimals."""

from __future__ import annotations

import msgspec

from api.times import time_text
from processors.budgets.usage import LimitUsage
from processors.control import ControlState, ExchangeRate, Increase, Limit
from processors.guardrails.forecast import INTERVAL_PERCENT, Projection
from schemas.ids import uuid7_millis
from schemas.money import format_amount, format_nano

MICROS_PER_MILLI = 1_000


class ThresholdShown(msgspec.Struct, frozen=True):
    """From where on somebody is told, and what the gateway does besides."""

    #: Of what the limit allows.
    percent: int
    action: str
    #: What `cheaper` still admits.
    models: list[str]
    #: Whether it is there because nobody said otherwise.
    usual: bool


class IncreaseShown(msgspec.Struct, frozen=True):
    """More for a while."""

    amount: str
    valid_from: str
    valid_until: str
    #: Who allowed it.
    approval_code: str


class LimitShown(msgspec.Struct, frozen=True):
    """A limit."""

    id: str
    tenant: str
    #: What it stands on: tenant, team, project, key, user, tag, model, provider or run.
    scope: str
    #: Which; `*` each apart. End users by their handle.
    scope_id: str
    name: str
    #: Most per window.
    amount: str
    #: The same with the increases in force.
    allowed: str
    #: USD, EUR, TOK (tokens) or REQ (requests).
    currency: str
    window: str
    time_zone: str
    #: Whether it refuses calls, or only watches.
    hard: bool
    thresholds: list[ThresholdShown]
    valid_from: str | None
    valid_until: str | None
    increases: list[IncreaseShown]


class ProjectionShown(msgspec.Struct, frozen=True):
    """What will have been charged when the window ends."""

    expected: str
    low: str
    high: str
    #: How sure `low` to `high` is.
    interval_percent: int
    #: Of how many hours the run rate was made.
    hours: int


class StandingShown(msgspec.Struct, frozen=True):
    """What is used of a limit in its present window."""

    #: The counter: the limit's id, and for one of each apart what tells it from the others.
    id: str
    limit: str
    tenant: str
    scope: str
    scope_id: str
    currency: str
    window: str
    hard: bool
    #: Null for a limit in all.
    window_start: str | None
    #: When it starts anew; null for a limit in all.
    window_end: str | None
    allowed: str
    #: Charged by calls that ended.
    charged: str
    #: Held by calls under way.
    held: str
    #: What a call may still hold; negative after an overage.
    left: str
    #: Charged of what is allowed.
    percent: int
    #: Null where too little is known.
    projected: ProjectionShown | None


class RateShown(msgspec.Struct, frozen=True):
    """An exchange rate."""

    base: str
    quote: str
    #: Units of quote for one of base.
    rate: str
    #: The day it was published for.
    dated: str
    source: str
    #: The event that set it.
    id: str
    #: When it was put in force; null before it is.
    since: str | None


def limit_shown(limit: Limit, now_micros: int) -> LimitShown:
    """A limit as it is at this moment."""
    return LimitShown(
        id=limit.limit_id,
        tenant=limit.tenant_id,
        scope=limit.scope,
        scope_id=limit.scope_id,
        name=limit.name,
        amount=format_amount(limit.amount_nano, limit.currency),
        allowed=format_amount(limit.allowed_nano(now_micros), limit.currency),
        currency=limit.currency,
        window=limit.window,
        time_zone=limit.time_zone,
        hard=limit.hard,
        thresholds=[
            ThresholdShown(one.percent, one.action, list(one.models), limit.thresholds is None) for one in limit.guards
        ],
        valid_from=None if limit.valid_from is None else time_text(limit.valid_from),
        valid_until=None if limit.valid_until is None else time_text(limit.valid_until),
        increases=[_increase(one, limit.currency) for one in limit.increases],
    )


def _increase(one: Increase, currency: str) -> IncreaseShown:
    amount = format_amount(one.amount_nano, currency)
    return IncreaseShown(amount, time_text(one.valid_from), time_text(one.valid_until), one.approval_code)


def standing_shown(one: LimitUsage, projected: Projection | None) -> StandingShown:
    """What is used of a limit."""
    limit, counter = one.limit, one.counter
    return StandingShown(
        id=counter.limit_id,
        limit=limit.limit_id,
        tenant=limit.tenant_id,
        scope=limit.scope,
        scope_id=limit.scope_id,
        currency=limit.currency,
        window=limit.window,
        hard=limit.hard,
        window_start=time_text(counter.window_start) if counter.window_end else None,
        window_end=time_text(counter.window_end) if counter.window_end else None,
        allowed=format_amount(one.allowed_nano, limit.currency),
        charged=format_amount(one.posted_nano, limit.currency),
        held=format_amount(one.held_nano, limit.currency),
        left=format_amount(one.left_nano, limit.currency),
        percent=one.percent,
        projected=projected and _projection(projected, limit.currency),
    )


def _projection(projected: Projection, currency: str) -> ProjectionShown:
    low, expected, high = (
        format_amount(nano, currency) for nano in (projected.low_nano, projected.expected_nano, projected.high_nano)
    )
    return ProjectionShown(expected, low, high, INTERVAL_PERCENT, projected.hours)


def rate_shown(rate: ExchangeRate) -> RateShown:
    """A rate."""
    since = time_text(uuid7_millis(rate.rate_id) * MICROS_PER_MILLI) if rate.rate_id else None
    return RateShown(rate.base, rate.quote, format_nano(rate.rate_nano), rate.dated, rate.source, rate.rate_id, since)


def rates_of(state: ControlState, *, past: bool) -> list[ExchangeRate]:
    """The rates in force, or all that ever were with the latest of each pair first; by pair."""
    if past:
        return [rate for pair in sorted(state.past_rates) for rate in reversed(state.past_rates[pair])]
    return [state.rates[pair] for pair in sorted(state.rates)]
