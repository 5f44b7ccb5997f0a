"""The events of a hold's life, built from what placement pinned. Ids and times come in; nothing here decides.

PLACED pins legs, amount, currency, windows, price version and exchange rate; every later event of the hold copies
them from it.
"""

from __future__ import annotations

import msgspec

from processors.budgets.policy import ExpiredCharge, expired_charge_nano
from processors.budgets.tree import HoldSize, counted_nano, held_nano
from processors.control.entities import Threshold
from schemas.events import BudgetEvent, BudgetKind, HoldLeg
from schemas.ids import derived_id

REAPER = "reaper"


class HoldContext(msgspec.Struct, frozen=True, kw_only=True):
    """Whose hold it is and what it is for: everything of PLACED and REFUSED but their ids, times and amounts."""

    tenant_id: str
    request_id: str
    actor: str
    run_id: str | None = None
    key_id: str | None = None
    team_id: str | None = None
    project_id: str | None = None
    #: Identity of the hold and of the attempt it is for.
    hold_id: str
    #: Counted from 1 within the request.
    attempt_number: int = 1
    provider_id: str
    model: str
    #: ISO 4217 code of the tenant.
    currency: str
    #: The attempt's amount held, nano-units of currency.
    amount_nano: int
    #: Every limit the hold stands on.
    legs: tuple[HoldLeg, ...]
    price_version: str | None = None
    exchange_rate_id: str | None = None


def placed_event(
    context: HoldContext,
    *,
    event_id: str,
    occurred_at: int,
    causation_id: str | None,
    lease_until: int,
    generation: str,
    reason: str | None = None,
) -> BudgetEvent:
    """PLACED: the hold stands from here until its first resolution; `generation` is what HoldStore.place answered.

    `reason` says why it stands where no store was asked.
    """
    kind, stands_in = BudgetKind.PLACED, generation or None
    event = _of_context(context, kind, event_id, occurred_at, causation_id, lease_until, stands_in)
    return event if reason is None else msgspec.structs.replace(event, reason=reason)


def refusal_reason(held_to: Threshold | None) -> str:
    """Why a limit had no room, as REFUSED and callers are told."""
    return "budget_exceeded" if held_to is None else _REASONS[held_to.action]


_REASONS = {"block": "budget_blocked", "approval": "approval_required", "cheaper": "cheaper_models_only"}
#: The reasons of REFUSED that name a threshold, and not the limit itself.
THRESHOLD_REASONS = frozenset(_REASONS.values())


def refused_event(
    context: HoldContext,
    *,
    event_id: str,
    occurred_at: int,
    causation_id: str | None,
    limit_id: str,
    remaining_nano: int,
    held_to: Threshold | None = None,
) -> BudgetEvent:
    """REFUSED: a limit had no room, or none up to a threshold; it moves no counter."""
    event = _of_context(context, BudgetKind.REFUSED, event_id, occurred_at, causation_id, None, None)
    return msgspec.structs.replace(
        event, reason=refusal_reason(held_to), refused_by_limit_id=limit_id, remaining_nano=remaining_nano
    )


def _of_context(
    context: HoldContext,
    kind: BudgetKind,
    event_id: str,
    occurred_at: int,
    causation_id: str | None,
    lease_until: int | None,
    generation: str | None,
) -> BudgetEvent:
    return BudgetEvent(
        event_id=event_id,
        occurred_at=occurred_at,
        tenant_id=context.tenant_id,
        request_id=context.request_id,
        causation_id=causation_id,
        actor=context.actor,
        run_id=context.run_id,
        key_id=context.key_id,
        team_id=context.team_id,
        project_id=context.project_id,
        kind=kind,
        hold_id=context.hold_id,
        legs=context.legs,
        amount_nano=context.amount_nano,
        currency=context.currency,
        provider_id=context.provider_id,
        model=context.model,
        price_version=context.price_version,
        exchange_rate_id=context.exchange_rate_id,
        lease_until=lease_until,
        generation=generation,
        attempt_number=context.attempt_number,
    )


def committed_event(
    placed: BudgetEvent,
    *,
    event_id: str,
    occurred_at: int,
    actor: str,
    amount_nano: int,
    tokens: int = 0,
    answered: bool = True,
    estimated: bool = False,
    late: bool = False,
    causation_id: str | None = None,
) -> BudgetEvent:
    """COMMITTED: the hold is charged what was used and its rest is freed.

    `amount_nano` is the sum of the attempt's cost lines, `tokens` those read and written. A call that was not
    `answered` is no request to limits that count those.
    """
    legs = _charged(placed, HoldSize(amount_nano, placed.currency, tokens, requests=int(answered)))
    return _of_placed(
        placed,
        BudgetKind.COMMITTED,
        event_id=event_id,
        occurred_at=occurred_at,
        actor=actor,
        legs=legs,
        amount_nano=amount_nano,
        estimated=estimated,
        late=late,
        causation_id=causation_id,
    )


def overage_event(
    committed: BudgetEvent, *, held_nano: int, event_id: str, occurred_at: int, actor: str
) -> BudgetEvent | None:
    """OVERAGE when a leg was charged more than it held, else None; informational, since COMMITTED posts the whole.

    `held_nano` is what the attempt was held for in its own currency: what its amount is above. Legs say theirs.
    """
    over = tuple(
        _leg(leg, leg.amount_nano - leg.held_nano, leg.held_nano)
        for leg in committed.legs
        if leg.amount_nano > leg.held_nano
    )
    if not over:
        return None
    return _of_placed(
        committed,
        BudgetKind.OVERAGE,
        event_id=event_id,
        occurred_at=occurred_at,
        actor=actor,
        legs=over,
        amount_nano=max(0, committed.amount_nano - held_nano),
        causation_id=committed.event_id,
    )


def released_event(
    placed: BudgetEvent,
    *,
    event_id: str,
    occurred_at: int,
    actor: str,
    reason: str,
    causation_id: str | None = None,
) -> BudgetEvent:
    """RELEASED: nothing was used, the whole hold is freed."""
    return _of_placed(
        placed,
        BudgetKind.RELEASED,
        event_id=event_id,
        occurred_at=occurred_at,
        actor=actor,
        legs=placed.legs,
        amount_nano=placed.amount_nano,
        reason=reason,
        causation_id=causation_id,
    )


def extended_event(
    placed: BudgetEvent,
    *,
    event_id: str,
    occurred_at: int,
    actor: str,
    amount_nano: int,
    lease_until: int,
    tokens: int = 0,
) -> BudgetEvent:
    """EXTENDED: from here the hold stands at so much in all (never less than before) until `lease_until`.

    `placed` is its PLACED, or the EXTENDED before this one.
    """
    legs = _raised(placed, HoldSize(amount_nano, placed.currency, tokens))
    return _of_placed(
        placed,
        BudgetKind.EXTENDED,
        event_id=event_id,
        occurred_at=occurred_at,
        actor=actor,
        legs=legs,
        amount_nano=max(placed.amount_nano, amount_nano),
        lease_until=lease_until,
        generation=placed.generation,
    )


def expired_event(placed: BudgetEvent, *, actor: str, policy: ExpiredCharge = ExpiredCharge.FULL) -> BudgetEvent:
    """EXPIRED: the lease ran out; charged by the policy, an estimate.

    `placed` is what the hold stands by, its PLACED or its last EXTENDED: id and bytes follow from that event alone.
    """
    legs = tuple(_leg(leg, expired_charge_nano(policy, leg.held_nano), leg.held_nano) for leg in placed.legs)
    return _of_placed(
        placed,
        BudgetKind.EXPIRED,
        event_id=derived_id(REAPER, placed.event_id, BudgetKind.EXPIRED.value, placed.hold_id),
        occurred_at=placed.occurred_at,
        actor=actor,
        legs=legs,
        amount_nano=expired_charge_nano(policy, placed.amount_nano),
        estimated=True,
        reason="lease_expired",
        causation_id=placed.event_id,
    )


def _of_placed(
    placed: BudgetEvent,
    kind: BudgetKind,
    *,
    event_id: str,
    occurred_at: int,
    actor: str,
    legs: tuple[HoldLeg, ...],
    amount_nano: int,
    causation_id: str | None = None,
    lease_until: int | None = None,
    generation: str | None = None,
    estimated: bool = False,
    late: bool = False,
    reason: str | None = None,
) -> BudgetEvent:
    return BudgetEvent(
        event_id=event_id,
        occurred_at=occurred_at,
        tenant_id=placed.tenant_id,
        request_id=placed.request_id,
        causation_id=causation_id or placed.event_id,
        actor=actor,
        run_id=placed.run_id,
        key_id=placed.key_id,
        team_id=placed.team_id,
        project_id=placed.project_id,
        kind=kind,
        hold_id=placed.hold_id,
        legs=legs,
        amount_nano=amount_nano,
        currency=placed.currency,
        provider_id=placed.provider_id,
        model=placed.model,
        price_version=placed.price_version,
        exchange_rate_id=placed.exchange_rate_id,
        lease_until=lease_until,
        generation=generation,
        attempt_number=placed.attempt_number,
        estimated=estimated,
        late=late,
        reason=reason,
    )


def _charged(placed: BudgetEvent, size: HoldSize) -> tuple[HoldLeg, ...]:
    """Every leg with what it is charged, in what it counts."""
    return tuple(_leg(leg, counted_nano(leg, size), leg.held_nano) for leg in placed.legs)


def _raised(placed: BudgetEvent, size: HoldSize) -> tuple[HoldLeg, ...]:
    """Every leg with what it holds for this size, never less than before."""
    amounts = [max(leg.amount_nano, held_nano(leg, size)) for leg in placed.legs]
    return tuple(_leg(leg, amount, amount) for leg, amount in zip(placed.legs, amounts, strict=True))


def _leg(leg: HoldLeg, amount_nano: int, held_nano: int) -> HoldLeg:
    return HoldLeg(
        limit_id=leg.limit_id,
        amount_nano=amount_nano,
        held_nano=held_nano,
        currency=leg.currency,
        window_start=leg.window_start,
        window_end=leg.window_end,
        exchange_rate_nano=leg.exchange_rate_nano,
    )
