"""Plans: tokens, judgement of drafts, exclusions, and reading a range again."""

from __future__ import annotations

import pytest

from schemas.errors import FencedError, GapError, IntegrityError
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.plans import Draft, Held, Known, Misplaced, Planned, misplaced, plans_of
from streams.log import Partition

P0, P1, OTHER = Partition("quaestor.costs", 0), Partition("quaestor.costs", 1), Partition("quaestor.ledger", 0)


def draft(partition: Partition, first: int, after: int, prefix: str = "e", poison: tuple[int, ...] = ()) -> Draft:
    """A draft whose events are numbered by offset."""
    offsets = [offset for offset in range(first, after) if offset not in poison]
    events = [Known("acme", f"{prefix}{offset}", 1, offset, b"%d" % offset) for offset in offsets]
    return Draft(partition, "tid", first, after, events, poison)


def test_a_token_names_projection_topic_and_ranges() -> None:
    """One insert per topic; its token says exactly which records it holds."""
    plans = plans_of("clickhouse@v1", [draft(P1, 5, 9), draft(OTHER, 0, 1), draft(P0, 0, 3)], {P1: {6}})

    assert ["clickhouse@v1:tid:quaestor.costs:0:0-3+1:5-9", "clickhouse@v1:tid:quaestor.ledger:0:0-1"] == [
        plan.token for plan in plans
    ]
    assert [(), (6,)] == [piece.excluded for piece in plans[0].pieces]


@pytest.mark.parametrize(
    ("stands", "epoch", "outcome"),
    [(0, 1, None), (2, 1, Misplaced({P0: 2})), (0, 2, FencedError), (None, 1, FencedError)],
)
def test_drafts_are_judged_against_the_cursor(stands: int | None, epoch: int, outcome: object) -> None:
    """In place, trimmed, or fenced."""
    held = {P0: Held(stands, epoch)} if stands is not None else {}
    if isinstance(outcome, type):
        with pytest.raises(FencedError):
            misplaced([draft(P0, 0, 3)], held, {P0: 1})
    else:
        assert outcome == misplaced([draft(P0, 0, 3)], held, {P0: 1})


def test_a_draft_ahead_of_the_cursor_is_a_gap() -> None:
    """Nothing may be skipped."""
    with pytest.raises(GapError):
        misplaced([draft(P0, 4, 5)], {P0: Held(3, 1)}, {P0: 1})


async def claimed() -> MemoryPlanStore:
    """A store whose partitions are held at epoch 1."""
    store = MemoryPlanStore()
    await store.claim("p", [P0, P1, OTHER], {P0.topic: "tid", OTHER.topic: "tid"})
    return store


EPOCHS = {P0: 1, P1: 1, OTHER: 1}


async def test_the_first_copy_in_log_order_stays() -> None:
    """Of two copies in one batch the later partition's is excluded, and every later one too."""
    store = await claimed()
    first = await store.plan("p", [draft(P1, 0, 2), draft(P0, 0, 2)], EPOCHS)
    assert isinstance(first, Planned)
    await store.settle("p", first.plans, EPOCHS)
    second = await store.plan("p", [draft(OTHER, 0, 2)], EPOCHS)

    assert isinstance(second, Planned)
    assert [(), (0, 1)] == [piece.excluded for piece in first.plans[0].pieces]
    assert (0, 1) == second.plans[0].pieces[0].excluded


async def test_an_open_plan_is_answered_instead_of_a_new_one() -> None:
    """A plan never changes while it is open, whatever the next try would like."""
    store = await claimed()
    first = await store.plan("p", [draft(P0, 0, 2, poison=(1,))], EPOCHS)
    again = await store.plan("p", [draft(P0, 0, 5)], EPOCHS)

    assert isinstance(first, Planned)
    assert isinstance(again, Planned)
    assert (True, first.plans) == (again.left_open, again.plans)
    assert (1,) == again.plans[0].pieces[0].excluded


async def test_the_same_id_with_other_bytes_stops_and_learns_nothing() -> None:
    """A fault leaves the index as it was."""
    store = await claimed()
    bad = Draft(P0, "tid", 0, 2, [Known("acme", "a", 1, 0, b"x"), Known("acme", "a", 1, 1, b"y")])
    with pytest.raises(IntegrityError):
        await store.plan("p", [bad], EPOCHS)
    fresh = await store.plan("p", [Draft(P0, "tid", 0, 1, [Known("acme", "a", 1, 0, b"y")])], EPOCHS)

    assert isinstance(fresh, Planned)


async def test_an_id_belongs_to_its_tenant() -> None:
    """The same id of another tenant is another event."""
    store = await claimed()
    events = [Known("acme", "a", 1, 0, b"x"), Known("beta", "a", 1, 1, b"x")]
    planned = await store.plan("p", [Draft(P0, "tid", 0, 2, events)], EPOCHS)

    assert isinstance(planned, Planned)
    assert () == planned.plans[0].pieces[0].excluded
