"""The reaper: when it expires a hold, what follows, and what a late commit takes back."""

from __future__ import annotations

import msgspec
import pytest

from processors.budgets import ExpiredCharge, extended_event
from processors.reaper import Reaper, ReaperState
from schemas.events import (
    AttemptOutcome,
    BudgetEvent,
    BudgetKind,
    CostEvent,
    CostKind,
    Event,
    Meter,
    ProviderAttempt,
    RequestEvent,
    RequestKind,
)
from tests.budget_world import LEASE_MICROS, NOW_MICROS, Events, hold_id, leg

MAKE = Events()
PLACED = MAKE.placed(hold_id(1), leg(100))
SECOND = 1_000_000
LEASE_END = NOW_MICROS + LEASE_MICROS
DUE = LEASE_END + (5 + 60) * SECOND + 1


def after(*events: BudgetEvent, reaper: Reaper | None = None) -> tuple[Reaper, ReaperState, list[Event]]:
    """The state after these events, and everything decided on the way."""
    reaper = reaper or Reaper()
    state, decided = reaper.initial(3), list[Event]()
    for event in events:
        decided += reaper.decide(state, event)
        state = reaper.evolve(state, event)
    return reaper, state, decided


@pytest.mark.parametrize(
    ("now_micros", "caught_up", "expired"),
    [(DUE, True, 1), (DUE - 1, True, 0), (LEASE_END, True, 0), (DUE, False, 0)],
)
def test_a_hold_expires_after_lease_skew_and_grace(now_micros: int, caught_up: bool, expired: int) -> None:
    """And only when the state holds everything the partition has."""
    reaper, state, _ = after(PLACED)
    events = reaper.tick(state, now_micros, caught_up)
    assert [getattr(event, "kind", None) for event in events] == [BudgetKind.EXPIRED] * expired


def test_an_extended_hold_is_charged_with_its_extension() -> None:
    """The provider may have written what it pays for. Another event than that of the hold before it grew."""
    extended = extended_event(
        PLACED, event_id=hold_id(9), occurred_at=NOW_MICROS, actor="t", amount_nano=150, lease_until=LEASE_END
    )
    before, state, _ = after(PLACED)
    (stale,) = before.tick(state, DUE, True)
    reaper, state, _ = after(PLACED, extended)
    (event,) = reaper.tick(state, DUE, True)
    assert isinstance(event, BudgetEvent)
    assert (event.kind, event.amount_nano) == (BudgetKind.EXPIRED, 150)
    assert [(leg.amount_nano, leg.held_nano) for leg in event.legs] == [(150, 150)]
    assert event.event_id != stale.event_id


def test_expired_is_sent_once_until_it_should_have_come_back() -> None:
    """Its id and bytes are the same the second time."""
    reaper, state, _ = after(PLACED)
    first = reaper.tick(state, DUE, True)
    assert reaper.tick(state, DUE + SECOND, True) == []
    assert reaper.tick(state, DUE + 31 * SECOND, True) == first


@pytest.mark.parametrize("resolution", [MAKE.committed(PLACED, 1), MAKE.released(PLACED), MAKE.expired(PLACED)])
def test_a_resolved_hold_does_not_expire(resolution: BudgetEvent) -> None:
    """Whatever resolved it."""
    reaper, state, _ = after(PLACED, resolution)
    assert reaper.tick(state, DUE, True) == []


def test_an_extended_lease_is_waited_for() -> None:
    """EXTENDED moves the end."""
    extended = msgspec.structs.replace(PLACED, kind=BudgetKind.EXTENDED, lease_until=LEASE_END + 100 * SECOND)
    reaper, state, _ = after(PLACED, extended)
    assert reaper.tick(state, DUE, True) == []
    assert len(reaper.tick(state, DUE + 100 * SECOND, True)) == 1


def test_an_expired_hold_closes_its_request() -> None:
    """Abandoned attempt, estimated cost, failed request; all derived from EXPIRED."""
    expired = MAKE.expired(PLACED)
    _, _, decided = after(PLACED, expired)
    attempt, cost, request = decided
    assert isinstance(attempt, ProviderAttempt)
    assert (attempt.outcome, attempt.attempt_id) == (AttemptOutcome.ABANDONED, PLACED.hold_id)
    assert isinstance(cost, CostEvent)
    assert (cost.meter, cost.amount_nano, cost.estimated, cost.quantity) == (Meter.UNSETTLED_HOLD, 100, True, 1)
    assert isinstance(request, RequestEvent)
    assert (request.kind, request.amount_nano, request.actor) == (RequestKind.FAILED, 100, "reaper/3")
    assert {event.causation_id for event in decided} == {expired.event_id}


def test_the_same_log_gives_the_same_events() -> None:
    """A repeat after a crash is dropped by id everywhere."""
    expired = MAKE.expired(PLACED)
    assert after(PLACED, expired)[2] == after(PLACED, expired)[2]


def test_an_expired_that_lost_closes_nothing() -> None:
    """COMMITTED came first by offset."""
    assert after(PLACED, MAKE.committed(PLACED, 60), MAKE.expired(PLACED))[2] == []


def test_a_hold_charged_nothing_has_no_cost() -> None:
    """Policy 'nothing': the request still ends."""
    reaper = Reaper(policy=ExpiredCharge.NOTHING)
    _, state, _ = after(PLACED, reaper=reaper)
    (expired,) = reaper.tick(state, DUE, True)
    assert [type(event) for event in reaper.decide(state, expired)] == [ProviderAttempt, RequestEvent]


def test_a_late_commit_takes_the_estimate_back_once() -> None:
    """The correction points at the estimate and is its negative."""
    committed = MAKE.committed(PLACED, 60)
    _, _, decided = after(PLACED, MAKE.expired(PLACED), committed, committed)
    cost, correction = decided[1], decided[-1]
    assert len(decided) == 4
    assert isinstance(cost, CostEvent)
    assert isinstance(correction, CostEvent)
    assert (correction.kind, correction.amount_nano) == (CostKind.CORRECTION, -100)
    assert (correction.corrects_event_id, correction.causation_id) == (cost.event_id, committed.event_id)


def test_a_gateway_whose_clock_is_days_ahead_makes_nothing_forgotten() -> None:
    """It closes a hold of its own between an expiry and the commit that comes after it."""
    ahead = MAKE.placed(hold_id(2, NOW_MICROS + 3 * 86_400 * SECOND), leg(5))
    reaper, state, _ = after(PLACED, MAKE.expired(PLACED), ahead, MAKE.released(ahead))
    reaper.tick(state, DUE, True)
    (correction,) = reaper.decide(state, MAKE.committed(PLACED, 60))
    assert isinstance(correction, CostEvent)
    assert (correction.kind, correction.amount_nano) == (CostKind.CORRECTION, -100)
