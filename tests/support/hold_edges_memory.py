"""The store in memory takes the transitions of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

from processors.budgets import OpenHold
from sinks.redis import memory
from sinks.redis.holds import Refused
from sinks.redis.memory import MemoryHoldStore
from tests.budget_world import NOW_MICROS, TENANT
from tests.support.hold_edges import Graph, Names, Transition, View
from tests.support.hold_model import DONE, Action, Answer, Hold, Refusal, Store, Waiting

T = TypeVar("T")
NOW_MILLIS = NOW_MICROS // 1_000


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the store in memory waits for nothing")


class Live:
    """A store, and how far the log is applied to it."""

    def __init__(self, names: Names, kind: type[MemoryHoldStore]) -> None:
        """Open, of the first generation, with nothing applied."""
        self._names = names
        self._store, self._cursor = kind(lambda: NOW_MILLIS), 0
        self._store.open_tenant(TENANT, "0")

    def copied(self) -> Live:
        """Another one in the same state."""
        live, slot = copy(self), self._slot
        live._store, fold = copy(self._store), copy(slot.fold)
        fold.sums, fold.open_holds = dict(fold.sums), dict(fold.open_holds)
        fold._closed = {hour: dict(closed) for hour, closed in fold._closed.items()}
        overlay = {hold: replace(entry) for hold, entry in slot.overlay.items()}
        whole = replace(slot, fold=fold, overlay=overlay, growth=dict(slot.growth), answers=dict(slot.answers))
        live._store._slots = {TENANT: whole}
        return live

    def take(self, store: Store, action: Action) -> Answer:
        """Ask, or let happen; `store` is the state that it is in."""
        name, *arguments = action
        answer: Answer = getattr(self, f"_{name}")(store, *arguments)
        return answer

    def view(self) -> View:
        """What is seen of it now."""
        slot, number_of = self._slot, self._names.holds.index
        sums = {counter.limit_id: each for counter, each in slot.fold.sums.items()}
        entries = {number_of(hold): entry for hold, entry in slot.overlay.items()}
        return View(
            int(slot.generation),
            slot.is_open,
            self._cursor,
            {name: each.posted_nano for name, each in sums.items() if each.posted_nano},
            {name: each.held_nano for name, each in sums.items() if each.held_nano},
            self._unconfirmed(),
            {number_of(hold): self._hold(hold) for hold in self._names.holds if slot.fold.status(hold)},
            frozenset(Waiting(at, entry.status.value, _amount(entry.body)) for at, entry in entries.items()),
            frozenset((number_of(hold), _amount(body)) for hold, body in slot.growth.items()),
            frozenset(
                Refusal(
                    number_of(hold), _amount(body), self._names.leg_of(number_of(hold), no.limit_id), no.remaining_nano
                )
                for hold, (body, no) in slot.answers.items()
                if isinstance(no, Refused)
            ),
        )

    @property
    def _slot(self) -> memory._Slot:
        return self._store._slots[TENANT]

    def _unconfirmed(self) -> dict[str, int]:
        counting = [entry.body for entry in self._slot.overlay.values() if entry.status is not memory._Status.DROPPED]
        added = Counter[str]()
        for body in (*counting, *self._slot.growth.values()):
            added.update({counter.limit_id: amount for counter, amount in body})
        return dict(added)

    def _hold(self, hold: str) -> Hold:
        status = self._slot.fold.status(hold)
        assert status is not None
        if isinstance(status, OpenHold):
            return Hold("open", _amount(status.held))
        charged = status.expired.legs[0].amount_nano if status.expired else 0
        return Hold(status.kind.value, _amount(self._slot.answers[hold][0]), charged)

    def _place(self, _store: Store, number: int, amount: int) -> Answer:
        ask = self._names.asks(number, amount)
        return self._names.answer(ask, finished(self._store.place(ask)))

    def _place_late(self, store: Store, number: int) -> Answer:
        for entry in self._slot.overlay.values():
            if entry.status is not memory._Status.DROPPED:
                entry.until_millis = 0
        return self._place(store, number, 1)

    def _extend(self, _store: Store, number: int, amount: int) -> Answer:
        ask = self._names.asks(number, amount)
        return self._names.answer(ask, finished(self._store.extend(ask)))

    def _confirm(self, _store: Store, number: int, generation: int) -> Answer:
        return (finished(self._store.confirm(TENANT, self._names.holds[number], str(generation))).value.lower(),)

    def _apply(self, _store: Store, kind: str, number: int, amount: int) -> Answer:
        self._store.apply(TENANT, self._names.events[kind, number, amount])
        self._cursor += 1
        return DONE

    def _outlive(self, _store: Store, number: int) -> Answer:
        self._slot.overlay[self._names.holds[number]].until_millis = 0
        self._store._sweep(self._slot)
        return DONE

    def _admit(self, store: Store) -> Answer:
        self._store.open_tenant(TENANT, str(store.generation))
        return DONE

    def _begin(self, store: Store) -> Answer:
        self._store.close_tenant(TENANT, str(store.generation + 1))
        return DONE

    def _restore(self, store: Store, back: int) -> Answer:
        self._store.lose()
        self._begin(store)
        self._cursor = 0
        for entry in store.applied[:back]:
            self._apply(store, *entry)
        return DONE


def _amount(body: memory.Body) -> int:
    amounts = {amount for _, amount in body}
    assert len(amounts) == 1
    return amounts.pop()


class Walk:
    """All transitions of a graph, taken by one kind of store."""

    def __init__(self, graph: Graph, kind: type[MemoryHoldStore] = MemoryHoldStore) -> None:
        """Nothing is taken yet."""
        self._graph, self._names = graph, Names(graph.model, NOW_MICROS)
        self._first = Live(self._names, kind)

    def differing(self) -> list[str]:
        """What the first state with a difference says; empty when there is none."""
        live: dict[Store, Live] = {}
        for store, parent in self._graph.made.items():
            live[store] = self._made(live, parent)
            if live[store].view() != self._names.view(store):
                return [f"{parent}: {live[store].view()}, not {self._names.view(store)}"]
            found = [said for each in self._graph.transitions(store) if (said := self._taken(live[store], each))]
            if found:
                return found
        return []

    def _made(self, live: dict[Store, Live], parent: tuple[Store, Action] | None) -> Live:
        if parent is None:
            return self._first
        before, action = parent
        made = live[before].copied() if before in live else self._first.copied()
        made.take(before, action)
        return made

    def _taken(self, live: Live, transition: Transition) -> str:
        """What differs, or nothing."""
        live = live.copied()
        answer = live.take(transition.before, transition.action)
        seen = (answer, live.view())
        if seen in [(said, self._names.view(after)) for said, after in transition.allowed]:
            return ""
        return f"{transition.before} {transition.action}: {seen}, not {transition.allowed}"
