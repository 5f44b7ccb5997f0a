"""How far retention cuts: never what a hold covers, never what is young, never inside a block, never back."""

from __future__ import annotations

from hypothesis import given, note
from hypothesis import strategies as st

from processors.audit.cutting import CutPlan, Cutter, Stop
from processors.audit.entry import Source
from processors.control import LegalHold
from processors.control.months import MICROS_PER_DAY, cut_of_months, month_start

BLOCK = 4
NOW_MICROS = 1_800_000_000_000_000
TENANTS = ("acme", "globex", "_system", "_log")


def source(tenant_id: str, request_id: str, time_micros: int) -> Source:
    """A record's public fields."""
    return Source(tenant_id, "t", "id", 0, 0, time_micros, 0, bytes(32), None, "", "", request_id, "")


sources = st.builds(
    source, st.sampled_from(TENANTS), st.sampled_from(["", "r1", "r2"]), st.integers(min_value=0, max_value=8)
)
bounds = st.none() | st.integers(min_value=0, max_value=8)
holds = st.builds(
    LegalHold,
    hold_id=st.sampled_from(["hold_1", "hold_2", "hold_3"]),
    tenant_id=st.sampled_from(["acme", "globex", "other"]),
    request_id=st.sampled_from(["", "", "r1", "r2"]),
    since=bounds,
    until=bounds,
)


def plan_of(log: list[Source], begin: int, before: int, found: list[LegalHold]) -> CutPlan:
    """The plan for a log whose minimum index is `begin`."""
    cutter = Cutter(begin, len(log), before, found, BLOCK)
    for position in range(begin, len(log)):
        if cutter.plan is not None:
            break
        cutter.take(log[position])
    assert cutter.plan is not None
    return cutter.plan


@given(st.lists(sources, max_size=30), st.integers(0, 9), st.lists(holds, max_size=3), st.integers(0, 7))
def test_a_cut_takes_only_what_may_go(log: list[Source], before: int, found: list[LegalHold], blocks: int) -> None:
    """Whole blocks, old and free of holds, from the minimum index on, and one entry at least stays."""
    begin = min(blocks, max(len(log) - 1, 0) // BLOCK) * BLOCK
    plan = plan_of(log, begin, before, found)
    note(str(plan))

    gone = log[begin : plan.end]
    assert plan.end % BLOCK == 0
    assert begin <= plan.end <= max(len(log) - 1, 0)
    assert all(each.time_micros < before for each in gone)
    assert not any(hold.covers(each.tenant_id, each.request_id, each.time_micros) for hold in found for each in gone)


@given(st.lists(sources, max_size=30), st.integers(0, 9), st.lists(holds, max_size=3))
def test_a_cut_takes_all_that_may_go(log: list[Source], before: int, found: list[LegalHold]) -> None:
    """Where it stops there is a reason: the named entry is in the next block, and is young or held as it says."""
    plan = plan_of(log, 0, before, found)

    if plan.stop is Stop.NEWEST:
        assert plan.end + BLOCK >= len(log)
        return
    assert plan.entry is not None
    assert plan.end <= plan.entry < plan.end + BLOCK
    stopped = log[plan.entry]
    named = [hold for hold in found if hold.hold_id == plan.hold_id]
    held = any(hold.covers(stopped.tenant_id, stopped.request_id, stopped.time_micros) for hold in named)
    assert held is (plan.stop is Stop.HELD)
    assert held or stopped.time_micros >= before


@given(st.lists(sources, max_size=30), st.integers(0, 8), st.integers(0, 8), st.lists(holds, max_size=3))
def test_a_cut_never_goes_back(log: list[Source], earlier: int, more: int, found: list[LegalHold]) -> None:
    """As time goes on and holds are released, the minimum index only grows; planning again changes nothing."""
    first = plan_of(log, 0, earlier, found)

    assert first.end == plan_of(log, first.end, earlier, found).end
    assert first.end <= plan_of(log, first.end, earlier + more, found[1:]).end


days = st.integers(min_value=30, max_value=3_000)
held = st.builds(
    LegalHold,
    hold_id=st.just("hold_1"),
    tenant_id=st.just("acme"),
    since=st.none() | st.integers(0, NOW_MICROS),
    request_id=st.just(""),
)


@given(days, st.lists(held, max_size=3))
def test_months_that_go_are_old_and_free_of_holds(keep_days: int, found: list[LegalHold]) -> None:
    """What goes ends with a month, is older than the policy, and nothing of it is in a hold's time."""
    end = cut_of_months(keep_days, NOW_MICROS, found)

    assert end in {0, month_start(end)}
    assert end <= NOW_MICROS - keep_days * MICROS_PER_DAY
    assert all(end <= (hold.since or 0) for hold in found)
    assert cut_of_months(keep_days + 1, NOW_MICROS, found) <= end <= cut_of_months(keep_days, NOW_MICROS, found[1:])
