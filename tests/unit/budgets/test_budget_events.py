"""The events of a hold's life, and what each does to counters: given, when, then."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from processors.budgets import (
    BudgetFold,
    BudgetState,
    Counter,
    ExpiredCharge,
    HoldContext,
    Sums,
    committed_event,
    evolve,
    expired_charge_nano,
    expired_event,
    extended_event,
    overage_event,
    problem_of,
    refused_event,
)
from schemas.events import BudgetEvent, BudgetKind, HoldLeg
from tests.budget_world import LEASE_MICROS, NOW_MICROS, Events, hold_id, leg

MAKE = Events()
HOLD = hold_id(1)
HOUR_MICROS = 3_600_000_000
PLACED = MAKE.placed(HOLD, leg(100))
COMMITTED = MAKE.committed(PLACED, 60)
RELEASED = MAKE.released(PLACED)
EXPIRED = MAKE.expired(PLACED)
EXTENDED = extended_event(
    PLACED, event_id=hold_id(9), occurred_at=NOW_MICROS, actor="t", amount_nano=150, lease_until=NOW_MICROS + 1
)
COUNTER = Counter("tenant_total", "USD", 0, 0)


@pytest.mark.parametrize(
    ("given", "posted", "held"),
    [
        ([PLACED], 0, 100),
        ([PLACED, PLACED], 0, 100),
        ([PLACED, COMMITTED], 60, 0),
        ([PLACED, RELEASED], 0, 0),
        ([PLACED, EXPIRED], 100, 0),
        ([PLACED, EXTENDED], 0, 150),
        ([PLACED, EXTENDED, EXTENDED], 0, 150),
        ([PLACED, EXTENDED, COMMITTED], 60, 0),
        ([PLACED, COMMITTED, EXPIRED], 60, 0),
        ([PLACED, COMMITTED, RELEASED], 60, 0),
        ([PLACED, COMMITTED, COMMITTED], 60, 0),
        ([PLACED, COMMITTED, PLACED], 60, 0),
        ([PLACED, COMMITTED, EXTENDED], 60, 0),
        ([PLACED, RELEASED, COMMITTED], 0, 0),
        ([PLACED, RELEASED, EXPIRED], 0, 0),
        ([PLACED, EXTENDED, MAKE.expired(EXTENDED)], 150, 0),
        ([PLACED, EXTENDED, MAKE.expired(EXTENDED), COMMITTED], 60, 0),
        ([PLACED, EXTENDED, PLACED, COMMITTED], 60, 0),
        ([PLACED, EXPIRED, COMMITTED], 60, 0),
        ([PLACED, EXPIRED, COMMITTED, COMMITTED], 60, 0),
        ([PLACED, EXPIRED, RELEASED], 100, 0),
        ([PLACED, EXPIRED, EXPIRED], 100, 0),
        ([COMMITTED], 0, 0),
        ([EXPIRED], 0, 0),
        ([RELEASED, PLACED], 0, 100),
    ],
)
def test_the_first_resolution_wins_and_a_late_commit_adjusts(given: list[BudgetEvent], posted: int, held: int) -> None:
    """The whole table of the fold."""
    state = BudgetState()
    for event in given:
        state = evolve(state, event)
    assert state.sums.get(COUNTER, Sums()) == Sums(posted, held)


def test_an_extended_hold_stands_by_its_extension() -> None:
    """With the amounts that it holds, also where an extension names fewer legs or less; its lease never shortens."""
    day = leg(10, "key_day", (1, 2))
    placed = MAKE.placed(HOLD, leg(100), day)
    narrow = msgspec.structs.replace(EXTENDED, legs=(EXTENDED.legs[0],), lease_until=0)
    hold = evolve(evolve(BudgetState(), placed), narrow).open_holds[HOLD]
    assert (hold.placed.event_id, hold.placed.amount_nano) == (EXTENDED.event_id, 150)
    assert [(one.limit_id, one.amount_nano, one.held_nano) for one in hold.placed.legs] == [
        ("tenant_total", 150, 150),
        ("key_day", 10, 10),
    ]
    assert hold.lease_until == placed.lease_until


def test_an_extension_of_an_extension_never_holds_less() -> None:
    """Nor counts a request twice; money of another currency is rounded up at the rate that placement pinned."""
    legs = (leg(100), leg_of(1, "REQ"), leg_of(50, "TOK"), leg_of(1, "EUR", 900_000_001))
    first = extended(MAKE.placed(HOLD, *legs), 150, 70)
    second = extended(first, 120, 60)
    for event in (first, second):
        assert [one.amount_nano for one in event.legs] == [one.held_nano for one in event.legs] == [150, 1, 70, 136]
    assert second.amount_nano == 150


def extended(placed: BudgetEvent, amount_nano: int, tokens: int) -> BudgetEvent:
    """EXTENDED to so much money and so many tokens."""
    return extended_event(
        placed,
        event_id=hold_id(9),
        occurred_at=NOW_MICROS,
        actor="t",
        amount_nano=amount_nano,
        tokens=tokens,
        lease_until=NOW_MICROS,
    )


def leg_of(amount_nano: int, currency: str, rate_nano: int | None = None) -> HoldLeg:
    """A leg that counts this."""
    return msgspec.structs.replace(leg(amount_nano, currency), currency=currency, exchange_rate_nano=rate_nano)


def test_evolve_leaves_the_given_state_alone() -> None:
    """States are values."""
    before = evolve(BudgetState(), PLACED)
    evolve(before, COMMITTED)
    assert (before.sums[COUNTER], list(before.open_holds)) == (Sums(0, 100), [HOLD])


@pytest.mark.parametrize(("hours", "forgotten"), [(3, False), (5, True)])
def test_a_resolved_hold_is_forgotten_after_its_horizon(hours: int, forgotten: bool) -> None:
    """Memory is bounded by the ids' own time, up to what the time is."""
    fold, later = closed_hours_apart(5)
    fold.forget(NOW_MICROS + hours * HOUR_MICROS)
    assert (fold.closed(HOLD) is None, fold.closed(later) is not None) == (forgotten, True)


def test_the_time_alone_makes_nothing_forgotten() -> None:
    """A log that was written years ago is as far as its holds."""
    fold, _ = closed_hours_apart(2)
    fold.forget(NOW_MICROS + 50_000 * HOUR_MICROS)
    assert fold.closed(HOLD) is not None


def closed_hours_apart(hours: int) -> tuple[BudgetFold, str]:
    """A fold that remembers for an hour, with a hold that ended and one made so much later; and that one's id."""
    fold = BudgetFold(remembered_seconds=3_600)
    later = hold_id(2, NOW_MICROS + hours * HOUR_MICROS)
    placed = MAKE.placed(later, leg(1))
    for event in (PLACED, COMMITTED, placed, MAKE.released(placed)):
        fold.apply(event)
    return fold, later


def test_committed_keeps_what_placement_pinned() -> None:
    """Windows, price version, exchange rate and held amounts come from PLACED."""
    placed = msgspec.structs.replace(PLACED, price_version="book-7", exchange_rate_id="rate-1")
    event = committed_event(placed, event_id=hold_id(3), occurred_at=NOW_MICROS, actor="gateway/1", amount_nano=130)
    assert (event.kind, event.price_version, event.exchange_rate_id) == (BudgetKind.COMMITTED, "book-7", "rate-1")
    assert (event.legs[0].amount_nano, event.legs[0].held_nano, event.amount_nano) == (130, 100, 130)
    assert (event.lease_until, event.causation_id) == (None, placed.event_id)


def test_a_leg_in_another_currency_is_charged_at_the_pinned_rate() -> None:
    """Rounded half-even once."""
    pinned = msgspec.structs.replace(PLACED.legs[0], currency="EUR", exchange_rate_nano=500_000_000)
    placed = msgspec.structs.replace(PLACED, legs=(pinned,))
    event = committed_event(placed, event_id=hold_id(3), occurred_at=NOW_MICROS, actor="gateway/1", amount_nano=33)
    assert event.legs[0].amount_nano == 16


@pytest.mark.parametrize(("charged", "over"), [(100, None), (130, 30)])
def test_overage_is_what_was_charged_above_the_hold(charged: int, over: int | None) -> None:
    """An extra event, informational."""
    committed = MAKE.committed(PLACED, charged)
    event = overage_event(committed, held_nano=100, event_id=hold_id(4), occurred_at=NOW_MICROS, actor="gateway/1")
    assert (event and event.legs[0].amount_nano) == over
    assert (event and event.amount_nano) == over
    assert event is None or event.causation_id == committed.event_id


@pytest.mark.parametrize(("charged", "tokens", "over"), [(130, 9_000, 30), (100, 9_000, 0), (130, 1, 30)])
def test_the_amount_of_an_overage_is_in_the_holds_own_currency(charged: int, tokens: int, over: int) -> None:
    """Whatever its legs count: euros at half a dollar each, thousands of tokens, a request."""
    euros = msgspec.structs.replace(
        PLACED.legs[0], limit_id="e", currency="EUR", amount_nano=50, held_nano=50, exchange_rate_nano=500_000_000
    )
    counted = msgspec.structs.replace(PLACED.legs[0], limit_id="t", currency="TOK", amount_nano=20, held_nano=20)
    request = msgspec.structs.replace(PLACED.legs[0], limit_id="r", currency="REQ", amount_nano=1, held_nano=1)
    placed = msgspec.structs.replace(PLACED, legs=(PLACED.legs[0], euros, counted, request))
    of: dict[str, Any] = {"event_id": hold_id(3), "occurred_at": NOW_MICROS, "actor": "gateway/1"}
    committed = committed_event(placed, amount_nano=charged, tokens=tokens, **of)

    event = overage_event(committed, held_nano=placed.amount_nano, **of)

    assert event is not None
    assert (event.amount_nano, event.currency) == (over, "USD")
    expected = {"USD": charged - 100, "EUR": charged // 2 - 50, "TOK": tokens - 20}
    assert {leg.currency: leg.amount_nano for leg in event.legs} == {c: n for c, n in expected.items() if n > 0}


def test_refused_names_the_limit_and_its_rest() -> None:
    """For the caller's error and for analysts."""
    context = HoldContext(
        tenant_id="acme",
        request_id="r",
        actor="gateway/1",
        hold_id=HOLD,
        provider_id="p",
        model="m",
        currency="USD",
        amount_nano=5,
        legs=(leg(5),),
    )
    event = refused_event(
        context,
        event_id=hold_id(5),
        occurred_at=NOW_MICROS,
        causation_id=None,
        limit_id="tenant_total",
        remaining_nano=3,
    )
    assert (event.kind, event.refused_by_limit_id, event.remaining_nano) == (BudgetKind.REFUSED, "tenant_total", 3)


def test_expired_follows_from_placed_alone() -> None:
    """Two reapers make the same bytes; the lease's end is no part of them."""
    longer = msgspec.structs.replace(PLACED, lease_until=NOW_MICROS + 2 * LEASE_MICROS)
    assert expired_event(longer, actor="reaper/0") == EXPIRED
    assert (EXPIRED.estimated, EXPIRED.amount_nano, EXPIRED.occurred_at) == (True, 100, PLACED.occurred_at)


@pytest.mark.parametrize(("policy", "charge"), [("full", 100), ("input", 25), ("nothing", 0)])
def test_the_policy_says_what_an_expired_hold_is_charged(policy: str, charge: int) -> None:
    """The full hold unless told otherwise."""
    assert expired_charge_nano(ExpiredCharge(policy), 100) == charge


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (PLACED, None),
        (MAKE.placed(HOLD), None),
        (MAKE.placed("no-uuid", leg(1)), "hold_id is not a uuid7"),
        (MAKE.placed(HOLD, leg(-1)), "amount_nano is out of range"),
        (MAKE.placed(HOLD, leg(2**60)), "amount_nano is out of range"),
        (MAKE.placed(HOLD, leg(1, "a b")), "limit_id is not a name"),
        (MAKE.placed(HOLD, leg(1), leg(2)), "two legs move the same counter"),
        (MAKE.placed(HOLD, leg(1, window=(-1, 0))), "the window begins or ends before 1970"),
        (MAKE.placed(HOLD, *(leg(1, f"l{n}") for n in range(33))), "more than 32 legs"),
    ],
)
def test_what_can_not_be_counted_is_named(event: BudgetEvent, problem: str | None) -> None:
    """The sink quarantines it, folds pass it over."""
    assert problem_of(event) == problem
    assert (BudgetFold().apply(event) is None) == (problem is not None)


def test_what_an_event_would_do_is_asked_of_the_fold_as_it_stands() -> None:
    """The answer to an earlier question is not kept once another event was folded in."""
    events, fold = Events(), BudgetFold()
    placed = events.placed(hold_id(1), leg(100))
    assert fold.effect_of(placed) is not None
    fold.apply(placed)
    assert fold.effect_of(placed) is None
    released = events.released(placed)
    assert fold.effect_of(released) is not None
    fold.apply(events.committed(placed, 50))
    assert fold.effect_of(released) is None
