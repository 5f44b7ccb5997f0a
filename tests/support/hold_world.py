"""Two gateways, two tenants, a log of each, a sink and a reaper: what may happen to holds, judged after every step.

Gateways keep to docs/concepts/budgets.md; the store, the sink, the reaper, the fold and the events are the product's.
`Fate` says what becomes of a question or an event on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from processors.budgets import BudgetState, evolve, extended_event
from processors.reaper import Reaper, ReaperState
from schemas.events import BudgetEvent, HoldLeg
from schemas.ids import uuid7
from sinks.redis.holds import Closed, Confirmation, Conflict, Gone, HoldStore, Placed, PlaceHold, Refused
from tests.budget_world import LEASE_MICROS, Events, leg
from tests.support.hold_auditor import Answer, AuditError, Auditor
from tests.support.hold_book import Fact, Legs, nonzero
from tests.support.hold_grounds import Ground

T = TypeVar("T")
GATEWAYS = 2
#: Of two partitions.
TENANTS = ("acme", "globex")
#: The second counts by the day.
LIMITS = {"tenant_total": 60, "key_day": 40}
DAY_MICROS = 86_400_000_000
#: Lease, clock skew and spool grace, and more.
REAPED_MICROS = LEASE_MICROS + 120_000_000
CALM_ROUNDS = 4
#: More than any limit has.
TOO_MUCH = 10_000


class Fate(StrEnum):
    """Of something that is sent."""

    HEARD = "heard"
    ANSWER_LOST = "answer lost"
    NEVER_THERE = "never there"


class Phase(StrEnum):
    """How far a gateway is with a call."""

    ASKING = "asking"
    PLACED = "placed"
    ACKED = "acked"
    CALLED = "called"
    #: An extension was granted; its EXTENDED is in the log; nothing more will be asked for.
    GROWING = "growing"
    RAISED = "raised"
    FIXED = "fixed"
    #: To be released.
    FAILED = "failed"
    DONE = "done"
    DEAD = "dead"


@dataclass(slots=True)
class Call:
    """What a gateway knows of one attempt."""

    tenant_id: str
    gateway: int
    hold_id: str
    legs: tuple[HoldLeg, ...]
    phase: Phase = Phase.ASKING
    generation: str = ""
    #: What it stands by: its PLACED, or the EXTENDED that the log may have.
    placed: BudgetEvent | None = None
    #: An extension that was granted.
    extended: BudgetEvent | None = None
    #: What the caller may use.
    granted: int = 0

    @property
    def standing(self) -> BudgetEvent:
        """What it stands by."""
        assert self.placed is not None
        return self.placed


@dataclass(slots=True)
class Tenant:
    """A tenant's log and who follows it."""

    auditor: Auditor
    reaper: ReaperState
    log: list[BudgetEvent] = field(default_factory=list)
    state: BudgetState = field(default_factory=BudgetState)
    #: EXPIRED that the reaper decided and that are not in the log yet.
    decided: list[BudgetEvent] = field(default_factory=list)


class HoldWorld:
    """All of it on one ground."""

    def __init__(self, ground: Ground) -> None:
        """Slots are there, and admission is open."""
        self._loop = asyncio.new_event_loop()
        self._ground = ground
        self._now, self._made = ground.now_micros, 0
        self.calls: list[Call] = []
        #: By gateway: events that its spool has and the log may lack.
        self.spools: list[list[BudgetEvent]] = [[] for _ in range(GATEWAYS)]
        #: Whether gateways have not looked at the gates since something happened to them.
        self._stale = False
        self._reaper = Reaper()
        self.tenants = {each: Tenant(Auditor(LIMITS), self._reaper.initial(0)) for each in TENANTS}
        self._events = {each: Events(each, self._now) for each in TENANTS}
        self._run(ground.start({name: tenant.log for name, tenant in self.tenants.items()}))
        self._look()
        self.learn()

    # Gateways.

    def ask(self, tenant_id: str, gateway: int, shape: Sequence[str], amount: int, fate: Fate) -> None:
        """A request comes in."""
        day = self._now // DAY_MICROS * DAY_MICROS
        windows = {"tenant_total": (0, 0), "key_day": (day, day + DAY_MICROS)}
        call = Call(tenant_id, gateway, self._new_id(), tuple(leg(amount, name, windows[name]) for name in shape))
        self.calls.append(call)
        self.place(call, fate)

    def place(self, call: Call, fate: Fate, legs: tuple[HoldLeg, ...] | None = None) -> None:
        """Ask for a hold, perhaps once more, perhaps with another body."""
        asked = _asked(call, legs or call.legs)
        said = self._said(fate, self._store(call).place(asked))
        if said is None:
            return
        heard = fate is Fate.HEARD
        self._auditor(call).place(call.hold_id, words(asked.legs), answer_of(said), heard=heard, stale=self._stale)
        if heard and legs is None and call.phase is Phase.ASKING:
            call.phase = Phase.PLACED if isinstance(said, Placed) else Phase.DONE
            call.generation = said.generation if isinstance(said, Placed) else ""

    def place_otherwise(self, call: Call) -> None:
        """Ask with another body, where the store knows the hold for certain."""
        if self._auditor(call).is_known(call.hold_id):
            self.place(call, Fate.HEARD, tuple(msgspec.structs.replace(each, amount_nano=7) for each in call.legs))

    def record_placed(self, call: Call, fate: Fate) -> None:
        """PLACED is sent; without an acknowledgement the call is given up."""
        made = self._events[call.tenant_id].placed(call.hold_id, *call.legs, generation=call.generation)
        call.placed = msgspec.structs.replace(made, occurred_at=self._now, lease_until=self._now + LEASE_MICROS)
        self._send(call, call.placed, fate)
        call.phase = Phase.ACKED if fate is Fate.HEARD else Phase.FAILED

    def confirm(self, call: Call, fate: Fate) -> None:
        """What is in the log is confirmed, before the provider is called or more text goes out."""
        said = self._said(fate, self._store(call).confirm(call.tenant_id, call.hold_id, call.generation))
        heard = fate is Fate.HEARD
        if said is not None:
            answer = answer_of(said)
            self._auditor(call).confirm(call.hold_id, call.generation, answer, heard=heard, stale=self._stale)
        confirmed = heard and said is Confirmation.CONFIRMED
        if call.phase is Phase.ACKED:
            self._go_on(call, Phase.CALLED if confirmed else Phase.FAILED, confirmed)
        else:
            # What can't be counted on is not asked for again.
            in_time = confirmed and self._now < (call.standing.lease_until or 0)
            self._go_on(call, Phase.CALLED if in_time else Phase.FIXED, in_time)

    def extend(self, call: Call, more: int, fate: Fate) -> None:
        """A stream needs more than it holds."""
        extended = extended_event(
            call.standing,
            event_id=self._new_id(),
            occurred_at=self._now,
            actor="test",
            amount_nano=call.granted + more,
            lease_until=call.standing.lease_until or 0,
        )
        asked = _asked(call, extended.legs)
        said = self._said(fate, self._store(call).extend(asked))
        if said is None:
            return
        heard = fate is Fate.HEARD
        self._auditor(call).extend(call.hold_id, words(asked.legs), answer_of(said), heard=heard, stale=self._stale)
        if heard and isinstance(said, Placed):
            call.phase, call.extended, call.generation = Phase.GROWING, extended, said.generation

    def record_extended(self, call: Call, fate: Fate) -> None:
        """EXTENDED is sent; from here it is what the hold stands by."""
        assert call.extended is not None
        self._send(call, call.extended, fate)
        call.placed, call.phase = call.extended, Phase.RAISED if fate is Fate.HEARD else Phase.FIXED

    def commit(self, call: Call, half_used: int, fate: Fate) -> None:
        """The call is over and charged for so many halves of what it might use."""
        self._send(call, self._events[call.tenant_id].committed(call.standing, call.granted * half_used // 2), fate)
        call.phase = Phase.DONE

    def release(self, call: Call, fate: Fate) -> None:
        """The provider was not called, or used nothing."""
        self._auditor(call).released(call.hold_id)
        self._send(call, self._events[call.tenant_id].released(call.standing), fate)
        call.phase = Phase.DONE

    def crash(self, gateway: int) -> None:
        """SIGKILL: what it had under way is nobody's; what is in its spool stays."""
        for call in self.calls:
            if call.gateway == gateway and call.phase is not Phase.DONE:
                call.phase = Phase.DEAD

    def drain(self, gateway: int, events: int, *, again: bool) -> None:
        """Somebody drains a spool, and may die before it is emptied: then it is drained again."""
        spool = self.spools[gateway]
        for event in spool[:events]:
            self._record(event)
        if not again:
            del spool[:events]

    def learn(self) -> None:
        """Gateways look at the gates."""
        for gateway in range(GATEWAYS):
            self._run(self._ground.learn(gateway))
        self._stale = False

    # The log, the sink and its server.

    def produce_again(self, tenant_id: str, number: int) -> None:
        """An event is produced a second time, long after it."""
        log = self.tenants[tenant_id].log
        if log:
            self._record(log[-1 - number % len(log)])

    def apply(self, tenant_id: str, events: int) -> None:
        """The sink reads on; 0 events are a heartbeat."""
        self._run(self._ground.apply(tenant_id, events) if events else self._ground.beat(tenant_id))
        self._look()

    def replace_sink(self, tenant_id: str, *, in_the_middle: bool) -> None:
        """Another process owns the partition, and may read again what is applied."""
        self._run(self._ground.replace_sink(tenant_id, in_the_middle=in_the_middle))
        self._look()

    def keep(self) -> None:
        """A replica and a snapshot are as far as this."""
        self._run(self._ground.keep())

    def lose(self, *, older: bool) -> None:
        """Everything is lost, or an older server takes over."""
        self._stale = True
        for tenant in self.tenants.values():
            tenant.auditor.lost()
        self._run(self._ground.fail_over() if older else self._ground.lose())
        self._look()

    # Time.

    def pass_overlay_time(self) -> None:
        """Whatever is not pinned may fall away."""
        for tenant in self.tenants.values():
            tenant.auditor.time_passed()
        self._run(self._ground.pass_overlay_time())

    def pass_leases(self) -> None:
        """Leases end, and the reaper notices; its EXPIRED are on their way."""
        self._now += REAPED_MICROS
        for tenant in self.tenants.values():
            found = self._reaper.tick(tenant.reaper, self._now, caught_up=True)
            tenant.decided += [event for event in found if isinstance(event, BudgetEvent)]

    def reap(self) -> None:
        """Leases end, and every EXPIRED is in the log at once."""
        self.pass_leases()
        for tenant_id, tenant in self.tenants.items():
            for _ in range(len(tenant.decided)):
                self.record_expired(tenant_id, 0)

    def next_day(self) -> None:
        """Another window of the daily limit."""
        self._now += DAY_MICROS

    def record_expired(self, tenant_id: str, number: int) -> None:
        """An EXPIRED comes into the log, perhaps long after it was decided."""
        decided = self.tenants[tenant_id].decided
        if decided:
            self._record(decided.pop(number % len(decided)))

    # The end.

    def end(self) -> None:
        """Calm down, and be judged: gateways die, spools are drained, leases end, the sink reads all there is."""
        for gateway, spool in enumerate(self.spools):
            self.crash(gateway)
            self.drain(gateway, len(spool), again=False)
        for _ in range(CALM_ROUNDS):
            self.reap()
            for tenant_id, tenant in self.tenants.items():
                self.apply(tenant_id, 0)
                self.apply(tenant_id, len(tenant.log))
        self.learn()
        self.pass_overlay_time()
        for tenant_id, tenant in self.tenants.items():
            self._probe(tenant_id)
            tenant.auditor.ended(self._run(self._ground.view(tenant_id)))
            _demand_one_rule(tenant)

    def close(self) -> None:
        """Let go of everything."""
        self._run(self._ground.stop())
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)

    def _said(self, fate: Fate, question: Coroutine[Any, Any, T]) -> T | None:
        """What the store says; None when it is never asked."""
        if fate is Fate.NEVER_THERE:
            question.close()
            return None
        return self._run(question)

    def _new_id(self) -> str:
        self._made += 1
        return uuid7(self._ground.now_micros, self._made.to_bytes(10, "big"))

    def _auditor(self, call: Call) -> Auditor:
        return self.tenants[call.tenant_id].auditor

    def _store(self, call: Call) -> HoldStore:
        return self._ground.store(call.gateway)

    def _go_on(self, call: Call, phase: Phase, is_granted: bool) -> None:
        call.phase = phase
        if is_granted:
            call.granted = call.standing.legs[0].amount_nano
            self._auditor(call).granted(call.hold_id, words(call.standing.legs))

    def _send(self, call: Call, event: BudgetEvent, fate: Fate) -> None:
        """Into the log; without an acknowledgement it is in the spool as well, unless it only begins something."""
        if fate is not Fate.NEVER_THERE:
            self._record(event)
        if fate is not Fate.HEARD and event is not call.placed:
            self.spools[call.gateway].append(event)

    def _record(self, event: BudgetEvent) -> None:
        tenant = self.tenants[event.tenant_id]
        tenant.log.append(event)
        tenant.auditor.recorded(Fact(event.kind.value, event.hold_id, words(event.legs)))
        self._reaper.evolve(tenant.reaper, event)
        tenant.state = evolve(tenant.state, event)

    def _look(self) -> None:
        for tenant_id, tenant in self.tenants.items():
            was_open = tenant.auditor.is_open
            tenant.auditor.seen(self._run(self._ground.view(tenant_id)))
            self._stale |= tenant.auditor.is_open is not was_open

    def _probe(self, tenant_id: str) -> None:
        """Too much is asked for, so that what waits in vain is swept; then a unit more than is left."""
        auditor = self.tenants[tenant_id].auditor
        left = max(0, LIMITS["tenant_total"] - auditor.whole.posted()["tenant_total|USD|0|0"])
        for amount in (TOO_MUCH, left + 1):
            asked = PlaceHold(tenant_id, self._new_id(), (leg(amount),), (LIMITS["tenant_total"],))
            said = answer_of(self._run(self._ground.store(0).place(asked)))
            auditor.place(asked.hold_id, words(asked.legs), said)
        if said != Answer("refused", "tenant_total", left):
            raise AuditError(f"{left} are left, and one more is {said}")


def words(legs: Sequence[HoldLeg]) -> Legs:
    """Legs as the auditor reads them."""
    return tuple(
        (f"{each.limit_id}|{each.currency}|{each.window_start}|{each.window_end}", each.amount_nano) for each in legs
    )


def answer_of(said: object) -> Answer:
    """What a store said, as the auditor reads it."""
    if isinstance(said, Refused):
        return Answer("refused", said.limit_id, said.remaining_nano)
    if isinstance(said, Confirmation):
        return Answer(said.value.lower())
    names = {Placed: "placed", Closed: "closed", Conflict: "conflict", Gone: "gone"}
    return Answer(names[type(said)])


def _asked(call: Call, legs: tuple[HoldLeg, ...]) -> PlaceHold:
    return PlaceHold(call.tenant_id, call.hold_id, legs, tuple(LIMITS[each.limit_id] for each in legs))


def _demand_one_rule(tenant: Tenant) -> None:
    """The product's `evolve` says of the whole log what the auditor says."""
    book, sums = tenant.auditor.whole, tenant.state.sums.items()
    posted = nonzero({str(counter): each.posted_nano for counter, each in sums})
    held = nonzero({str(counter): each.held_nano for counter, each in sums})
    assert (posted, held) == (nonzero(book.posted()), nonzero(book.held()))
