"""Made-up holds and budget events for tests of budgets."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from processors.budgets import HoldContext, committed_event, expired_event, placed_event, released_event
from processors.control import Limit, limit_id_of
from schemas.events import BudgetEvent, HoldLeg
from schemas.ids import uuid7
from sinks.redis.holds import PlaceHold

TENANT = "acme"
#: 21 November 2026, 04:00 UTC.
NOW_MICROS = 1_795_233_600_000_000
LEASE_MICROS = 420_000_000


def hold_id(number: int, now_micros: int = NOW_MICROS) -> str:
    """The uuid7 of the n-th hold."""
    return uuid7(now_micros, number.to_bytes(10, "big"))


def leg(amount_nano: int, limit_id: str = "tenant_total", window: tuple[int, int] = (0, 0)) -> HoldLeg:
    """A leg that holds an amount."""
    return HoldLeg(
        limit_id=limit_id,
        amount_nano=amount_nano,
        held_nano=amount_nano,
        currency="USD",
        window_start=window[0],
        window_end=window[1],
    )


def limit_on(scope: str, scope_id: str, amount_nano: int = 100, **fields: Any) -> Limit:
    """A limit of a month, in dollars, of TENANT, unless the fields say otherwise."""
    given = {"tenant_id": TENANT, "window": "month", "currency": "USD"} | fields
    of = [str(given[name]) for name in ("window", "currency")]
    limit_id = limit_id_of(str(given["tenant_id"]), scope, scope_id, *of, str(given.get("name", "")))
    made = {"limit_id": limit_id, "scope": scope, "scope_id": scope_id, "amount_nano": amount_nano}
    return msgspec.convert(made | given, Limit)


def ask(hold: str, amount_nano: int, limit_nano: int, tenant_id: str = TENANT) -> PlaceHold:
    """A hold on one limit."""
    return PlaceHold(tenant_id, hold, (leg(amount_nano),), (limit_nano,))


class Events:
    """Makes the events of holds, with ids in order."""

    def __init__(self, tenant_id: str = TENANT, now_micros: int = NOW_MICROS) -> None:
        """Count from 1."""
        self._tenant_id = tenant_id
        self._now_micros = now_micros
        self._numbers = itertools.count(1)

    def placed(self, hold: str, *legs: HoldLeg, generation: str = "") -> BudgetEvent:
        """PLACED with these legs."""
        context = HoldContext(
            tenant_id=self._tenant_id,
            request_id=hold,
            actor="gateway/test",
            key_id="key_1",
            hold_id=hold,
            provider_id="simulated",
            model="small",
            currency="USD",
            amount_nano=legs[0].amount_nano if legs else 0,
            legs=legs,
        )
        return placed_event(
            context,
            event_id=self._id(),
            occurred_at=self._now_micros,
            causation_id=None,
            lease_until=self._now_micros + LEASE_MICROS,
            generation=generation,
        )

    def committed(self, placed: BudgetEvent, amount_nano: int) -> BudgetEvent:
        """COMMITTED, charged this."""
        return committed_event(
            placed, event_id=self._id(), occurred_at=self._now_micros, actor="gateway/test", amount_nano=amount_nano
        )

    def released(self, placed: BudgetEvent) -> BudgetEvent:
        """RELEASED."""
        return released_event(
            placed, event_id=self._id(), occurred_at=self._now_micros, actor="gateway/test", reason="test"
        )

    def expired(self, placed: BudgetEvent) -> BudgetEvent:
        """EXPIRED, charged in full."""
        return expired_event(placed, actor="reaper/0")

    def _id(self) -> str:
        return hold_id(1_000_000 + next(self._numbers))


def fields_of(event: BudgetEvent) -> dict[str, object]:
    """The event as a sink reads it."""
    fields: dict[str, object] = msgspec.to_builtins(event)
    return fields
