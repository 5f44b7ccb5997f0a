"""Every interleaving of a small world, driven through the real hold store, fold and reaper.

Two gateways each try one hold, one on two limits and one on the second of them; their steps, the sink's, the reaper's,
deaths, a lost server, a failover to an older one and commits that a dead gateway's spool brings late come in every
order. A limit that is overspent, a hold that stays, a call that nobody is charged for or one that is charged twice is a
broken promise. Leaving out any one of the four rules (pin, tombstone, generation, barrier) must
break one: otherwise this search would see nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Coroutine, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import pytest

from processors.budgets import BudgetFold, OpenHold
from processors.reaper import Reaper
from schemas.events import BudgetEvent, BudgetKind
from sinks.redis import memory
from sinks.redis.holds import Confirmation, Placed, PlaceHold
from sinks.redis.memory import MemoryHoldStore
from tests.budget_world import NOW_MICROS, TENANT, Events, hold_id, leg

T = TypeVar("T")
LIMIT = 1
GATEWAYS = 2
NOW_MILLIS = NOW_MICROS // 1_000
MUCH_LATER_MICROS = NOW_MICROS + 10**12
HOLDS = tuple(hold_id(number) for number in range(GATEWAYS))
LEGS = ((leg(1, "first"), leg(1, "second")), (leg(1, "second"),))
LIMITS = ("first", "second")
MADE = Events()
PLACED = tuple(MADE.placed(hold, *legs) for hold, legs in zip(HOLDS, LEGS, strict=True))
EVENTS: dict[tuple[str, int], BudgetEvent] = {
    (event.kind.value, number): event
    for number in range(GATEWAYS)
    for event in (
        PLACED[number],
        MADE.committed(PLACED[number], 1),
        MADE.released(PLACED[number]),
        MADE.expired(PLACED[number]),
    )
}
Log = tuple[tuple[str, int], ...]


class Server(NamedTuple):
    """The live store: its overlay as (gateway, status), and how far the log is applied."""

    generation: int
    is_open: bool
    cursor: int
    overlay: frozenset[tuple[int, str]]


class World(NamedTuple):
    """Gateways as (phase, generation known), the log, the server, faults left."""

    gateways: tuple[tuple[str, int], ...]
    log: Log
    server: Server
    faults: int


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the store in memory waits for nothing")


@lru_cache(maxsize=100_000)
def folded(log: Log) -> BudgetFold:
    """The real fold of a log; not changed by anyone."""
    fold = BudgetFold()
    for entry in log:
        fold.apply(EVENTS[entry])
    return fold


class Live:
    """The real store in the state of a `Server`."""

    def __init__(self, world: World) -> None:
        """Bring a fresh store into that state."""
        server = world.server
        self.generation, self.cursor = server.generation, server.cursor
        self.store = MemoryHoldStore(lambda: NOW_MILLIS)
        self.store.open_tenant(TENANT, f"run:{server.generation}")
        self.slot = self.store._slots[TENANT]
        for entry in world.log[: server.cursor]:
            self.slot.fold.apply(EVENTS[entry])
        self.slot.is_open = server.is_open
        for number, status in server.overlay:
            self.slot.overlay[HOLDS[number]] = memory._Entry(
                memory._body(PLACED[number].legs), memory._Status(status), NOW_MILLIS + 1
            )

    def server(self) -> Server:
        """The state it is in now."""
        overlay = frozenset((HOLDS.index(hold), entry.status.value) for hold, entry in self.slot.overlay.items())
        return Server(self.generation, self.slot.is_open, self.cursor, overlay)

    def place(self, number: int) -> bool:
        """Whether the hold was placed."""
        legs = LEGS[number]
        asked = PlaceHold(TENANT, HOLDS[number], legs, (LIMIT,) * len(legs))
        return isinstance(finished(self.store.place(asked)), Placed)

    def confirm(self, number: int, generation: int) -> bool:
        """Whether the provider may be called."""
        answer = finished(self.store.confirm(TENANT, HOLDS[number], f"run:{generation}"))
        return answer is Confirmation.CONFIRMED

    def apply(self, entry: tuple[str, int]) -> None:
        """The sink applies one event."""
        self.store.apply(TENANT, EVENTS[entry])
        self.cursor += 1

    def outlive(self, number: int) -> None:
        """The entry's time to live passes."""
        self.slot.overlay[HOLDS[number]].until_millis = 0
        self.store._sweep(self.slot)


def with_gateway(world: World, number: int, phase: str, known: int) -> World:
    """The world after one gateway's step."""
    gateways = (*world.gateways[:number], (phase, known), *world.gateways[number + 1 :])
    return world._replace(gateways=gateways)


def gateway_steps(world: World, number: int) -> Iterator[World]:
    """What one gateway may do next."""
    phase, known = world.gateways[number]
    live = Live(world)
    if phase == "new" and world.server.is_open:
        placed = live.place(number)
        after = with_gateway(world, number, "placed" if placed else "refused", world.server.generation)
        yield after._replace(server=live.server())
    elif phase == "placed":
        yield with_gateway(world, number, "acked", known)._replace(log=(*world.log, ("PLACED", number)))
    elif phase == "acked":
        if live.confirm(number, known):
            yield with_gateway(world, number, "called", known)._replace(server=live.server())
        else:
            yield with_gateway(world, number, "done", known)._replace(log=(*world.log, ("RELEASED", number)))
    elif phase == "called":
        yield with_gateway(world, number, "done", known)._replace(log=(*world.log, ("COMMITTED", number)))
    elif phase == "dead called":
        # Its spool is claimed by another process, before or after the lease ran out.
        yield with_gateway(world, number, "done", known)._replace(log=(*world.log, ("COMMITTED", number)))
    if world.faults and phase in {"placed", "acked", "called"}:
        dead = with_gateway(world, number, "dead called" if phase == "called" else "dead", known)
        yield dead._replace(faults=world.faults - 1)


def sink_steps(world: World, without: str) -> Iterator[World]:
    """What the sink, time and the reaper may do next."""
    server = world.server
    if server.cursor < len(world.log):
        live = Live(world)
        live.apply(world.log[server.cursor])
        yield world._replace(server=live.server())
    if not server.is_open and (server.cursor == len(world.log) or without == "barrier"):
        yield world._replace(server=server._replace(is_open=True))
    for number, status in server.overlay:
        if status == "open":
            live = Live(world)
            live.outlive(number)
            yield world._replace(server=live.server())
    yield from reaper_steps(world)


def reaper_steps(world: World) -> Iterator[World]:
    """EXPIRED for any hold that the real reaper, caught up, finds open after its lease."""
    reaper = Reaper()
    state = reaper.initial(0)
    state.fold = folded(world.log)
    for event in reaper.tick(state, MUCH_LATER_MICROS, caught_up=True):
        assert isinstance(event, BudgetEvent)
        yield world._replace(log=(*world.log, (BudgetKind.EXPIRED.value, HOLDS.index(event.hold_id))))


def faults(world: World) -> Iterator[World]:
    """The server is lost, or a replica that lacks the tail takes over; the sink begins a generation, closed."""
    if world.faults:
        for back in range(world.server.cursor + 1):
            server = Server(world.server.generation + 1, is_open=False, cursor=back, overlay=frozenset())
            yield world._replace(server=server, faults=world.faults - 1)


def steps(world: World, without: str) -> Iterator[World]:
    """Everything that may happen next."""
    for number in range(GATEWAYS):
        yield from gateway_steps(world, number)
    yield from sink_steps(world, without)
    yield from faults(world)


def broken_now(world: World) -> str:
    """A promise that is broken in this state."""
    called = [
        phase in {"called", "dead called"} or ("COMMITTED", number) in world.log
        for number, (phase, _) in enumerate(world.gateways)
    ]
    for name in LIMITS:
        on_it = [number for number in range(GATEWAYS) if any(one.limit_id == name for one in LEGS[number])]
        if sum(called[number] for number in on_it) > LIMIT:
            return "overspend"
    return ""


def broken_at_the_end(world: World) -> str:
    """A promise that is broken when nothing more can happen."""
    fold = folded(world.log)
    pending = [number for number, status in world.server.overlay if status != "dropped"]
    if any(sums.held_nano for sums in fold.sums.values()) or fold.open_holds or pending:
        return "leak"
    charged = [any((kind, number) in world.log for kind in ("COMMITTED", "EXPIRED")) for number in range(GATEWAYS)]
    if any(phase == "dead called" and not charged[number] for number, (phase, _) in enumerate(world.gateways)):
        return "uncharged call"
    due = Counter(one.limit_id for number in range(GATEWAYS) if charged[number] for one in LEGS[number])
    posted = {counter.limit_id: sums.posted_nano for counter, sums in fold.sums.items() if sums.posted_nano}
    return "" if posted == due else "charged twice"


def search(faults_max: int, without: str = "") -> tuple[str, int]:
    """The first broken promise, empty when none is, and how many states were seen."""
    nothing = Server(0, is_open=True, cursor=0, overlay=frozenset())
    start = World((("new", 0),) * GATEWAYS, (), nothing, faults_max)
    seen, queue = {start}, deque([start])
    while queue:
        world = queue.popleft()
        following = list(steps(world, without))
        ended = all(after.faults < world.faults for after in following)
        problem = broken_now(world) or (broken_at_the_end(world) if ended else "")
        if problem:
            return problem, len(seen)
        fresh = set(following) - seen
        seen |= fresh
        queue.extend(fresh)
    return "", len(seen)


def test_no_order_of_events_breaks_a_promise() -> None:
    """Two gateways, one unit, two deaths or losses: every state is visited."""
    problem, states = search(faults_max=2)
    assert problem == ""
    assert states > 40_000


def confirm_without_pin(slot: Any, hold: str) -> Confirmation:
    """Confirm that leaves the entry to its time to live."""
    entry = slot.overlay.get(hold)
    if entry is not None and entry.status is not memory._Status.DROPPED:
        return Confirmation.CONFIRMED
    return memory_confirm(slot, hold)


memory_confirm = memory._confirm


def sweep_without_tombstone(self: MemoryHoldStore, slot: Any) -> None:
    """Entries fall away and are forgotten."""
    for hold, entry in list(slot.overlay.items()):
        if entry.status is memory._Status.OPEN and entry.until_millis <= self._now_millis():
            del slot.overlay[hold]


async def confirm_any_generation(self: MemoryHoldStore, tenant_id: str, hold: str, generation: str) -> Confirmation:
    """Confirm that trusts whatever server it meets."""
    return memory._confirm(self._slots[tenant_id], hold)


@pytest.mark.parametrize("rule", ["pin", "tombstone", "generation", "barrier"])
def test_each_of_the_four_rules_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the search finds an overspend."""
    if rule == "pin":
        monkeypatch.setattr(memory, "_confirm", confirm_without_pin)
    elif rule == "tombstone":
        monkeypatch.setattr(MemoryHoldStore, "_sweep", sweep_without_tombstone)
    elif rule == "generation":
        monkeypatch.setattr(MemoryHoldStore, "confirm", confirm_any_generation)
    problem, _ = search(faults_max=1, without=rule)
    assert problem == "overspend"


def test_an_open_hold_is_what_the_reaper_looks_at() -> None:
    """The model's events are those of the product."""
    assert isinstance(folded((("PLACED", 0),)).status(HOLDS[0]), OpenHold)
