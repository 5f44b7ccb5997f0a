"""Budgets: what is held and spent on every limit, as a fold of quaestor.budgets, and the events that move it. Pure."""

from __future__ import annotations

from processors.budgets.events import (
    HoldContext,
    committed_event,
    expired_event,
    extended_event,
    overage_event,
    placed_event,
    refused_event,
    released_event,
)
from processors.budgets.fold import BudgetFold, BudgetState, ClosedHold, Counter, OpenHold, Sums, counter_of, evolve
from processors.budgets.policy import ExpiredCharge, expired_charge_nano
from processors.budgets.sound import AMOUNT_NANO_MAX, check_limit, problem_of
from processors.budgets.windows import LimitLike, applicable_limits, legs_for, window_of

__all__ = [
    "AMOUNT_NANO_MAX",
    "BudgetFold",
    "BudgetState",
    "ClosedHold",
    "Counter",
    "ExpiredCharge",
    "HoldContext",
    "LimitLike",
    "OpenHold",
    "Sums",
    "applicable_limits",
    "check_limit",
    "committed_event",
    "counter_of",
    "evolve",
    "expired_charge_nano",
    "expired_event",
    "extended_event",
    "legs_for",
    "overage_event",
    "placed_event",
    "problem_of",
    "refused_event",
    "released_event",
    "window_of",
]
