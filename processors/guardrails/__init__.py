"""What people are told before the money is gone: thresholds reached, what was told, and in which words. Pure."""

from __future__ import annotations

from processors.guardrails.book import AlertBook, Delivery, is_of_many
from processors.guardrails.delivering import delivery_event, is_final, pause_seconds, trial_alert
from processors.guardrails.messages import slack_body, text_of, webhook_body
from processors.guardrails.thresholds import (
    crossings,
    overage_alert,
    refusal_alert,
    refused_as,
    threshold_alert,
    threshold_alert_id,
)

__all__ = [
    "AlertBook",
    "Delivery",
    "crossings",
    "delivery_event",
    "is_final",
    "is_of_many",
    "overage_alert",
    "pause_seconds",
    "refusal_alert",
    "refused_as",
    "slack_body",
    "text_of",
    "threshold_alert",
    "threshold_alert_id",
    "trial_alert",
    "webhook_body",
]
