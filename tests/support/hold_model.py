"""The live store of holds as a model that shares no code with the product: what it answers, and what it keeps then.

It knows docs/concepts/budgets.md alone. Holds are numbers, limits too, and a hold takes the same amount on each of its
limits. A `Model` remembers every transition that it was asked for: hold_search.py asks for those that can happen, and
hold_edges.py has real stores take the same ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

#: Kind, the hold's number, and the amount on each of its legs.
Entry = tuple[str, int, int]
Log = tuple[Entry, ...]
#: A name, then numbers; of "apply" an entry of the log.
Action = tuple[str, *tuple[int | str, ...]]
#: A word, and of a refusal the leg and what its limit had left.
Answer = tuple[str, *tuple[int | str, ...]]
RESOLUTIONS = frozenset({"COMMITTED", "RELEASED", "EXPIRED"})
CLOSED: Answer = ("closed", "budgets_rebuilding")
PLACED: Answer = ("placed",)
DONE: Answer = ("done",)


class Scenario(NamedTuple):
    """A small world: the limits of each hold, and what each limit allows."""

    limits_of: tuple[tuple[int, ...], ...] = ((0, 1), (1,))
    allowed: tuple[int, ...] = (1, 1)
    #: So many of the holds may grow, by one.
    growing: int = 0
    #: Deaths and losses, together.
    faults: int = 2


PLAIN = Scenario()
#: There is room for two, and the first hold grows while its call is under way: a stream that extends its hold.
GROWING = Scenario(allowed=(2, 2), growing=1, faults=1)
#: It would grow, but one of its limits has no room.
NARROW = GROWING._replace(allowed=(2, 1))


class Hold(NamedTuple):
    """What the log says of a hold: `open`, or how it ended, with what it held then and was charged."""

    status: str
    held: int
    charged: int = 0


class Waiting(NamedTuple):
    """A hold that the log has not confirmed: open, pinned or dropped."""

    number: int
    status: str
    amount: int


class Refusal(NamedTuple):
    """An answer given for good."""

    number: int
    amount: int
    leg: int
    left: int


class Store(NamedTuple):
    """Everything that a live store keeps."""

    generation: int = 0
    is_open: bool = True
    #: As far as the log is applied.
    applied: Log = ()
    waiting: frozenset[Waiting] = frozenset()
    #: By hold: what it is raised by that the log has not said.
    growth: frozenset[tuple[int, int]] = frozenset()
    refusals: frozenset[Refusal] = frozenset()

    def entry(self, number: int) -> Waiting | None:
        """What waits of a hold."""
        return next((each for each in self.waiting if each.number == number), None)

    def raised(self, number: int) -> int:
        """What a hold is raised by."""
        return dict(self.growth).get(number, 0)

    def waits(self, entry: Waiting) -> Store:
        """With this in place of what waited of the hold."""
        return self._replace(waiting=self.without(entry.number) | {entry})

    def without(self, number: int) -> frozenset[Waiting]:
        """What waits of the others."""
        return frozenset(each for each in self.waiting if each.number != number)

    def grows(self, number: int, amount: int) -> Store:
        """With this to be raised by."""
        rest = frozenset(each for each in self.growth if each[0] != number)
        return self._replace(growth=rest | {(number, amount)} if amount else rest)


Outcome = tuple[Answer, Store]


@lru_cache(maxsize=100_000)
def folded(log: Log) -> dict[int, Hold]:
    """What a log says of its holds; not changed by anyone."""
    holds: dict[int, Hold] = {}
    for kind, number, amount in log:
        after = _after(holds.get(number), kind, amount)
        if after is not None:
            holds[number] = after
    return holds


def _after(hold: Hold | None, kind: str, amount: int) -> Hold | None:
    if hold is None:
        return Hold("open", amount) if kind == "PLACED" else None
    if hold.status == "open" and kind == "EXTENDED":
        return Hold("open", max(hold.held, amount))
    if hold.status == "open" and kind in RESOLUTIONS:
        return Hold(kind, hold.held, 0 if kind == "RELEASED" else amount)
    if hold.status == "EXPIRED" and kind == "COMMITTED":
        return Hold("COMMITTED", hold.held, amount)
    return hold


class Model:
    """The store of one scenario, with one rule left out, or none."""

    def __init__(self, scenario: Scenario, without: str = "") -> None:
        """`without`: pin, tombstone or generation; other rules are not the store's."""
        self.scenario = scenario
        self._without = without
        #: Every transition that was asked for.
        self.edges: dict[tuple[Store, Action], Outcome] = {}

    def ask(self, store: Store, name: str, *arguments: int | str) -> Outcome:
        """The answer, and what is kept then."""
        asked: tuple[Store, Action] = (store, (name, *arguments))
        if asked not in self.edges:
            self.edges[asked] = getattr(self, f"_{name}")(store, *arguments)
        return self.edges[asked]

    def sums(self, store: Store) -> tuple[dict[int, int], dict[int, int]]:
        """By limit: what is posted and what is held, as applied."""
        posted = dict.fromkeys(range(len(self.scenario.allowed)), 0)
        held = dict(posted)
        for number, hold in folded(store.applied).items():
            for limit in self.scenario.limits_of[number]:
                posted[limit] += hold.charged
                held[limit] += hold.held if hold.status == "open" else 0
        return posted, held

    def used(self, store: Store, limit: int) -> int:
        """What a limit's holds take of it."""
        counting = [(each.number, each.amount) for each in store.waiting if each.status != "dropped"]
        posted, held = self.sums(store)
        on_it = (amount for number, amount in (*counting, *store.growth) if limit in self.scenario.limits_of[number])
        return posted[limit] + held[limit] + sum(on_it)

    def _lacking(self, store: Store, number: int, more: int) -> tuple[int, int] | None:
        """The first leg that has no room for more, and what its limit has left."""
        for leg, limit in enumerate(self.scenario.limits_of[number]):
            left = self.scenario.allowed[limit] - self.used(store, limit)
            if more > left:
                return leg, max(0, left)
        return None

    def _place(self, store: Store, number: int, amount: int) -> Outcome:
        if not store.is_open:
            return CLOSED, store
        before = self._placed_before(store, number, amount)
        if before is not None:
            return before, store
        lacking = self._lacking(store, number, amount)
        if lacking is None:
            return PLACED, store.waits(Waiting(number, "open", amount))
        refusal = Refusal(number, amount, *lacking)
        return ("refused", *lacking), store._replace(refusals=store.refusals | {refusal})

    def _placed_before(self, store: Store, number: int, amount: int) -> Answer | None:
        """The same answer for the same id and amount, a conflict for another amount."""
        entry, hold = store.entry(number), folded(store.applied).get(number)
        if entry is not None or (hold is not None and hold.status == "open"):
            taken = entry.amount if entry else hold.held if hold else 0
            return PLACED if taken == amount else ("conflict", "amount_nano")
        if hold is not None:
            return PLACED if hold.held == amount else ("conflict", "legs")
        refusal = next((each for each in store.refusals if each.number == number), None)
        if refusal is None:
            return None
        return ("refused", refusal.leg, refusal.left) if refusal.amount == amount else ("conflict", "legs")

    def _confirm(self, store: Store, number: int, generation: int) -> Outcome:
        if self._without != "generation" and (generation != store.generation or not store.is_open):
            return ("generation",), store
        entry, hold = store.entry(number), folded(store.applied).get(number)
        if entry is not None and entry.status == "dropped":
            return ("dropped",), store
        if entry is not None:
            status = "open" if self._without == "pin" else "pinned"
            return ("confirmed",), store.waits(entry._replace(status=status))
        if hold is None:
            return ("unknown",), store
        return ("confirmed",) if hold.status == "open" else ("resolved",), store

    def _extend(self, store: Store, number: int, amount: int) -> Outcome:
        if not store.is_open:
            return CLOSED, store
        entry, hold = store.entry(number), folded(store.applied).get(number)
        is_held = hold is not None and hold.status == "open"
        if (entry is None and not is_held) or (entry is not None and entry.status != "pinned"):
            return ("gone",), store
        holds = hold.held if hold is not None and is_held else entry.amount if entry else 0
        more = max(0, amount - holds - store.raised(number))
        lacking = self._lacking(store, number, more) if more else None
        if lacking is not None:
            return ("refused", *lacking), store
        return PLACED, store.grows(number, store.raised(number) + more)

    def _apply(self, store: Store, kind: str, number: int, amount: int) -> Outcome:
        before = folded(store.applied).get(number)
        entry, waited = (kind, number, amount), store.entry(number)
        store = store._replace(applied=(*store.applied, entry))
        if kind == "PLACED" and waited is not None and waited.status != "dropped":
            store = store._replace(waiting=store.without(number))
        if before is None or before.status != "open":
            return DONE, store
        if kind == "EXTENDED":
            raised = max(0, amount - before.held)
            return DONE, store.grows(number, max(0, store.raised(number) - raised))
        if kind in RESOLUTIONS:
            forgotten = frozenset(each for each in store.refusals if each.number != number)
            return DONE, store.grows(number, 0)._replace(refusals=forgotten)
        return DONE, store

    def _outlive(self, store: Store, number: int) -> Outcome:
        """The time of a hold that is not pinned passes."""
        entry = store.entry(number)
        if entry is None or entry.status != "open":
            return DONE, store
        if self._without == "tombstone":
            return DONE, store._replace(waiting=store.without(number))
        return DONE, store.waits(entry._replace(status="dropped"))

    def _admit(self, store: Store) -> Outcome:
        """The sink opens admission."""
        return DONE, store._replace(is_open=True)

    def _begin(self, store: Store) -> Outcome:
        """The sink begins a generation, closed, on the slot that is there."""
        return DONE, Store(store.generation + 1, is_open=False, applied=store.applied, refusals=store.refusals)

    def _restore(self, store: Store, back: int) -> Outcome:
        """The server is lost; the sink begins a generation, closed, on a snapshot of this offset."""
        return DONE, Store(store.generation + 1, is_open=False, applied=store.applied[:back])
