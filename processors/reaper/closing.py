"""The events that close an expired hold's request, and the correction when its commit comes late."""

from __future__ import annotations

import msgspec

from processors.budgets.events import REAPER
from schemas.events import (
    AttemptOutcome,
    BudgetEvent,
    CostEvent,
    CostKind,
    Event,
    Meter,
    Operation,
    ProviderAttempt,
    RequestEvent,
    RequestKind,
    SubjectState,
    UsageSource,
)
from schemas.ids import derived_id
from schemas.money import PICO_PER_NANO

#: "Price" of the one unit an expired hold is charged.
UNSETTLED_PRICE = "unsettled-hold"
STATUS_GATEWAY_TIMEOUT = 504


def closing_events(expired: BudgetEvent, actor: str) -> tuple[Event, ...]:
    """What follows from an EXPIRED that won: the attempt as abandoned, its estimated cost, the request failed.

    A hold charged nothing has no cost line, and one of no request has nothing to close.
    """
    if expired.request_id is None:
        return ()
    cost = (unsettled_cost(expired, actor),) if expired.amount_nano else ()
    return (_abandoned(expired, actor), *cost, _failed(expired, actor))


def unsettled_cost(expired: BudgetEvent, actor: str) -> CostEvent:
    """The estimate an expired hold was charged, as one cost line."""
    return CostEvent(
        event_id=derived_id(REAPER, expired.event_id, "COST", Meter.UNSETTLED_HOLD.value),
        occurred_at=expired.occurred_at,
        tenant_id=expired.tenant_id,
        request_id=expired.request_id,
        causation_id=expired.event_id,
        actor=actor,
        run_id=expired.run_id,
        key_id=expired.key_id,
        team_id=expired.team_id,
        project_id=expired.project_id,
        kind=CostKind.CHARGE,
        attempt_id=expired.hold_id,
        provider_id=expired.provider_id,
        model=expired.model,
        meter=Meter.UNSETTLED_HOLD,
        quantity=1,
        unit_price_pico=expired.amount_nano * PICO_PER_NANO,
        price_id=UNSETTLED_PRICE,
        price_version=expired.price_version or UNSETTLED_PRICE,
        provider_amount_nano=expired.amount_nano,
        provider_currency=expired.currency,
        amount_nano=expired.amount_nano,
        currency=expired.currency,
        estimated=True,
    )


def correction(expired: BudgetEvent, committed: BudgetEvent, actor: str) -> CostEvent | None:
    """What takes the estimate back when a commit comes late, with its real cost lines. None for no estimate."""
    if not expired.amount_nano or expired.request_id is None:
        return None
    charge = unsettled_cost(expired, actor)
    return msgspec.structs.replace(
        charge,
        event_id=derived_id(REAPER, committed.event_id, CostKind.CORRECTION.value, charge.event_id),
        occurred_at=committed.occurred_at,
        causation_id=committed.event_id,
        kind=CostKind.CORRECTION,
        quantity=-1,
        provider_amount_nano=-expired.amount_nano,
        amount_nano=-expired.amount_nano,
        corrects_event_id=charge.event_id,
    )


def _abandoned(expired: BudgetEvent, actor: str) -> ProviderAttempt:
    return ProviderAttempt(
        event_id=derived_id(REAPER, expired.event_id, "ATTEMPT", expired.hold_id),
        occurred_at=expired.occurred_at,
        tenant_id=expired.tenant_id,
        request_id=expired.request_id,
        causation_id=expired.event_id,
        actor=actor,
        run_id=expired.run_id,
        key_id=expired.key_id,
        team_id=expired.team_id,
        project_id=expired.project_id,
        attempt_id=expired.hold_id,
        attempt_number=expired.attempt_number,
        operation=Operation.UNKNOWN,
        provider_id=expired.provider_id,
        model=expired.model,
        outcome=AttemptOutcome.ABANDONED,
        error_detail="the gateway was lost and the lease ran out",
        usage_source=UsageSource.NONE,
        started_at=expired.occurred_at,
        duration_micros=0,
    )


def _failed(expired: BudgetEvent, actor: str) -> RequestEvent:
    return RequestEvent(
        event_id=derived_id(REAPER, expired.event_id, RequestKind.FAILED.value, expired.request_id or ""),
        occurred_at=expired.occurred_at,
        tenant_id=expired.tenant_id,
        request_id=expired.request_id,
        causation_id=expired.event_id,
        actor=actor,
        kind=RequestKind.FAILED,
        run_id=expired.run_id,
        key_id=expired.key_id,
        team_id=expired.team_id,
        project_id=expired.project_id,
        operation=Operation.UNKNOWN,
        subject_state=SubjectState.UNKNOWN,
        status_code=STATUS_GATEWAY_TIMEOUT,
        error_code="gateway_lost",
        error_detail="the gateway was lost and the lease ran out",
        attempt_count=expired.attempt_number,
        usage_source=UsageSource.NONE,
        amount_nano=expired.amount_nano,
        currency=expired.currency,
    )
