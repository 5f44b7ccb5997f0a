"""Budgets: what is held and spent on every limit, as a fold of quaestor.budgets, and the events that move it. Pure."""

from __future__ import annotations

from processors.budgets.events import (
    HoldContext,
    committed_event,
    expired_event,
    extended_event,
    overage_event,
    placed_event,
    refusal_reason,
    refused_event,
    released_event,
)
from processors.budgets.fold import BudgetFold, BudgetState, ClosedHold, Counter, OpenHold, Sums, counter_of, evolve
from processors.budgets.policy import ExpiredCharge, expired_charge_nano
from processors.budgets.sound import AMOUNT_NANO_MAX, problem_of
from processors.budgets.tree import (
    HoldSize,
    Legs,
    Payer,
    Standing,
    Target,
    allowed_by_now,
    counted_nano,
    legs_for,
    standings,
)
from processors.calendar import WINDOWS, window_of, zone_of

__all__ = [
    "AMOUNT_NANO_MAX",
    "WINDOWS",
    "BudgetFold",
    "BudgetState",
    "ClosedHold",
    "Counter",
    "ExpiredCharge",
    "HoldContext",
    "HoldSize",
    "Legs",
    "OpenHold",
    "Payer",
    "Standing",
    "Sums",
    "Target",
    "allowed_by_now",
    "committed_event",
    "counted_nano",
    "counter_of",
    "evolve",
    "expired_charge_nano",
    "expired_event",
    "extended_event",
    "legs_for",
    "overage_event",
    "placed_event",
    "problem_of",
    "refusal_reason",
    "refused_event",
    "released_event",
    "standings",
    "window_of",
    "zone_of",
]
