"""Random histories of a few holds, for property tests of budgets."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from processors.budgets import extended_event
from schemas.events import BudgetEvent, BudgetKind
from tests.budget_world import NOW_MICROS, Events, hold_id, leg

AMOUNTS = st.integers(0, 9_000_000 * 10**9)
HOLDS = 4
APART_MICROS = 1_900_000_000
#: What may happen to one of a few holds: the kinds in any order, late, twice, without PLACED.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["PLACED", "PLACED", "COMMITTED", "RELEASED", "EXPIRED", "EXTENDED", "OVERAGE", "again"]),
        st.integers(0, HOLDS - 1),
        AMOUNTS,
        st.sampled_from(["one", "two", "none", "unsound"]),
    ),
    max_size=25,
)
LEGS = {
    "one": lambda amount: (leg(amount),),
    "two": lambda amount: (leg(amount), leg(amount // 2, "key_day", (86_400_000_000, 172_800_000_000))),
    "none": lambda _: (),
    "unsound": lambda amount: (leg(-1 - amount),),
}


def events_of(steps: Sequence[tuple[str, int, int, str]]) -> list[BudgetEvent]:
    """The events of a random history."""
    make, made = Events(), list[BudgetEvent]()
    for kind, number, amount, shape in steps:
        if kind == "again":
            made += made[-1 - amount % (len(made) or 1) :][:1]
            continue
        # Half an hour and more between the holds: what is remembered of them is kept by hours and minutes.
        placed = make.placed(hold_id(number, NOW_MICROS + number * APART_MICROS), *LEGS[shape](amount))
        made.append(event_of(kind, placed, make, amount))
    return made


def event_of(kind: str, placed: BudgetEvent, make: Events, amount: int) -> BudgetEvent:
    """One event of a hold."""
    if kind == "PLACED":
        return placed
    if kind == "COMMITTED":
        return make.committed(placed, amount * 2 % (9_000_000 * 10**9))
    if kind == "RELEASED":
        return make.released(placed)
    if kind == "EXPIRED":
        return make.expired(placed)
    extended = extended_event(
        placed, event_id=hold_id(7), occurred_at=NOW_MICROS, actor="test", amount_nano=amount, lease_until=NOW_MICROS
    )
    return extended if kind == "EXTENDED" else make_informational(extended)


def make_informational(event: BudgetEvent) -> BudgetEvent:
    """The same as OVERAGE, which moves nothing."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return BudgetEvent(**{**fields, "kind": BudgetKind.OVERAGE})


def is_unsound(event: BudgetEvent) -> bool:
    """The sink quarantines these before any slot sees them."""
    return any(leg.amount_nano < 0 for leg in event.legs)
