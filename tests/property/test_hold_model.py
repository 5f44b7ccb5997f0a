"""Every interleaving of a small world, driven through the real hold store, fold and reaper.

Two gateways each try one hold, one on two limits and one on the second of them; their steps, the sink's, the reaper's,
deaths, a lost server, a failover to an older one and commits that a dead gateway's spool brings late come in every
order. A limit that is overspent, a hold that stays, a call that nobody is charged for or one that is charged twice is a
broken promise. Leaving out any one of the four rules (pin, tombstone, generation, barrier) must
break one: otherwise this search would see nothing.

In the second of two scenarios there is room for two, and the first hold grows by one unit while its call is under way:
a stream that extends its hold. Two rules come in there: lease (an extension counts only while the hold's lease lasts)
and once (what may be in the log already is not asked for again).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine, Hashable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import pytest

from processors.budgets import BudgetFold, OpenHold, extended_event
from processors.reaper import Reaper
from schemas.events import BudgetEvent, BudgetKind
from sinks.redis import memory
from sinks.redis.holds import Confirmation, Placed, PlaceHold
from sinks.redis.memory import MemoryHoldStore
from tests.budget_world import NOW_MICROS, TENANT, Events, hold_id, leg

T = TypeVar("T")
GATEWAYS = 2
NOW_MILLIS = NOW_MICROS // 1_000
MUCH_LATER_MICROS = NOW_MICROS + 10**12
HOLDS = tuple(hold_id(number) for number in range(GATEWAYS))
LEGS = ((leg(1, "first"), leg(1, "second")), (leg(1, "second"),))
LIMITS = ("first", "second")
MADE = Events()
PLACED = tuple(MADE.placed(hold, *legs) for hold, legs in zip(HOLDS, LEGS, strict=True))
EXTENDED = tuple(
    extended_event(
        placed, event_id=hold_id(100 + at), occurred_at=NOW_MICROS, actor="test", amount_nano=2, lease_until=NOW_MICROS
    )
    for at, placed in enumerate(PLACED)
)
#: Kind, the hold's number, and the amount on each of its legs.
Entry = tuple[str, int, int]
EVENTS: dict[Entry, BudgetEvent] = {
    (event.kind.value, number, event.legs[0].amount_nano): event
    for number in range(GATEWAYS)
    for event in (
        PLACED[number],
        EXTENDED[number],
        MADE.committed(PLACED[number], 1),
        MADE.committed(EXTENDED[number], 2),
        MADE.released(PLACED[number]),
        MADE.expired(PLACED[number]),
        MADE.expired(EXTENDED[number]),
    )
}
Log = tuple[Entry, ...]
BODIES = tuple(memory._body(placed.legs) for placed in PLACED)
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


class Server(NamedTuple):
    """The live store: its overlay as (gateway, status), extensions in it, and how far the log is applied."""

    generation: int
    is_open: bool
    cursor: int
    overlay: frozenset[tuple[int, str]]
    growth: frozenset[int] = frozenset()


class World(NamedTuple):
    """Gateways as (phase, generation known), the log, the server, faults left."""

    gateways: tuple[tuple[str, int], ...]
    log: Log
    server: Server
    faults: int
    #: What each limit allows.
    limit: int = 1
    #: Gateways whose holds may grow.
    growing: int = 0
    #: By gateway: what its hold held when its lease ended, 0 while it lasts.
    late: tuple[int, ...] = (0,) * GATEWAYS


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
    """The real store in the state of a `Server` that has applied these entries."""

    def __init__(self, server: Server, applied: Log, limit: int) -> None:
        """Bring a fresh store into that state; `limit` is what each limit allows."""
        self.generation, self.cursor = server.generation, server.cursor
        self.store = MemoryHoldStore(lambda: NOW_MILLIS)
        self.store.open_tenant(TENANT, f"run:{server.generation}")
        self.slot = self.store._slots[TENANT]
        self._applied = applied
        self.slot.fold = folded(applied)
        self.slot.is_open = server.is_open
        for number, status in server.overlay:
            self.slot.overlay[HOLDS[number]] = memory._Entry(BODIES[number], memory._Status(status), NOW_MILLIS + 1)
        self.slot.growth = {HOLDS[number]: BODIES[number] for number in server.growth}
        self.limit = limit

    def server(self) -> Server:
        """The state it is in now."""
        overlay = frozenset((HOLDS.index(hold), entry.status.value) for hold, entry in self.slot.overlay.items())
        growth = frozenset(HOLDS.index(hold) for hold in self.slot.growth)
        return Server(self.generation, self.slot.is_open, self.cursor, overlay, growth)

    def place(self, number: int) -> bool:
        """Whether the hold was placed."""
        legs = LEGS[number]
        asked = PlaceHold(TENANT, HOLDS[number], legs, (self.limit,) * len(legs))
        return isinstance(finished(self.store.place(asked)), Placed)

    def extend(self, number: int) -> bool:
        """Whether the hold may hold two."""
        legs = EXTENDED[number].legs
        asked = PlaceHold(TENANT, HOLDS[number], legs, (self.limit,) * len(legs))
        return isinstance(finished(self.store.extend(asked)), Placed)

    def confirm(self, number: int, generation: int) -> bool:
        """Whether the provider may be called."""
        answer = finished(self.store.confirm(TENANT, HOLDS[number], f"run:{generation}"))
        return answer is Confirmation.CONFIRMED

    def apply(self, entry: Entry) -> None:
        """The sink applies one event."""
        self.slot.fold = BudgetFold()
        for before in self._applied:
            self.slot.fold.apply(EVENTS[before])
        self.store.apply(TENANT, EVENTS[entry])
        self.cursor += 1

    def outlive(self, number: int) -> None:
        """The entry's time to live passes."""
        self.slot.overlay[HOLDS[number]].until_millis = 0
        self.store._sweep(self.slot)


class Protocol:
    """The protocol with one rule left out, or none; the real store is asked once per state that it can tell apart.

    Most worlds differ only in what the store does not see: how far gateways are, and what stands behind its cursor.
    """

    def __init__(self, without: str) -> None:
        """Nothing was asked yet."""
        self.without = without
        self._known: dict[tuple[Hashable, ...], tuple[Any, Server]] = {}

    def ask(self, world: World, act: Callable[..., Any], *arguments: Hashable) -> tuple[Any, Server]:
        """What a method of `Live` answers in this world, and the server after it."""
        server = world.server
        state = (server, world.log[: server.cursor], world.limit)
        asked = (act, arguments, state)
        if asked not in self._known:
            live = Live(*state)
            self._known[asked] = (act(live, *arguments), live.server())
        return self._known[asked]


def with_gateway(world: World, number: int, phase: str, known: int) -> World:
    """The world after one gateway's step."""
    gateways = (*world.gateways[:number], (phase, known), *world.gateways[number + 1 :])
    return world._replace(gateways=gateways)


def ending(world: World, number: int) -> World:
    """The gateway's call is over, and charged what it used."""
    phase, known = world.gateways[number]
    log = (*world.log, ("COMMITTED", number, USED[phase]))
    return with_gateway(world, number, "done", known)._replace(log=log)


def gateway_steps(world: World, number: int, protocol: Protocol) -> Iterator[World]:
    """What one gateway may do next."""
    phase, known = world.gateways[number]
    if phase in {"done", "refused", "dead"}:
        return
    if phase == "new" and world.server.is_open:
        placed, server = protocol.ask(world, Live.place, number)
        after = with_gateway(world, number, "placed" if placed else "refused", world.server.generation)
        yield after._replace(server=server)
    elif phase == "placed":
        yield with_gateway(world, number, "acked", known)._replace(log=(*world.log, ("PLACED", number, 1)))
    elif phase == "acked":
        confirmed, server = protocol.ask(world, Live.confirm, number, known)
        if confirmed:
            yield with_gateway(world, number, "called", known)._replace(server=server)
        else:
            yield with_gateway(world, number, "done", known)._replace(log=(*world.log, ("RELEASED", number, 1)))
    if phase in USED:
        # Of a dead one, its spool is claimed by another process, before or after the lease ran out.
        yield ending(world, number)
    if number < world.growing:
        yield from extension_steps(world, number, protocol)
    if world.faults and phase in {"placed", "acked", *USED} and not phase.startswith("dead"):
        dead = {0: "dead", 1: "dead called", 2: "dead grown"}[USED.get(phase, 0)]
        yield with_gateway(world, number, dead, known)._replace(faults=world.faults - 1)


def extension_steps(world: World, number: int, protocol: Protocol) -> Iterator[World]:
    """What a gateway may do next to let its call use two."""
    phase, known = world.gateways[number]
    if phase in {"called", "recorded"}:
        granted, server = protocol.ask(world, Live.extend, number)
        then = ("asked" if phase == "called" else "raised") if granted else "stopped"
        yield with_gateway(world, number, then, world.server.generation)._replace(server=server)
    elif phase == "asked":
        yield with_gateway(world, number, "raised", known)._replace(log=(*world.log, ("EXTENDED", number, 2)))
    elif phase == "raised":
        confirmed, server = protocol.ask(world, Live.confirm, number, known)
        in_time = not world.late[number] or protocol.without == "lease"
        if confirmed and in_time:
            yield with_gateway(world, number, "grown", known)._replace(server=server)
        else:
            yield with_gateway(world, number, "recorded" if protocol.without == "once" else "stopped", known)


def sink_steps(world: World, protocol: Protocol) -> Iterator[World]:
    """What the sink, time and the reaper may do next."""
    server = world.server
    if server.cursor < len(world.log):
        yield world._replace(server=protocol.ask(world, Live.apply, world.log[server.cursor])[1])
    if not server.is_open and (server.cursor == len(world.log) or protocol.without == "barrier"):
        yield world._replace(server=server._replace(is_open=True))
    for number, status in server.overlay:
        if status == "open":
            yield world._replace(server=protocol.ask(world, Live.outlive, number)[1])
    yield from reaper_steps(world)


@lru_cache(maxsize=100_000)
def overdue(log: Log) -> tuple[tuple[int, int], ...]:
    """The holds that the real reaper, caught up, finds open after their lease, and what it would charge."""
    reaper = Reaper()
    state = reaper.initial(0)
    state.fold = folded(log)
    found = []
    for event in reaper.tick(state, MUCH_LATER_MICROS, caught_up=True):
        assert isinstance(event, BudgetEvent)
        found.append((HOLDS.index(event.hold_id), event.legs[0].amount_nano))
    return tuple(found)


def reaper_steps(world: World) -> Iterator[World]:
    """The end of a lease, and EXPIRED for any hold that is open after it."""
    for number, amount in overdue(world.log):
        late = world.late[number]
        if world.growing and not late:
            yield world._replace(late=(*world.late[:number], amount, *world.late[number + 1 :]))
            continue
        # It may have decided before an EXTENDED that came in between.
        for decided in {amount, late or amount}:
            yield world._replace(log=(*world.log, (BudgetKind.EXPIRED.value, number, decided)))


def faults(world: World) -> Iterator[World]:
    """The server is lost, or a replica that lacks the tail takes over; the sink begins a generation, closed."""
    if world.faults:
        for back in range(world.server.cursor + 1):
            server = Server(world.server.generation + 1, is_open=False, cursor=back, overlay=frozenset())
            yield world._replace(server=server, faults=world.faults - 1)


def steps(world: World, protocol: Protocol) -> Iterator[World]:
    """Everything that may happen next."""
    for number in range(GATEWAYS):
        yield from gateway_steps(world, number, protocol)
    yield from sink_steps(world, protocol)
    yield from faults(world)


def committed(log: Log, number: int) -> int:
    """What a call was charged by its gateway, 0 for nothing yet."""
    return next((amount for kind, of, amount in log if (kind, of) == ("COMMITTED", number)), 0)


def expired(log: Log, number: int) -> int:
    """What the reaper charged first."""
    return next((amount for kind, of, amount in log if (kind, of) == ("EXPIRED", number)), 0)


def broken_now(world: World) -> str:
    """A promise that is broken in this state."""
    used = [USED.get(phase, 0) or committed(world.log, number) for number, (phase, _) in enumerate(world.gateways)]
    for name in LIMITS:
        on_it = [number for number in range(GATEWAYS) if any(one.limit_id == name for one in LEGS[number])]
        if sum(used[number] for number in on_it) > world.limit:
            return "overspend"
    return ""


def broken_at_the_end(world: World) -> str:
    """A promise that is broken when nothing more can happen."""
    fold = folded(world.log)
    pending = [number for number, status in world.server.overlay if status != "dropped"] + [*world.server.growth]
    if any(sums.held_nano for sums in fold.sums.values()) or fold.open_holds or pending:
        return "leak"
    charged = [committed(world.log, number) or expired(world.log, number) for number in range(GATEWAYS)]
    if any(USED.get(phase, 0) > charged[number] for number, (phase, _) in enumerate(world.gateways)):
        return "uncharged call"
    due = Counter[str]()
    for number, amount in enumerate(charged):
        due.update({one.limit_id: amount for one in LEGS[number] if amount})
    posted = {counter.limit_id: sums.posted_nano for counter, sums in fold.sums.items() if sums.posted_nano}
    return "" if posted == due else "charged twice"


def search(faults_max: int, without: str = "", *, limit: int = 1, growing: int = 0) -> tuple[str, int]:
    """The first broken promise, empty when none is, and how many states were seen."""
    nothing = Server(0, is_open=True, cursor=0, overlay=frozenset())
    start = World((("new", 0),) * GATEWAYS, (), nothing, faults_max, limit, growing)
    protocol = Protocol(without)
    seen, queue = {start}, deque([start])
    while queue:
        world = queue.popleft()
        following = list(steps(world, protocol))
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


def test_no_order_of_extensions_breaks_a_promise() -> None:
    """Two gateways, two units, a hold that grows, a death or a loss: every state is visited."""
    problem, states = search(faults_max=1, limit=2, growing=1)
    assert problem == ""
    assert states > 110_000


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


@pytest.mark.parametrize("rule", ["lease", "once", "generation", "barrier"])
def test_each_rule_of_extensions_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the search finds an overspend."""
    if rule == "generation":
        monkeypatch.setattr(MemoryHoldStore, "confirm", confirm_any_generation)
    problem, _ = search(faults_max=1, without=rule, limit=2, growing=1)
    assert problem == "overspend"


def test_an_open_hold_is_what_the_reaper_looks_at() -> None:
    """The model's events are those of the product."""
    assert isinstance(folded((("PLACED", 0, 1),)).status(HOLDS[0]), OpenHold)
