"""Every transition of the model of the live store, for real stores to take: the questions, and what is seen of a store.

A store that keeps folds can't tell apart two logs that say the same of every hold, so of such states one stands for
all. In each of these every question is asked, also those that no gateway would ask there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from processors.budgets import extended_event
from schemas.events import BudgetEvent
from sinks.redis.holds import Closed, Conflict, Extension, Gone, Placed, PlaceHold, Refused
from tests.budget_world import TENANT, Events, fields_of, hold_id, leg
from tests.support.hold_model import (
    PLACED,
    Action,
    Answer,
    Entry,
    Hold,
    Model,
    Outcome,
    Refusal,
    Store,
    Waiting,
    folded,
)
from tests.support.hold_search import Found

KINDS = (
    ("PLACED", 1),
    ("EXTENDED", 1),
    ("EXTENDED", 2),
    ("COMMITTED", 0),
    ("COMMITTED", 1),
    ("COMMITTED", 2),
    ("RELEASED", 1),
    ("EXPIRED", 1),
    ("EXPIRED", 2),
)

#: How a slot, and the fold of what it keeps, name the end of a hold.
ENDS = {"c": "COMMITTED", "r": "RELEASED", "x": "EXPIRED"}


class View(NamedTuple):
    """What is seen of a store; of a hold that ended what it was charged, as long as it may be taken back."""

    generation: int
    is_open: bool
    cursor: int
    posted: Mapping[str, int]
    held: Mapping[str, int]
    #: By limit, what the log has not confirmed takes of it.
    unconfirmed: Mapping[str, int]
    holds: Mapping[int, Hold]
    waiting: frozenset[Waiting]
    growth: frozenset[tuple[int, int]]
    refusals: frozenset[Refusal]


class Transition(NamedTuple):
    """A question in a state, and what may come of it: nearly always one thing."""

    before: Store
    action: Action
    allowed: tuple[Outcome, ...]


class Graph:
    """The states that a store can tell apart, each with how it is made, and the transitions out of each."""

    def __init__(self, found: Found) -> None:
        """Of a search that visited all."""
        self.model: Model = found.model
        self._found, self._searched = found, tuple(self.model.edges)
        #: In an order in which each is made of one before it; the first of nothing.
        self.made: dict[Store, tuple[Store, Action] | None] = {}
        self._standing: dict[Hashable, Store] = {}
        for store, parent in found.parents.items():
            self._add(store, parent)

    def standing(self, store: Store) -> Store:
        """The state that stands for this one."""
        return self._standing[_told_apart(store)]

    def transitions(self, store: Store) -> Iterator[Transition]:
        """Every question asked in a state."""
        for action in self._actions(store):
            yield Transition(store, action, self._allowed(store, action))

    def left_out(self) -> list[tuple[Store, Action]]:
        """Transitions that the search met and no question stands for; a snapshot is of a log, not of what is kept."""
        asked = {(store, action) for store in self.made for action in self._actions(store)}
        met = ((self.standing(store), action) for store, action in self._searched if action[0] != "restore")
        return [each for each in met if each not in asked]

    def worded(self, name: str) -> str:
        """How much there is of it."""
        asked = sum(1 for store in self.made for _ in self._actions(store))
        return (
            f"{name}: {self._found.worlds:,} states of the world, {len(self._found.parents):,} of the store with "
            f"{len(self._searched):,} transitions; it can tell {len(self.made):,} apart: {asked:,} questions asked"
        )

    def _add(self, store: Store, parent: tuple[Store, Action] | None) -> None:
        key = _told_apart(store)
        if key in self._standing:
            return
        if parent is None or parent[1][0] == "restore":
            self._standing[key], self.made[store] = store, parent
        else:
            before, action = self.standing(parent[0]), parent[1]
            _, after = self.model.ask(before, *action)
            assert _told_apart(after) == key
            self._standing[key], self.made[after] = after, (before, action)

    def _actions(self, store: Store) -> Iterator[Action]:
        for number in range(len(self.model.scenario.limits_of)):
            for amount in (1, 2):
                yield "place", number, amount
                yield "extend", number, amount
            for generation in range(store.generation + 1):
                yield "confirm", number, generation
            for kind, amount in KINDS:
                yield "apply", kind, number, amount
            entry = store.entry(number)
            if entry is not None and entry.status == "open":
                yield "outlive", number
            if any(each.status != "dropped" for each in store.waiting):
                yield "place_late", number
        if not store.is_open:
            yield ("admit",)
        yield ("begin",)
        yield from (("restore", back) for back in range(len(store.applied) + 1))

    def _allowed(self, store: Store, action: Action) -> tuple[Outcome, ...]:
        name, *rest = action
        if name != "place_late":
            return (self.model.ask(store, *action),)
        # Time has passed for all that waits: room that lacks must be found; a store may look for it before it lacks.
        late, number = store, rest[0]
        for entry in store.waiting:
            late = self.model.ask(late, "outlive", entry.number)[1]
        eager, lazy = self.model.ask(late, "place", number, 1), self.model.ask(store, "place", number, 1)
        return (eager, lazy) if lazy[0] == PLACED or lazy[1] == store else (eager,)


def _told_apart(store: Store) -> Hashable:
    return store._replace(applied=()), tuple(sorted(folded(store.applied).items()))


class Names:
    """The product's words for the model's numbers."""

    def __init__(self, model: Model, now_micros: int) -> None:
        """Holds are of this moment."""
        scenario = model.scenario
        self._model = model
        self.limits = tuple(f"limit_{number}" for number in range(len(scenario.allowed)))
        self.holds = tuple(hold_id(number, now_micros) for number in range(len(scenario.limits_of)))
        self._now_micros = now_micros

    @cached_property
    def events(self) -> dict[Entry, BudgetEvent]:
        """By entry of the log."""
        events = {
            (kind, number, amount): self._event(kind, number, amount)
            for kind, amount in KINDS
            for number in range(len(self.holds))
        }
        assert all(each.amount_nano == amount for (_, number, amount), event in events.items() for each in event.legs)
        return events

    @cached_property
    def fields(self) -> dict[Entry, dict[str, object]]:
        """Events as a sink reads them."""
        return {entry: fields_of(event) for entry, event in self.events.items()}

    def asks(self, number: int, amount: int) -> PlaceHold:
        """A hold of this amount on each of its limits."""
        scenario = self._model.scenario
        limits = scenario.limits_of[number]
        legs = tuple(leg(amount, self.limits[limit]) for limit in limits)
        return PlaceHold(TENANT, self.holds[number], legs, tuple(scenario.allowed[limit] for limit in limits))

    def leg_of(self, number: int, limit: str) -> int:
        """Which leg of a hold stands on a limit."""
        return self._model.scenario.limits_of[number].index(self.limits.index(limit))

    def answer(self, ask: PlaceHold, answer: Extension) -> Answer:
        """A store's answer in the model's words."""
        match answer:
            case Placed():
                return PLACED
            case Refused(limit, left, allowed):
                at = self.leg_of(self.holds.index(ask.hold_id), limit)
                assert allowed == ask.limits_nano[at]
                return "refused", at, left
            case Closed(reason):
                return "closed", reason.value
            case Conflict(field):
                return "conflict", field
            case Gone():
                return ("gone",)

    def view(self, store: Store) -> View:
        """What must be seen of a store in this state."""
        posted, held = self._model.sums(store)
        holds = {
            number: hold if hold.status == "EXPIRED" else hold._replace(charged=0)
            for number, hold in folded(store.applied).items()
        }
        return View(
            store.generation,
            store.is_open,
            len(store.applied),
            self._named(posted),
            self._named(held),
            self._named({limit: self._model.used(store, limit) - posted[limit] - held[limit] for limit in posted}),
            holds,
            store.waiting,
            store.growth,
            store.refusals,
        )

    def _named(self, sums: Mapping[int, int]) -> dict[str, int]:
        return {self.limits[limit]: amount for limit, amount in sums.items() if amount}

    def _event(self, kind: str, number: int, amount: int) -> BudgetEvent:
        made, hold = Events(now_micros=self._now_micros), self.holds[number]
        placed, whole = (made.placed(hold, *self.asks(number, each).legs) for each in (1, amount))
        if kind == "EXTENDED":
            at = self._now_micros
            return extended_event(
                placed, event_id=hold_id(100, at), occurred_at=at, actor="test", amount_nano=amount, lease_until=at
            )
        ways = {"PLACED": lambda: whole, "COMMITTED": lambda: made.committed(placed, amount)}
        ways |= {"RELEASED": lambda: made.released(placed), "EXPIRED": lambda: made.expired(whole)}
        return ways[kind]()
