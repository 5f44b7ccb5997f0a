"""Every interleaving of gateways, sink, reaper, deaths and losses around the model of the live store.

Each gateway tries one hold. Their steps, the sink's, the reaper's, deaths, a lost server, a failover to an older one
and commits that a dead gateway's spool brings late come in every order. A limit that is overspent, a hold that stays, a
call that nobody is charged for or one that is charged twice is a broken promise.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from tests.support.hold_model import Action, Entry, Log, Model, Scenario, Store, folded

#: What a gateway in this phase lets its caller use.
USED = {
    "called": 1,
    "asked": 1,
    "raised": 1,
    "recorded": 1,
    "stopped": 1,
    "dead called": 1,
    "grown": 2,
    "dead grown": 2,
}


class World(NamedTuple):
    """Gateways as (phase, generation known), the store, what of the log it has not applied, faults left."""

    gateways: tuple[tuple[str, int], ...]
    store: Store
    unread: Log
    faults: int
    #: By gateway: what its hold held when its lease ended, 0 while it lasts.
    late: tuple[int, ...]

    @property
    def log(self) -> Log:
        """All of it."""
        return self.store.applied + self.unread

    def says(self, *entry: Entry) -> World:
        """One more entry in the log."""
        return self._replace(unread=self.unread + entry)

    def at(self, number: int, phase: str, known: int) -> World:
        """After one gateway's step."""
        return self._replace(gateways=(*self.gateways[:number], (phase, known), *self.gateways[number + 1 :]))


class Found(NamedTuple):
    """What a search saw: the first broken promise, empty when none is."""

    problem: str
    worlds: int
    #: With every transition of the store that can happen.
    model: Model
    #: By state of the store: the one from which it was reached first, and how; of the first one nothing.
    parents: dict[Store, tuple[Store, Action] | None]
    logs: frozenset[Log]


class Search:
    """One scenario, with one rule left out, or none."""

    def __init__(self, scenario: Scenario, without: str = "") -> None:
        """`without`: pin, tombstone, generation, barrier, lease or once."""
        self._scenario, self._without = scenario, without
        self._model = Model(scenario, without)
        self._gateways = range(len(scenario.limits_of))

    def run(self) -> Found:
        """Visit every state, until one breaks a promise."""
        count = len(self._gateways)
        start = World((("new", 0),) * count, Store(), (), self._scenario.faults, (0,) * count)
        seen, queue, problem = {start}, deque([start]), ""
        while queue and not problem:
            world = queue.popleft()
            following = list(self._steps(world))
            ended = all(after.faults < world.faults for after in following)
            problem = self._broken_now(world) or (self._broken_at_the_end(world) if ended else "")
            fresh = [after for after in dict.fromkeys(following) if after not in seen]
            seen.update(fresh)
            queue.extend(fresh)
        return Found(problem, len(seen), self._model, self._parents(), frozenset(world.log for world in seen))

    def _parents(self) -> dict[Store, tuple[Store, Action] | None]:
        parents: dict[Store, tuple[Store, Action] | None] = {Store(): None}
        for (store, action), (_, after) in self._model.edges.items():
            parents.setdefault(after, (store, action))
        return parents

    def _steps(self, world: World) -> Iterator[World]:
        """Everything that may happen next."""
        for number in self._gateways:
            yield from self._gateway_steps(world, number)
        yield from self._sink_steps(world)
        yield from self._reaper_steps(world)
        if world.faults:
            yield from self._losses(world._replace(faults=world.faults - 1))

    def _gateway_steps(self, world: World, number: int) -> Iterator[World]:
        phase, known = world.gateways[number]
        if phase in {"done", "refused", "dead"}:
            return
        if phase == "new" and world.store.is_open:
            (word, *_), store = self._model.ask(world.store, "place", number, 1)
            yield world.at(number, word, store.generation)._replace(store=store)
        elif phase == "placed":
            yield world.at(number, "acked", known).says(("PLACED", number, 1))
        elif phase == "acked":
            answer, store = self._model.ask(world.store, "confirm", number, known)
            if answer == ("confirmed",):
                yield world.at(number, "called", known)._replace(store=store)
            else:
                yield world.at(number, "done", known).says(("RELEASED", number, 1))
        if phase in USED:
            # Of a dead one, its spool is claimed by another process, before or after the lease ran out.
            yield world.at(number, "done", known).says(("COMMITTED", number, USED[phase]))
        if number < self._scenario.growing:
            yield from self._extension_steps(world, number)
        if world.faults and phase in {"placed", "acked", *USED} and not phase.startswith("dead"):
            dead = {0: "dead", 1: "dead called", 2: "dead grown"}[USED.get(phase, 0)]
            yield world.at(number, dead, known)._replace(faults=world.faults - 1)

    def _extension_steps(self, world: World, number: int) -> Iterator[World]:
        """What a gateway may do next to let its call use two."""
        phase, known = world.gateways[number]
        if phase in {"called", "recorded"}:
            (word, *_), store = self._model.ask(world.store, "extend", number, 2)
            granted = "asked" if phase == "called" else "raised"
            then = granted if word == "placed" else "stopped"
            yield world.at(number, then, store.generation)._replace(store=store)
        elif phase == "asked":
            yield world.at(number, "raised", known).says(("EXTENDED", number, 2))
        elif phase == "raised":
            answer, store = self._model.ask(world.store, "confirm", number, known)
            in_time = not world.late[number] or self._without == "lease"
            if answer == ("confirmed",) and in_time:
                yield world.at(number, "grown", known)._replace(store=store)
            else:
                yield world.at(number, "recorded" if self._without == "once" else "stopped", known)

    def _sink_steps(self, world: World) -> Iterator[World]:
        """What the sink and time may do next."""
        store = world.store
        if world.unread:
            applied = self._model.ask(store, "apply", *world.unread[0])[1]
            yield world._replace(store=applied, unread=world.unread[1:])
        if not store.is_open and (not world.unread or self._without == "barrier"):
            yield world._replace(store=self._model.ask(store, "admit")[1])
        for entry in sorted(store.waiting):
            if entry.status == "open":
                yield world._replace(store=self._model.ask(store, "outlive", entry.number)[1])

    def _reaper_steps(self, world: World) -> Iterator[World]:
        """The end of a lease, which matters to a hold that may grow, and EXPIRED for any that is open after it."""
        for number, hold in folded(world.log).items():
            if hold.status != "open":
                continue
            late = world.late[number]
            if number < self._scenario.growing and not late:
                yield world._replace(late=(*world.late[:number], hold.held, *world.late[number + 1 :]))
                continue
            # It may have decided before an EXTENDED that came in between.
            for decided in {hold.held, late or hold.held}:
                yield world.says(("EXPIRED", number, decided))

    def _losses(self, world: World) -> Iterator[World]:
        """The server is another one, is lost, or a replica that lacks the tail takes over."""
        yield world._replace(store=self._model.ask(world.store, "begin")[1])
        for back in range(len(world.store.applied) + 1):
            store = self._model.ask(world.store, "restore", back)[1]
            yield world._replace(store=store, unread=world.store.applied[back:] + world.unread)

    def _broken_now(self, world: World) -> str:
        """A promise that is broken in this state."""
        used = [
            USED.get(phase, 0) or charged(world.log, "COMMITTED", at) for at, (phase, _) in enumerate(world.gateways)
        ]
        for limit, allowed in enumerate(self._scenario.allowed):
            if sum(used[number] for number in self._gateways if limit in self._scenario.limits_of[number]) > allowed:
                return "overspend"
        return ""

    def _broken_at_the_end(self, world: World) -> str:
        """A promise that is broken when nothing more can happen."""
        holds = folded(world.log)
        waiting = [entry for entry in world.store.waiting if entry.status != "dropped"]
        if waiting or world.store.growth or any(hold.status == "open" for hold in holds.values()):
            return "leak"
        due = [charged(world.log, "COMMITTED", at) or charged(world.log, "EXPIRED", at) for at in self._gateways]
        if any(USED.get(phase, 0) > due[number] for number, (phase, _) in enumerate(world.gateways)):
            return "uncharged call"
        owed = Counter[int]()
        for number, amount in enumerate(due):
            owed.update(dict.fromkeys(self._scenario.limits_of[number], amount))
        posted, _ = self._model.sums(Store(applied=world.log))
        return "" if posted == {limit: owed[limit] for limit in posted} else "charged twice"


@lru_cache(maxsize=100_000)
def charged(log: Log, kind: str, number: int) -> int:
    """What the first entry of this kind charges a hold, 0 for nothing yet."""
    return next((amount for each, of, amount in log if (each, of) == (kind, number)), 0)
