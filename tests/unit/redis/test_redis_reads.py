"""The comparison of a tenant's live state with the fold of the log, and the names of things."""

from __future__ import annotations

from processors.budgets import BudgetFold, Counter, Sums, counter_of
from sinks.redis.keys import counter_text, slot_keys
from sinks.redis.reads import Difference, TenantState, compare
from tests.budget_world import TENANT, Events, hold_id, leg

COUNTER = Counter("tenant_total", "USD", 0, 0)
HOLD = hold_id(1)


def state(
    sums: dict[Counter, Sums],
    holds: dict[str, int] | None = None,
    pending: dict[str, int] | None = None,
    summed: int = 0,
) -> TenantState:
    """A slot with these sums, holds and unconfirmed holds on one counter."""
    bodies = [{hold: ((COUNTER, amount),) for hold, amount in (found or {}).items()} for found in (holds, pending)]
    return TenantState(TENANT, "run:1", True, 9, sums, *bodies, {COUNTER: summed} if summed else {})


def fold() -> BudgetFold:
    """One open hold of 10."""
    made = BudgetFold()
    made.apply(Events().placed(HOLD, leg(10)))
    return made


def differences(found: TenantState) -> list[Difference]:
    """What differs from that fold."""
    return compare(fold().sums, fold().open_holds, found)


def test_equal_states_do_not_differ() -> None:
    """Unconfirmed holds that add up are no difference."""
    assert differences(state({COUNTER: Sums(0, 10)}, {HOLD: 10}, {hold_id(2): 3}, 3)) == []


def test_another_sum_is_named() -> None:
    """With what was expected and what was found."""
    (found,) = differences(state({COUNTER: Sums(1, 10)}, {HOLD: 10}))
    assert (found.what, found.expected, found.actual) == (
        "sum tenant_total|USD|0|0",
        "Sums(posted_nano=0, held_nano=10)",
        "Sums(posted_nano=1, held_nano=10)",
    )


def test_a_sum_of_a_window_long_over_may_be_swept() -> None:
    """It is the ledger's to check; one that is held, of now or without a window must be there."""
    make, found = Events(), BudgetFold()
    windows = [(1, 2), (1, 20), (0, 0)]
    for number, window in enumerate(windows):
        placed = make.placed(hold_id(number), leg(5, window=window))
        found.apply(placed)
        found.apply(make.committed(placed, 5))
    named = {each.what for each in compare(found.sums, {}, state({}), over_before_micros=20)}
    assert named == {"sum tenant_total|USD|1|20", "sum tenant_total|USD|0|0"}


def test_a_missing_hold_is_named() -> None:
    """It would be a leak or an overspend."""
    (found,) = differences(state({COUNTER: Sums(0, 10)}))
    assert (found.what, found.actual) == (f"hold {HOLD}", "None")


def test_an_overlay_that_does_not_add_up_is_named() -> None:
    """Room that nobody holds."""
    (found,) = differences(state({COUNTER: Sums(0, 10)}, {HOLD: 10}, {hold_id(2): 3}, 4))
    assert (found.what, found.expected, found.actual) == ("unconfirmed sum tenant_total|USD|0|0", "3", "4")


def test_a_hold_is_applied_or_unconfirmed_but_not_both() -> None:
    """It would count twice."""
    (found,) = differences(state({COUNTER: Sums(0, 10)}, {HOLD: 10}, {HOLD: 10}, 10))
    assert found == Difference(f"hold {HOLD}", "applied or unconfirmed", "both")


def test_counters_have_one_name() -> None:
    """The slot's text is the fold's counter."""
    a_leg = leg(1, "key_day", (5, 9))
    assert counter_text(a_leg) == str(counter_of(a_leg)) == "key_day|USD|5|9"


def test_everything_of_a_tenant_is_in_one_hash_slot() -> None:
    """One script may touch it all."""
    keys = slot_keys(TENANT)
    assert all("{acme}" in key for key in (*keys, keys.done_of(HOLD)))
