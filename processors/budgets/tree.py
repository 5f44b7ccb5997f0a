"""Which limits a call stands under, and the legs of its hold: one per limit, in what the limit counts.

    tenant → team → project → key        the tree; every key has its place in it
    user, tag, model, provider, run      across it, within one tenant

A limit on `*` (for a tag: `name=*`) stands on each one apart: every end user, run or key has counters of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from processors.calendar import window_of
from processors.control.entities import SCOPES, ExchangeRate, Limit, Threshold, each_of
from processors.control.state import ControlState
from schemas.errors import ConfigurationError
from schemas.events import HoldLeg
from schemas.limits import LEGS_MAX
from schemas.money import (
    COUNTED_REQUESTS,
    COUNTED_TOKENS,
    UNIT_NAMES,
    convert_nano,
    convert_up_nano,
)

#: The allowance of a limit that only watches: half of what a counter can count (64 bits), so it never refuses. It is
#: a double to the last digit, so comparing with it needs no exact sum: no sum below it rounds to one above.
UNLIMITED_NANO = 2**62
VALUE_HEX_DIGITS = 16
PERCENT = 100


class Payer(NamedTuple):
    """Whose call it is; None or empty where it has none."""

    tenant_id: str
    team_id: str | None = None
    project_id: str | None = None
    key_id: str | None = None
    run_id: str | None = None
    #: The end user's handle (protocols.md, "Personal data"), never the name that the caller gave.
    user: str | None = None
    #: Tags that stand in the clear.
    tags: Mapping[str, str] = {}
    #: SHA-256 of the approval code that the caller gave, hex.
    approval_hash: str | None = None


class Target(NamedTuple):
    """Where an attempt goes."""

    provider_id: str
    #: The provider's own name of the model.
    model: str
    #: The model or alias that was asked for.
    model_requested: str | None = None


class HoldSize(NamedTuple):
    """What an attempt may use at most."""

    #: Nano-units of currency.
    amount_nano: int
    #: ISO 4217 code of the attempt's price.
    currency: str
    #: Input and output tokens together.
    tokens: int
    #: Requests that are answered by it: one or none.
    requests: int = 1


class Standing(NamedTuple):
    """A limit that a call stands under, and the name that its counters have for this call."""

    limit: Limit
    limit_id: str


class Legs(NamedTuple):
    """The legs of a hold, what each limit allows now, and the exchange rates used."""

    legs: tuple[HoldLeg, ...] = ()
    #: Nano-units of each leg's currency.
    allowed_nano: tuple[int, ...] = ()
    #: The threshold that makes a leg's limit allow less than its amount; None where there is none.
    held_to: tuple[Threshold | None, ...] = ()
    #: For the events; None when none was needed.
    exchange_rate_id: str | None = None


NO_LEGS = Legs()


def standings(state: ControlState, payer: Payer, target: Target, now_micros: int) -> tuple[Standing, ...]:
    """The limits in force that a call stands under, the narrowest first."""
    scopes = state.scopes_limited.get(payer.tenant_id)
    if not scopes:
        return ()
    found: list[Standing] = []
    for scope in SCOPES:
        if scope in scopes:
            for value in _values(scope, payer, target):
                found += _on(state, payer.tenant_id, scope, value, now_micros)
    return tuple(found)


def _values(scope: str, payer: Payer, target: Target) -> Iterator[str]:
    """What a call has of a scope."""
    if scope == "tag":
        for name, value in payer.tags.items():
            yield f"{name}={value}"
    elif scope == "model":
        yield target.model
        if target.model_requested and target.model_requested != target.model:
            yield target.model_requested
    else:
        value = target.provider_id if scope == "provider" else getattr(payer, _FIELDS[scope])
        if value is not None:
            yield value


_FIELDS = {
    "tenant": "tenant_id",
    "team": "team_id",
    "project": "project_id",
    "key": "key_id",
    "run": "run_id",
    "user": "user",
}


def _on(state: ControlState, tenant_id: str, scope: str, value: str, now_micros: int) -> Iterator[Standing]:
    """The limits on this one, and those on each of its kind."""
    table = state.limits_by_scope
    for limit in table.get((tenant_id, scope, value), ()):
        if limit.in_force(now_micros):
            yield Standing(limit, limit.limit_id)
    for limit in table.get((tenant_id, scope, each_of(scope, value)), ()):
        if limit.in_force(now_micros):
            yield Standing(limit, f"{limit.limit_id}.{_digest(value)}")


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:VALUE_HEX_DIGITS]


def legs_for(
    found: tuple[Standing, ...],
    payer: Payer,
    target: Target,
    size: HoldSize,
    now_micros: int,
    rates: Mapping[tuple[str, str], ExchangeRate],
) -> Legs:
    """The legs of a hold of this size; raises ConfigurationError without an exchange rate, and for too many limits."""
    if not found:
        return NO_LEGS
    if len(found) > LEGS_MAX:
        raise ConfigurationError(f"a call stands under {len(found)} limits, {LEGS_MAX} are allowed")
    used: dict[str, None] = {}
    legs = tuple([_leg(standing, size, now_micros, rates, used) for standing in found])
    allowed = [_allowed(one.limit, payer, target, now_micros) for one in found]
    return Legs(legs, tuple([nano for nano, _ in allowed]), tuple([by for _, by in allowed]), ",".join(used) or None)


def allowed_by_now(
    legs: Iterable[HoldLeg], limits: Mapping[str, Limit], payer: Payer, target: Target, now_micros: int
) -> list[tuple[int, Threshold | None]]:
    """What the limits of a hold that stands allow it by now, nano-units, and the thresholds that make it less.

    Which limits it stands under, their windows and rates were pinned when it was placed; what they allow was not. A
    limit that is gone since refuses nothing; one whose window is over allows what it did at its end.
    """
    found: list[tuple[int, Threshold | None]] = []
    for leg in legs:
        limit = limits.get(leg.limit_id.partition(".")[0])
        moment = min(now_micros, leg.window_end - 1) if leg.window_end else now_micros
        stands = limit is not None and limit.in_force(moment)
        found.append(_allowed(limit, payer, target, moment) if limit and stands else (UNLIMITED_NANO, None))
    return found


def _allowed(limit: Limit, payer: Payer, target: Target, now_micros: int) -> tuple[int, Threshold | None]:
    """What a limit allows this call, nano-units, and the threshold that makes it less than the limit's amount.

    A threshold that does more than notify is a lower limit for the calls that it holds to something: so it acts at
    once, and can't be overrun (docs/decisions/0121).
    """
    amount_nano = limit.allowed_nano(now_micros)
    allowed_nano, held_to = amount_nano if limit.hard else UNLIMITED_NANO, None
    for threshold in limit.guards:
        if threshold.action != "notify" and not _passes(threshold, limit, payer, target, now_micros):
            at_nano = amount_nano * threshold.percent // PERCENT
            if at_nano < allowed_nano:
                allowed_nano, held_to = at_nano, threshold
    return allowed_nano, held_to


def _passes(threshold: Threshold, limit: Limit, payer: Payer, target: Target, now_micros: int) -> bool:
    """Whether a call may go past a threshold."""
    if threshold.action == "approval":
        return payer.approval_hash is not None and limit.approves(payer.approval_hash, now_micros)
    if threshold.action == "cheaper":
        return threshold.admits(target.model, f"{target.provider_id}/{target.model}")
    return False


def _leg(
    standing: Standing,
    size: HoldSize,
    now_micros: int,
    rates: Mapping[tuple[str, str], ExchangeRate],
    used: dict[str, None],
) -> HoldLeg:
    limit = standing.limit
    start, end = window_of(limit.window, now_micros, limit.time_zone)
    rate_nano = None
    if limit.currency != size.currency and limit.currency not in UNIT_NAMES:
        rate = rates.get((size.currency, limit.currency))
        if rate is None:
            raise ConfigurationError(
                f"limit {limit.limit_id} counts {limit.currency} and there is no exchange rate from {size.currency}: "
                f"set one with `quaestor rate set {size.currency} {limit.currency}`"
            )
        used[rate.rate_id] = None
        rate_nano = rate.rate_nano
    amount_nano = _counted(limit.currency, rate_nano, size, convert_up_nano)
    return HoldLeg(
        limit_id=standing.limit_id,
        amount_nano=amount_nano,
        held_nano=amount_nano,
        currency=limit.currency,
        window_start=start,
        window_end=end,
        exchange_rate_nano=rate_nano,
    )


def held_nano(leg: HoldLeg, size: HoldSize) -> int:
    """What a leg holds for so much, in what it counts; at the rate that placement pinned, rounded up."""
    return _counted(leg.currency, leg.exchange_rate_nano, size, convert_up_nano)


def counted_nano(leg: HoldLeg, size: HoldSize) -> int:
    """What a leg is charged for what was used, in what it counts; at the rate that placement pinned."""
    return _counted(leg.currency, leg.exchange_rate_nano, size, convert_nano)


def _counted(currency: str, rate_nano: int | None, size: HoldSize, convert: Callable[[int, int], int]) -> int:
    """So much of what a limit counts; `convert` says how it is rounded where it counts another currency."""
    if currency == COUNTED_TOKENS:
        return size.tokens
    if currency == COUNTED_REQUESTS:
        return size.requests
    return size.amount_nano if rate_nano is None else convert(size.amount_nano, rate_nano)
