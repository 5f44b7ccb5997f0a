"""An alert as channels get it: JSON of Standard Webhooks, Slack's text, and plain text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from schemas.events import Alert, Severity
from schemas.money import format_amount

MICROS_PER_SECOND = 1_000_000
_MARKS = {Severity.INFO: ":information_source:", Severity.WARNING: ":warning:", Severity.CRITICAL: ":rotating_light:"}


def webhook_body(alert: Alert) -> bytes:
    """The body of a generic webhook: type, timestamp and data, as Standard Webhooks has them (standardwebhooks.com).

    Amounts are decimal text in `currency`.
    """
    return msgspec.json.encode(
        {
            "type": f"quaestor.alert.{alert.kind.value.lower()}",
            "timestamp": _time(alert.occurred_at),
            "data": {
                "id": alert.event_id,
                "tenant": alert.tenant_id,
                "severity": alert.severity.value.lower(),
                "title": alert.title,
                "detail": alert.detail,
                "subject": alert.subject,
                "limit": alert.limit_id,
                "threshold": alert.threshold,
                "action": alert.action,
                "currency": alert.currency,
                "spent": _amount(alert.spent_nano, alert.currency),
                "allowed": _amount(alert.allowed_nano, alert.currency),
                "expected": _amount(alert.expected_nano, alert.currency),
                "window_start": _time(alert.window_start),
                "window_end": _time(alert.window_end),
                "request": alert.request_id,
            },
        }
    )


def slack_body(alert: Alert) -> bytes:
    """The body of a Slack-compatible incoming webhook. What could be read as markup there is escaped."""
    title, detail = (_escaped(text) for text in (alert.title, alert.detail))
    return msgspec.json.encode({"text": f"{_MARKS.get(alert.severity, '')} *{title}*\n{detail}".strip()})


def text_of(alert: Alert) -> str:
    """Some lines of plain text, for mail."""
    lines = [alert.title, "", alert.detail]
    if alert.window_end is not None:
        lines.append(f"The window ends {_time(alert.window_end)}.")
    return "\n".join([*lines, "", f"Told {_time(alert.occurred_at)}, alert {alert.event_id}.", ""])


def _escaped(text: str) -> str:
    """As Slack asks for: these three characters, and nothing else."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _amount(amount_nano: int | None, currency: str | None) -> str | None:
    return None if amount_nano is None or currency is None else format_amount(amount_nano, currency)


def _time(micros: int | None) -> Any:
    if micros is None:
        return None
    return datetime.fromtimestamp(micros // MICROS_PER_SECOND, UTC).isoformat(timespec="seconds")
