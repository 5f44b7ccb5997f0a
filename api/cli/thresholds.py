"""Thresholds of a limit as people write and read them: 80, 95:block, 90:approval, 85:cheaper=gpt-4o-mini,claude-3*."""

from __future__ import annotations

from typing import cast

from api.cli.terminal import fail
from processors.control import Limit, Threshold
from processors.control.entities import ThresholdAction

NONE, USUAL = "none", "usual"


def thresholds_of(texts: list[str], usual: tuple[Threshold, ...]) -> tuple[Threshold, ...] | None:
    """What --threshold says, the lowest first; None when it was not given: a limit keeps what it has."""
    if not texts:
        return None
    if texts == [NONE]:
        return ()
    if texts == [USUAL]:
        return usual
    return tuple(sorted((_threshold(text) for text in texts), key=lambda one: one.percent))


def _threshold(text: str) -> Threshold:
    percent, _, does = text.partition(":")
    action, _, models = does.partition("=")
    if not percent.rstrip("%").isdecimal():
        fail(f"--threshold: {text!r} is no threshold: say 80, 95:block, 90:approval or 85:cheaper=MODEL,MODEL", 2)
    listed = tuple(model for model in models.split(",") if model)
    return Threshold(
        percent=int(percent.rstrip("%")), action=cast("ThresholdAction", action or "notify"), models=listed
    )


def thresholds_text(limit: Limit, between: str = ", ") -> str:
    """The thresholds of a limit; empty when it has none."""
    return between.join(_text(threshold) for threshold in limit.guards)


def _text(threshold: Threshold) -> str:
    models = f" to {', '.join(threshold.models)}" if threshold.models else ""
    return f"{threshold.percent}%" + ("" if threshold.action == "notify" else f" {threshold.action}{models}")
