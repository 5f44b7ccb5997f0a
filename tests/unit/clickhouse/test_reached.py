"""Which plans may have rows under another token than their own: none, unless Postgres went back."""

from __future__ import annotations

from sinks.clickhouse.plans import Draft, plans_of
from sinks.clickhouse.reached import Reached
from streams.log import Partition

COSTS, LEDGER = Partition("quaestor.costs", 0), Partition("quaestor.ledger", 0)


def is_counted(reached: Reached, first: int, after: int) -> bool:
    """Whether the plan of these offsets is counted first; sends it."""
    (plan,) = plans_of("clickhouse@v1", reached.marked([Draft(COSTS, "tid", first, after, ())]), {})
    reached.sends(plan)
    return plan.is_counted


def test_plans_that_follow_each_other_are_not_counted() -> None:
    """A sink whose plans go on where the last one ended asks nothing of what it inserts."""
    reached = Reached()
    reached.note({COSTS: 10})

    assert [False, False] == [is_counted(reached, 10, 20), is_counted(reached, 20, 30)]


def test_plans_are_counted_up_to_where_rows_may_be() -> None:
    """The store of plans stands where it stood before: what was sent since is planned in other cuts."""
    reached = Reached()
    reached.note({COSTS: 10})
    is_counted(reached, 10, 30)

    assert [True, True, False] == [is_counted(reached, 5, 20), is_counted(reached, 20, 40), is_counted(reached, 40, 50)]


def test_a_topic_without_such_rows_is_not_counted() -> None:
    """One topic's plan says nothing of another's."""
    reached = Reached()
    reached.note({COSTS: 10})
    drafts = [Draft(each, "tid", 0, 20, ()) for each in (COSTS, LEDGER)]
    plans = plans_of("clickhouse@v1", reached.marked(drafts), {})

    assert {COSTS.topic: True, LEDGER.topic: False} == {plan.topic: plan.is_counted for plan in plans}


def test_what_others_own_is_forgotten() -> None:
    """Whoever claims it asks again."""
    reached = Reached()
    reached.note({COSTS: 10})
    reached.forget([COSTS])

    assert not is_counted(reached, 0, 10)
