"""Small events for tests: only what a test is about needs to be said."""

from __future__ import annotations

from typing import Any

from schemas.events import (
    Alert,
    AlertKind,
    AttemptOutcome,
    BudgetEvent,
    BudgetKind,
    ControlAction,
    ControlEvent,
    CostEvent,
    CostKind,
    EntityKind,
    HoldLeg,
    Meter,
    Operation,
    ProviderAttempt,
    Severity,
    UsageSource,
)

TENANT = "acme"
NOW_MICROS = 1_700_000_000_000_000


def alert(event_id: str, **fields: Any) -> Alert:
    """An alert."""
    given = {"kind": AlertKind.THRESHOLD, "severity": Severity.INFO, "subject": "s", "title": "t", "detail": "d"}
    return Alert(event_id=event_id, occurred_at=NOW_MICROS, tenant_id=TENANT, actor="test", **given | fields)


def control(event_id: str, **fields: Any) -> ControlEvent:
    """A tenant made."""
    given = {"entity_kind": EntityKind.TENANT, "entity_id": TENANT, "action": ControlAction.CREATED}
    return ControlEvent(event_id=event_id, occurred_at=NOW_MICROS, tenant_id=TENANT, actor="test", **given | fields)


def leg(limit_id: str, amount_nano: int, held_nano: int = 0, currency: str = "USD") -> HoldLeg:
    """One leg of a hold, in a window of its own."""
    return HoldLeg(
        limit_id=limit_id,
        amount_nano=amount_nano,
        held_nano=held_nano,
        currency=currency,
        window_start=0,
        window_end=0,
    )


def budget(kind: BudgetKind, hold_id: str, event_id: str, *legs: HoldLeg, **fields: Any) -> BudgetEvent:
    """A movement of a hold."""
    given = {
        "occurred_at": NOW_MICROS,
        "tenant_id": TENANT,
        "request_id": "r",
        "actor": "test",
        "amount_nano": max((one.amount_nano for one in legs), default=0),
        "currency": "USD",
        "provider_id": "p",
        "model": "m",
    }
    return BudgetEvent(event_id=event_id, kind=kind, hold_id=hold_id, legs=legs, **given | fields)


def cost(event_id: str, amount_nano: int, **fields: Any) -> CostEvent:
    """One cost line."""
    given = {
        "occurred_at": NOW_MICROS,
        "tenant_id": TENANT,
        "request_id": "r",
        "actor": "test",
        "kind": CostKind.CHARGE,
        "attempt_id": "a",
        "provider_id": "p",
        "model": "m",
        "meter": Meter.INPUT_TOKENS,
        "quantity": 1,
        "unit_price_pico": amount_nano * 1000,
        "price_id": "p/m",
        "price_version": "1",
        "provider_amount_nano": amount_nano,
        "provider_currency": "USD",
        "amount_nano": amount_nano,
        "currency": "USD",
    }
    return CostEvent(event_id=event_id, **given | fields)


def attempt(event_id: str, **fields: Any) -> ProviderAttempt:
    """One call to a provider."""
    given = {
        "occurred_at": NOW_MICROS,
        "tenant_id": TENANT,
        "request_id": "r",
        "actor": "test",
        "attempt_id": "a",
        "attempt_number": 1,
        "operation": Operation.CHAT_COMPLETIONS,
        "provider_id": "p",
        "model": "m",
        "outcome": AttemptOutcome.SUCCEEDED,
        "usage_source": UsageSource.PROVIDER,
        "started_at": NOW_MICROS,
        "duration_micros": 0,
    }
    return ProviderAttempt(event_id=event_id, **given | fields)
