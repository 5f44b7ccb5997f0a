"""What channels get, and how often they are tried."""

from __future__ import annotations

import json

import pytest

from processors.guardrails import delivery_event, pause_seconds, slack_body, text_of, webhook_body
from schemas.events import AlertKind, Severity
from schemas.limits import ALERT_PAUSE_SECONDS_MAX
from tests.support.events import NOW_MICROS, alert

ALERT = alert(
    "a1",
    severity=Severity.CRITICAL,
    title="acme: 95% <used> & more",
    detail="95.00 of 100.00 EUR",
    currency="EUR",
    spent_nano=95_000_000_000,
    allowed_nano=100_000_000_000,
    window_end=NOW_MICROS,
    threshold="95%",
    limit_id="lim_1",
)


def test_a_webhook_gets_type_time_and_figures() -> None:
    """Amounts as decimal text, times as ISO 8601."""
    body = json.loads(webhook_body(ALERT))
    assert ("quaestor.alert.threshold", "2023-11-14T22:13:20+00:00") == (body["type"], body["timestamp"])
    named = ("id", "tenant", "severity", "limit", "threshold", "currency", "spent", "allowed", "expected", "window_end")
    assert [
        *("a1", "acme", "critical", "lim_1", "95%", "EUR", "95.00", "100.00", None, "2023-11-14T22:13:20+00:00")
    ] == [body["data"][name] for name in named]


def test_slack_gets_text_without_markup_of_ours() -> None:
    """What Slack reads as a link or a mention is escaped."""
    text = json.loads(slack_body(ALERT))["text"]
    assert ":rotating_light: *acme: 95% &lt;used&gt; &amp; more*\n95.00 of 100.00 EUR" == text


def test_mail_gets_plain_lines() -> None:
    """Title, figures, when the window ends, and the alert's id."""
    text = text_of(ALERT)
    assert text.startswith("acme: 95% <used> & more\n\n95.00 of 100.00 EUR\nThe window ends 2023-11-14T22:13:20+00:00.")
    assert "alert a1" in text


def test_a_pause_doubles_up_to_its_limit() -> None:
    """With its upper half drawn."""
    pauses = [pause_seconds(attempts, 0, 1.0) for attempts in (1, 2, 3, 10, 11, 40)]
    assert [0.5, 1, 2, 256, ALERT_PAUSE_SECONDS_MAX, ALERT_PAUSE_SECONDS_MAX] == pauses
    assert 0.25 == pause_seconds(1, 0, 0.0)


def test_a_receiver_may_ask_for_a_longer_pause() -> None:
    """Up to the same limit."""
    assert (17, ALERT_PAUSE_SECONDS_MAX) == (pause_seconds(1, 17, 0.5), pause_seconds(1, 1e9, 0.5))


@pytest.mark.parametrize(("fault", "state"), [(None, "SENT"), ("HTTP 404", "FAILED")])
def test_the_end_of_a_delivery_is_an_event_of_its_alert(fault: str | None, state: str) -> None:
    """One id for each end at each channel: recorded twice, it is one."""
    end = delivery_event(ALERT, "ops", NOW_MICROS + 5, attempts=3, fault=fault)
    again = delivery_event(ALERT, "ops", NOW_MICROS + 9, attempts=4, fault=fault)
    other = delivery_event(ALERT, "mail", NOW_MICROS + 5, attempts=3, fault=fault)
    assert (AlertKind.DELIVERY, "a1", state, "ops", 3) == (
        *(end.kind, end.causation_id, end.delivery_state, end.channel_id, end.attempts),
    )
    assert (True, False) == (end.event_id == again.event_id, end.event_id == other.event_id)
