"""How often a channel is tried, and the event that says how it ended."""

from __future__ import annotations

from processors.control.entities import Channel
from schemas.events import Alert, AlertKind, Severity
from schemas.ids import derived_id
from schemas.limits import ALERT_PAUSE_SECONDS_MAX

SENT, FAILED = "SENT", "FAILED"
COURIER = "guardrails/delivery"
PAUSE_SECONDS_MIN = 0.5
DETAIL_CHARACTERS_MAX = 300


def pause_seconds(attempts: int, asked_seconds: float, draw: float) -> float:
    """How long to wait after so many failed attempts: from half a second on it doubles up to the limit.

    `asked_seconds` is what the receiver asked for (Retry-After), kept to the same limit; `draw`, from 0 to 1, spreads
    the wait over its upper half.
    """
    doubled = min(PAUSE_SECONDS_MIN * float(2 ** min(attempts - 1, 16)), float(ALERT_PAUSE_SECONDS_MAX))
    return max(doubled * (1 + draw) / 2, min(asked_seconds, float(ALERT_PAUSE_SECONDS_MAX)))


def delivery_event(alert: Alert, channel_id: str, now_micros: int, *, attempts: int, fault: str | None) -> Alert:
    """How handing an alert to a channel ended: SENT, or FAILED with the reason; one id for each of the two."""
    state = SENT if fault is None else FAILED
    words = f"after {attempts} attempts" if attempts > 1 else "at the first attempt"
    return Alert(
        event_id=derived_id(COURIER, alert.event_id, state, channel_id),
        occurred_at=now_micros,
        tenant_id=alert.tenant_id,
        request_id=alert.request_id,
        causation_id=alert.event_id,
        actor=COURIER,
        kind=AlertKind.DELIVERY,
        severity=Severity.INFO if fault is None else Severity.WARNING,
        subject=channel_id,
        title=f"{alert.title[:200]}: {state.lower()}",
        detail=words if fault is None else f"{words}: {fault}"[:DETAIL_CHARACTERS_MAX],
        delivery_state=state,
        channel_id=channel_id,
        attempts=attempts,
    )


def trial_alert(channel: Channel, event_id: str, now_micros: int) -> Alert:
    """An alert about nothing, to see whether a channel works."""
    return Alert(
        event_id=event_id,
        occurred_at=now_micros,
        tenant_id=channel.tenant_id,
        actor=COURIER,
        kind=AlertKind.UNKNOWN,
        severity=Severity.INFO,
        subject=channel.channel_id,
        title=f"{channel.tenant_id}: a test of channel {channel.channel_id}",
        detail="Nothing happened; somebody tries whether alerts get here.",
    )


def is_final(delivery: Alert) -> bool:
    """Whether a channel is done with its alert."""
    return delivery.delivery_state in {SENT, FAILED}
