"""`verify budgets` on a log in memory: what nobody applied is named, where a slot says nothing as where it is gone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from processors.budgets import Counter, Sums
from schemas.topics import BUDGETS
from sinks.redis.check import BudgetCheck, check_budgets
from sinks.redis.reads import TenantState
from streams.codec import Codec, LocalSchemas
from streams.log import Partition
from streams.memory import MemoryLog
from streams.partitioner import partition_of
from streams.records import outgoing
from tests.budget_world import LEASE_MICROS, NOW_MICROS, TENANT, Events, hold_id, leg

CODEC = Codec(LocalSchemas())
PARTITION = Partition(BUDGETS.name, partition_of(TENANT.encode(), BUDGETS.partitions))
HELD = {Counter("tenant_total", "USD", 0, 0): Sums(0, 10)}
NOBODY = TenantState(TENANT, None, False, 0, {}, {}, {}, {})


def slot(cursor: int) -> TenantState:
    """A slot with one hold of ten."""
    holds = {hold_id(1): ((Counter("tenant_total", "USD", 0, 0), 10),)}
    return TenantState(TENANT, "run:1", True, cursor, HELD, holds, {}, {})


def check(
    states: Mapping[str, TenantState], applied: int, overdue_before_micros: int = 0, set_aside: tuple[int, ...] = ()
) -> BudgetCheck:
    """Of a log with two holds of a tenant, the second one unsound, where the sink was so far."""
    log, make = MemoryLog(), Events()
    sound = make.placed(hold_id(1), leg(10))
    unsound = make.placed(hold_id(2), leg(-10))
    log.publisher().publish([outgoing(CODEC, event) for event in (sound, unsound)], lambda _: None)
    asides, upto = {PARTITION: set_aside}, {PARTITION: applied}
    return check_budgets(dict(states), log.reader(), CODEC, asides, 0, upto, overdue_before_micros)


def test_a_gateway_whose_clock_is_days_ahead_makes_no_expiry_forgotten() -> None:
    """Redis goes by its own clock, and took the estimate back when the commit came."""
    log, make = MemoryLog(), Events()
    placed, ahead = make.placed(hold_id(1), leg(10)), make.placed(hold_id(2, NOW_MICROS + 3 * 86_400_000_000), leg(5))
    story = (placed, make.expired(placed), ahead, make.released(ahead), make.committed(placed, 6))
    log.publisher().publish([outgoing(CODEC, event) for event in story], lambda _: None)
    charged = {Counter("tenant_total", "USD", 0, 0): Sums(6, 0)}
    state = TenantState(TENANT, "run:1", True, len(story), charged, {}, {}, {})

    assert [] == check_budgets({TENANT: state}, log.reader(), CODEC).differences


def test_a_slot_that_applied_what_moves_is_as_it_should_be() -> None:
    """What can't be counted moves nothing, and need not be applied."""
    assert [] == check({TENANT: slot(1)}, applied=2).differences


@pytest.mark.parametrize("states", [{}, {TENANT: NOBODY}], ids=["unknown", "gone"])
def test_a_tenant_without_a_slot_is_named(states: dict[str, TenantState]) -> None:
    """The log says that it has a hold; nothing to compare is no agreement."""
    (found,) = check(states, applied=2).differences

    assert (f"{TENANT}: {PARTITION}", "applied past 0", "no slot") == found


def test_a_slot_that_was_left_behind_is_named() -> None:
    """Its own cursor says that nothing differs, the sink's that it should be further."""
    (found,) = check({TENANT: NOBODY._replace(generation="run:1")}, applied=2).differences

    assert ("applied past 0", "a slot up to 0") == found[1:]


def test_what_the_sink_has_yet_to_apply_is_not_missed() -> None:
    """It is under way."""
    assert [] == check({}, applied=0).differences


def test_a_hold_that_nobody_ends_is_named() -> None:
    """Its lease is over for longer than the reaper needs; Redis and the log agree on it all the same."""
    over = NOW_MICROS + LEASE_MICROS
    (found,) = check({TENANT: slot(1)}, 2, overdue_before_micros=over + 1).differences

    assert [] == check({TENANT: slot(1)}, 2, overdue_before_micros=over).differences
    assert (f"{TENANT}: hold {hold_id(1)}", "EXPIRED", "open") == found


def test_a_hold_whose_end_was_set_aside_is_for_a_person_to_end() -> None:
    """It is listed where such records are."""
    over = NOW_MICROS + LEASE_MICROS + 1

    assert [] == check({TENANT: slot(1)}, 2, overdue_before_micros=over, set_aside=(1,)).differences
