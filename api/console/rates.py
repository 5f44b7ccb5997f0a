"""The API's view of exchange rates, for limits that count another currency than prices."""

from __future__ import annotations

from typing import Annotated, cast

import msgspec

from api.console.operations import Caller, Changing, Nothing, Reading
from api.console.parts import Parts
from api.console.problems import Problem, refused
from api.console.values import Amount, Reason, amount_of
from api.control.session import Decide
from api.control.shown import RateShown, rate_shown, rates_of
from processors import control
from processors.control import ExchangeRate, Refusal
from schemas.events import ControlEvent

Code = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$", description="An ISO 4217 code.")]


class RatesAsked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which rates."""

    past: Annotated[bool, msgspec.Meta(description="Every rate that was put in force, the latest first.")] = False


class Rates(msgspec.Struct):
    """The rates in force, or all that ever were."""

    rates: list[RateShown]


class RateWanted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A rate to put in force. Holds that stand keep the rate they were placed at."""

    base: Code
    quote: Code
    #: Units of quote for one of base.
    rate: Amount
    #: The day it was published for, YYYY-MM-DD.
    dated: str
    #: Who published it.
    source: str
    #: Also when it is older than the one in force, or of a day to come.
    replace: bool = False
    reason: Reason | None = None


class RateRemoval(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which rate, and why."""

    base: Code
    quote: Code
    reason: Reason | None = None


class RateChanged(msgspec.Struct):
    """A change, acknowledged by Kafka; gateways follow within two seconds."""

    #: The event that says it; null when it was so already.
    event_id: str | None
    #: Microseconds since the epoch.
    occurred_at: int | None
    #: After the change; of a removed rate, before it.
    rate: RateShown


async def rates(parts: Parts, asked: RatesAsked) -> Rates:
    """All rates in force, or that ever were."""
    found = rates_of(await parts.control.state(), past=asked.past)
    return Rates([rate_shown(rate) for rate in found])


async def set_rate(parts: Parts, caller: Caller, _asked: Nothing, wanted: RateWanted) -> RateChanged | Problem:
    """Put a rate in force."""
    rate_nano = amount_of(wanted.rate, wanted.quote, "rate")
    if isinstance(rate_nano, Refusal):
        return refused(rate_nano)
    rate = ExchangeRate(
        base=wanted.base, quote=wanted.quote, rate_nano=rate_nano, dated=wanted.dated, source=wanted.source
    )
    return await _changed(
        parts,
        caller,
        rate,
        lambda state, origin: control.set_exchange_rate(state, rate, origin, replace=wanted.replace),
        wanted.reason,
    )


async def remove_rate(parts: Parts, caller: Caller, asked: RateRemoval, _wanted: None) -> RateChanged:
    """Take a rate out of force."""
    none = ExchangeRate(base=asked.base, quote=asked.quote, rate_nano=0, dated="", source="")
    pair = (asked.base, asked.quote)
    return await _changed(
        parts, caller, none, lambda state, origin: control.remove_exchange_rate(state, *pair, origin), asked.reason
    )


async def _changed(
    parts: Parts, caller: Caller, wanted: ExchangeRate, decide: Decide, reason: str | None
) -> RateChanged:
    written = await parts.control.write(caller.write([decide], reason))
    if not written.events:
        return RateChanged(None, None, rate_shown(written.before.rates.get((wanted.base, wanted.quote), wanted)))
    (event,) = written.events
    return RateChanged(event.event_id, event.occurred_at, rate_shown(_said(event)))


def _said(event: ControlEvent) -> ExchangeRate:
    """The rate that an event sets or, when it removes one, had."""
    rate = msgspec.json.decode(cast("str", event.after or event.before), type=ExchangeRate)
    return rate if event.after is None else msgspec.structs.replace(rate, rate_id=event.event_id)


OPERATIONS = (
    Reading(
        name="rates",
        path="/api/rates",
        summary="The exchange rates in force, or all that ever were.",
        asked=RatesAsked,
        answered=Rates,
        handle=rates,
    ),
    Changing(
        name="rate_set",
        path="/api/rates",
        summary="Put a rate in force, as `quaestor rate set`.",
        asked=Nothing,
        wanted=RateWanted,
        answered=RateChanged,
        handle=set_rate,
    ),
    Changing(
        name="rate_remove",
        path="/api/rates/{base}/{quote}",
        summary="Take a rate out of force: calls under a limit that needs it wait until there is one again.",
        asked=RateRemoval,
        answered=RateChanged,
        handle=remove_rate,
    ),
)
