"""Which thresholds of a limit its counter has reached, and the alert of each: one per threshold and window."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from processors.budgets.events import THRESHOLD_REASONS, refusal_reason
from processors.budgets.fold import Counter
from processors.budgets.tree import PERCENT
from processors.budgets.usage import place_of
from processors.control.entities import Limit, Threshold
from schemas.events import Alert, AlertKind, BudgetEvent, HoldLeg, Severity
from schemas.ids import derived_id
from schemas.money import format_amount, format_with_unit, unit_name

GUARDRAILS = "guardrails"
#: From here on an alert is critical.
CRITICAL_PERCENT = 95
MICROS_PER_SECOND = 1_000_000
#: What a limit without further thresholds holds calls to.
WHOLE = Threshold(percent=PERCENT, action="block")
_DOES = {
    "notify": "",
    "cheaper": " From here on only these models are admitted: {models}.",
    "approval": " From here on calls need an approval code (header x-quaestor-approval).",
    "block": " From here on calls are refused.",
}


class Crossing(NamedTuple):
    """A threshold that is reached."""

    limit: Limit
    counter: Counter
    threshold: Threshold
    #: Nano-units of the limit's currency.
    posted_nano: int
    allowed_nano: int


def crossings(limit: Limit, counter: Counter, posted_nano: int, now_micros: int) -> list[Crossing]:
    """The thresholds that are reached once so much is charged; held money is not spent, and counts for none.

    A counter whose window is over is judged by what the limit allowed at its end.
    """
    moment = min(now_micros, counter.window_end - 1) if counter.window_end else now_micros
    if posted_nano <= 0 or not limit.in_force(moment):
        return []
    allowed_nano = limit.allowed_nano(moment)
    return [
        Crossing(limit, counter, threshold, posted_nano, allowed_nano)
        for threshold in limit.guards
        if PERCENT * posted_nano >= threshold.percent * allowed_nano
    ]


def limit_alert(limit: Limit, counter: Counter, kind: AlertKind, event_id: str, occurred_at: int, **said: Any) -> Alert:
    """An alert about a counter of a limit; `said` is what it says of it.

    `occurred_at` is when it is told, also where it follows from an event. An id has the same bytes at one time: what is
    said depends on the limit and the hour, so two processes that tell the same say it in two events, and not in two
    versions of one, at which stores stop.
    """
    return Alert(
        event_id=event_id,
        occurred_at=occurred_at,
        tenant_id=limit.tenant_id,
        actor=GUARDRAILS,
        kind=kind,
        subject=str(counter),
        window_start=counter.window_start or None,
        window_end=counter.window_end or None,
        limit_id=counter.limit_id,
        currency=counter.currency,
        **said,
    )


def threshold_alert(crossing: Crossing, now_micros: int) -> Alert:
    """The alert of a crossing; one that is found after its window is over says so."""
    limit, counter, threshold, posted_nano, allowed_nano = crossing
    spent, allowed = (format_amount(nano, limit.currency) for nano in (posted_nano, allowed_nano))
    label = f"{threshold.percent}%"
    is_critical = threshold.percent >= CRITICAL_PERCENT or threshold.action == "block"
    does = _DOES[threshold.action].format(models=", ".join(threshold.models))
    return limit_alert(
        limit,
        counter,
        AlertKind.THRESHOLD,
        threshold_alert_id(counter, threshold),
        now_micros,
        severity=Severity.CRITICAL if is_critical else Severity.WARNING,
        title=f"{limit.tenant_id}: {label} of the budget of {_named(limit, counter)} is used",
        detail=f"{spent} of {allowed} {unit_name(limit.currency)} are charged.{does} Limit {counter.limit_id}."
        f"{_ended(counter, now_micros)}",
        threshold=label,
        spent_nano=posted_nano,
        allowed_nano=allowed_nano,
        action=threshold.action,
    )


def threshold_alert_id(counter: Counter, threshold: Threshold) -> str:
    """The id of the one alert of a threshold and a window: told again, it is the same alert."""
    return derived_id(GUARDRAILS, str(counter), AlertKind.THRESHOLD.value, f"{threshold.percent}%")


def refusal_alert(limit: Limit, event: BudgetEvent, leg: HoldLeg, counter: Counter, now_micros: int) -> Alert | None:
    """The alert of the first call in a window that a limit refused, or one of its thresholds.

    Calls that a threshold holds stay below it, so charges alone might never reach it. None where the limit has no
    thresholds, or none any more that holds this call.
    """
    held_to = _held_to(limit, event)
    if held_to is None:
        return None
    at_nano = limit.allowed_nano(event.occurred_at) * held_to.percent // PERCENT
    asked, at = (format_amount(nano, leg.currency) for nano in (leg.amount_nano, at_nano))
    left = format_with_unit(event.remaining_nano or 0, leg.currency)
    does = _DOES[held_to.action].format(models=", ".join(held_to.models))
    return limit_alert(
        limit,
        counter,
        AlertKind.THRESHOLD,
        threshold_alert_id(counter, held_to),
        now_micros,
        request_id=event.request_id,
        causation_id=event.event_id,
        severity=Severity.CRITICAL if held_to.percent >= CRITICAL_PERCENT else Severity.WARNING,
        title=f"{limit.tenant_id}: calls are refused by the budget of {_named(limit, counter)}",
        detail=f"Up to {held_to.percent}% of it ({at}) there is room for {left}, and a call may need {asked}.{does} "
        f"Limit {counter.limit_id}.{_ended(counter, now_micros)}",
        threshold=f"{held_to.percent}%",
        allowed_nano=at_nano,
        action=held_to.action,
    )


def _held_to(limit: Limit, event: BudgetEvent) -> Threshold | None:
    """The threshold at which a call was refused: the first that holds such a call."""
    if not limit.guards:
        return None
    if event.reason not in THRESHOLD_REASONS:
        return WHOLE
    holding = (one for one in limit.guards if one.action != "notify" and refusal_reason(one) == event.reason)
    return next((one for one in holding if not one.admits(*refused_as(event))), None)


def refused_as(event: BudgetEvent) -> tuple[str, str]:
    """The names by which thresholds admit the model of a call."""
    return event.model, f"{event.provider_id}/{event.model}"


def overage_alert(limit: Limit, event: BudgetEvent, leg: HoldLeg, counter: Counter, now_micros: int) -> Alert:
    """The alert of the first call in a window that cost more than it held: the whole of it is charged."""
    over = format_with_unit(leg.amount_nano, leg.currency)
    return limit_alert(
        limit,
        counter,
        AlertKind.OVERAGE,
        derived_id(GUARDRAILS, str(counter), AlertKind.OVERAGE.value, ""),
        now_micros,
        request_id=event.request_id,
        causation_id=event.event_id,
        severity=Severity.WARNING,
        title=f"{limit.tenant_id}: a call cost more than it held of the budget of {_named(limit, counter)}",
        detail=f"{over} above its hold, charged in full (provider {event.provider_id}, model {event.model}). "
        f"Further ones in this window are not told. Limit {counter.limit_id}.{_ended(counter, now_micros)}",
    )


def _ended(counter: Counter, now_micros: int) -> str:
    """What an alert says that is told too late to change anything."""
    if not 0 < counter.window_end <= now_micros:
        return ""
    ended = datetime.fromtimestamp(counter.window_end // MICROS_PER_SECOND, UTC)
    return f" Told late: that window ended {ended.isoformat(timespec='seconds')}."


def _named(limit: Limit, counter: Counter) -> str:
    """The counter for people."""
    period = "in all" if limit.window == "total" else f"a {limit.window}"
    return f"{place_of(limit.scope, limit.scope_id, counter.limit_id)}, {period}"
