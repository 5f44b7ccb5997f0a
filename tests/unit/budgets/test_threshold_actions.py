"""What a threshold that does more than notify allows a call."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from processors.budgets import HoldSize, Legs, Payer, Target, allowed_by_now, legs_for, standings
from processors.budgets.tree import UNLIMITED_NANO
from processors.control import Approval, ControlState, Increase, Limit, Threshold, evolve_all
from tests.budget_world import NOW_MICROS
from tests.budget_world import limit_on as limit
from tests.support.control import limit_event

PAYER = Payer("acme", "search", "web", "key_1")
TARGET = Target("openai", "gpt-4o-2026", "fast")
SIZE = HoldSize(amount_nano=10, currency="USD", tokens=7)
CODE = hashlib.sha256(b"qc_code").hexdigest()
APPROVAL = Approval(code_hash=CODE, valid_until=NOW_MICROS + 10, approval_code="CFO-1")


def legs(of: Limit, payer: Payer = PAYER, target: Target = TARGET, now: int = NOW_MICROS) -> Legs:
    """The legs of a hold under one limit."""
    state = evolve_all(ControlState(), [limit_event(of)])
    return legs_for(standings(state, payer, target, now), payer, target, SIZE, now, {})


def guarded(*thresholds: Threshold, **fields: Any) -> Limit:
    """A limit of a thousand with these thresholds."""
    return limit("tenant", "acme", 1_000, thresholds=thresholds, **fields)


BLOCK = Threshold(percent=95, action="block")
ASK = Threshold(percent=90, action="approval")
CHEAPER = Threshold(percent=80, action="cheaper", models=("mini", "openai/gpt-4o-m*"))


def test_notify_allows_the_whole_amount() -> None:
    """It only tells."""
    found = legs(guarded(Threshold(percent=50)))
    assert ((1_000,), (None,)) == (found.allowed_nano, found.held_to)


@pytest.mark.parametrize(
    ("thresholds", "allowed", "by"),
    [((BLOCK,), 950, BLOCK), ((ASK, BLOCK), 900, ASK), ((CHEAPER, ASK, BLOCK), 800, CHEAPER)],
)
def test_the_lowest_threshold_that_holds_the_call_decides(
    thresholds: tuple[Threshold, ...], allowed: int, by: Threshold
) -> None:
    """It is a lower limit for this call."""
    found = legs(guarded(*thresholds))
    assert ((allowed,), (by,)) == (found.allowed_nano, found.held_to)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (Target("openai", "mini"), 950),
        (Target("openai", "gpt-4o-mini"), 950),
        (Target("azure", "gpt-4o-mini"), 800),
        (Target("openai", "gpt-4o-2026", "mini"), 800),
    ],
)
def test_cheaper_lets_the_models_pass_that_it_names(target: Target, allowed: int) -> None:
    """By the provider's own name, with or without the provider; an alias proves nothing about the price."""
    assert (allowed,) == legs(guarded(CHEAPER, BLOCK), target=target).allowed_nano


@pytest.mark.parametrize(
    ("code", "later", "allowed"), [(CODE, 0, 950), (CODE, 9, 950), (CODE, 10, 900), ("other", 0, 900), (None, 0, 900)]
)
def test_an_approval_code_passes_while_it_is_valid(code: str | None, later: int, allowed: int) -> None:
    """Past approval, not past block."""
    asked = guarded(ASK, BLOCK, approvals=(APPROVAL,))
    assert (allowed,) == legs(asked, PAYER._replace(approval_hash=code), now=NOW_MICROS + later).allowed_nano


def test_a_threshold_is_of_what_is_allowed_with_its_increases() -> None:
    """95 per cent of two thousand."""
    more = Increase(amount_nano=1_000, valid_from=NOW_MICROS, valid_until=NOW_MICROS + 1, approval_code="A")
    assert (1_900,) == legs(guarded(BLOCK, increases=(more,))).allowed_nano


def test_a_threshold_above_the_amount_of_a_hard_limit_holds_nothing_more() -> None:
    """The amount is less."""
    found = legs(guarded(Threshold(percent=120, action="block")))
    assert ((1_000,), (None,)) == (found.allowed_nano, found.held_to)


def test_a_soft_limit_may_block_at_a_threshold() -> None:
    """It watches up to there, and only with an action does it refuse."""
    soft = guarded(Threshold(percent=120, action="block"), hard=False)
    assert ((1_200,), (UNLIMITED_NANO,)) == (
        *(legs(soft).allowed_nano, legs(guarded(Threshold(percent=50), hard=False)).allowed_nano),
    )


def by_now(of: Limit, later: int, payer: Payer = PAYER, since: Limit | None = None) -> tuple[int, Threshold | None]:
    """What a hold on this limit is allowed later, when the limit is another `since`."""
    by = since or of
    ((allowed, held_to),) = allowed_by_now(legs(of).legs, {by.limit_id: by}, payer, TARGET, NOW_MICROS + later)
    return allowed, held_to


def test_a_hold_that_stands_is_allowed_what_its_limit_says_by_now() -> None:
    """Its amount, its thresholds, and codes that ended meanwhile."""
    payer = PAYER._replace(approval_hash=CODE)
    asked = guarded(ASK, approvals=(APPROVAL,))
    assert [(1_000, None), (900, ASK)] == [by_now(asked, later, payer) for later in (9, 10)]
    assert (950, BLOCK) == by_now(guarded(), 1, since=guarded(BLOCK))


def test_a_limit_that_is_gone_refuses_nothing_of_a_hold_that_stands() -> None:
    """Removed, or not in force any more; new calls do not stand under it either."""
    removed = allowed_by_now(legs(guarded()).legs, {}, PAYER, TARGET, NOW_MICROS)
    assert [(UNLIMITED_NANO, None)] == removed
    assert (UNLIMITED_NANO, None) == by_now(guarded(valid_until=NOW_MICROS + 1), 1)


def test_a_window_that_is_over_allows_what_it_did_at_its_end() -> None:
    """An increase that begins with the next one is not for it."""
    window_end = legs(guarded()).legs[0].window_end
    more = Increase(amount_nano=500, valid_from=window_end, valid_until=window_end + 10, approval_code="A")
    assert (1_000, None) == by_now(guarded(increases=(more,)), window_end - NOW_MICROS + 1)


def test_one_of_a_kind_that_stands_is_found_by_its_limit() -> None:
    """The counter's name has more than the limit's."""
    each = limit("team", "*", 700)
    assert (700, None) == by_now(each, 1)
