"""The hold protocol as a state machine of Hypothesis: everything that may happen to a HoldWorld, in any order.

Gateways ask, repeat themselves, lose answers, stand still for as long as they like, die at any step, and leave events
in spools that are drained late and twice. The sink reads a little, dies, and finds its server lost or older than it
was; leases end and the reaper says so, sooner or later; days go by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.support.hold_grounds import Ground
from tests.support.hold_world import GATEWAYS, TENANTS, Call, Fate, HoldWorld, Phase
from tests.support.simulation_run import simulate

STEPS = 60
NUMBERS = st.integers(0, 11)
#: Most is done for one tenant by one gateway: what they do to each other matters more than that there are many.
TENANT_IDS = st.sampled_from((TENANTS[0],) * 3 + TENANTS[1:])
AMOUNTS = st.sampled_from((10, 20, 30, 40))
SHAPES = st.sampled_from((("tenant_total",), ("key_day",), ("tenant_total", "key_day"), ("key_day", "tenant_total")))
FATES = st.sampled_from((Fate.HEARD,) * 6 + (Fate.ANSWER_LOST, Fate.NEVER_THERE))
#: What a gateway may do next; the first is the way of an ordinary call.
STEPS_OF: dict[Phase, tuple[str, ...]] = {
    Phase.ASKING: ("place again",),
    Phase.PLACED: ("record placed", "record placed", "place again"),
    Phase.ACKED: ("confirm", "confirm", "confirm", "place again"),
    Phase.CALLED: ("extend", "commit", "extend", "release"),
    Phase.GROWING: ("record extended", "record extended", "commit"),
    Phase.RAISED: ("confirm", "confirm", "commit"),
    Phase.FIXED: ("commit", "release"),
    Phase.FAILED: ("release",),
}


class HoldMachine(RuleBasedStateMachine):
    """One world; a subclass says where it runs."""

    ground_type: ClassVar[Callable[[], Ground]]

    @initialize()
    def begin(self) -> None:
        """Slots are there, and admission is open."""
        self.world = HoldWorld(self.ground_type())

    @rule(tenant_id=TENANT_IDS, gateway=st.integers(0, GATEWAYS - 1), shape=SHAPES, amount=AMOUNTS, fate=FATES)
    def ask(self, tenant_id: str, gateway: int, shape: tuple[str, ...], amount: int, fate: Fate) -> None:
        """A request comes in."""
        self.world.ask(tenant_id, gateway, shape, amount, fate)

    @precondition(lambda self: self._under_way())
    @rule(number=NUMBERS, step=st.integers(0, 3), amount=st.sampled_from((10, 20)), fate=FATES)
    def go_on(self, number: int, step: int, amount: int, fate: Fate) -> None:
        """A gateway takes the next step of a call, whatever has happened meanwhile."""
        calls = self._under_way()
        self._take(calls[number % len(calls)], step, amount, fate)

    @precondition(lambda self: self._under_way())
    @rule(number=NUMBERS, steps=st.integers(2, 6))
    def go_far(self, number: int, steps: int) -> None:
        """The next steps of a call, undisturbed."""
        calls = self._under_way()
        call = calls[number % len(calls)]
        for _ in range(steps):
            if call.phase in STEPS_OF:
                self._take(call, 0, 10, Fate.HEARD)

    @precondition(lambda self: self.world.calls)
    @rule(number=NUMBERS)
    def place_otherwise(self, number: int) -> None:
        """Another body under the id of a hold."""
        self.world.place_otherwise(self.world.calls[-1 - number % len(self.world.calls)])

    @rule(tenant_id=TENANT_IDS, events=st.sampled_from((0, 1, 2, 3, 10)))
    def apply(self, tenant_id: str, events: int) -> None:
        """The sink reads on, or beats."""
        self.world.apply(tenant_id, events)

    @rule(tenant_id=TENANT_IDS)
    def catch_up(self, tenant_id: str) -> None:
        """The sink notices what is lost, learns where the log ends, and reads all of it; gateways learn of it."""
        self._catch_up(tenant_id)

    @rule(
        what=st.sampled_from(("overlay", "leases", "day", "expired", "reaped", "reaped")),
        tenant_id=TENANT_IDS,
        number=NUMBERS,
    )
    def pass_time(self, what: str, tenant_id: str, number: int) -> None:
        """Holds that are not pinned may fall away, leases end, another day begins, the reaper's word is in the log."""
        world = self.world
        ways = {
            "overlay": world.pass_overlay_time,
            "day": world.next_day,
            "leases": world.pass_leases,
            "reaped": world.reap,
        }
        if what == "expired":
            world.record_expired(tenant_id, number)
        else:
            ways[what]()

    @rule(tenant_id=TENANT_IDS, gateway=st.integers(0, GATEWAYS - 1), number=NUMBERS, what=st.integers(0, 3))
    def repeat(self, tenant_id: str, gateway: int, number: int, what: int) -> None:
        """A spool is drained, perhaps to be drained again, or an event is produced twice."""
        if what and self.world.spools[gateway]:
            self.world.drain(gateway, 1 + number % 3, again=what == 1)
        else:
            self.world.produce_again(tenant_id, number)

    @rule(
        what=st.sampled_from(("crash", "sink", "sink in the middle", "keep", "lose", "fail over", "lose and recover")),
        number=NUMBERS,
    )
    def disturb(self, what: str, number: int) -> None:
        """A gateway or the sink is killed, the server is lost or gives way to an older one."""
        if what == "crash":
            self.world.crash(number % GATEWAYS)
        elif what == "keep":
            self.world.keep()
        elif what in {"lose", "fail over"}:
            self.world.lose(older=what == "fail over")
        elif what == "lose and recover":
            self.world.lose(older=False)
            for tenant_id in TENANTS:
                self._catch_up(tenant_id)
        else:
            self.world.replace_sink(TENANTS[number % len(TENANTS)], in_the_middle=what != "sink")

    def teardown(self) -> None:
        """Calm down, and be judged."""
        if not hasattr(self, "world"):
            return
        try:
            self.world.end()
        finally:
            self.world.close()

    def _catch_up(self, tenant_id: str) -> None:
        for events in (0, 0, len(self.world.tenants[tenant_id].log)):
            self.world.apply(tenant_id, events)
        self.world.learn()

    def _under_way(self) -> list[Call]:
        """The newest first."""
        return [call for call in reversed(self.world.calls) if call.phase in STEPS_OF]

    def _take(self, call: Call, step: int, amount: int, fate: Fate) -> None:
        world, steps = self.world, STEPS_OF[call.phase]
        ways: dict[str, Callable[[], None]] = {
            "place again": lambda: world.place(call, fate),
            "record placed": lambda: world.record_placed(call, fate),
            "confirm": lambda: world.confirm(call, fate),
            "extend": lambda: world.extend(call, amount, fate),
            "record extended": lambda: world.record_extended(call, fate),
            "commit": lambda: world.commit(call, step % 4, fate),
            "release": lambda: world.release(call, fate),
        }
        ways[steps[step % len(steps)]]()


def machine_on(ground: Callable[[], Ground]) -> type[HoldMachine]:
    """The machine on this ground."""
    return type("Holds", (HoldMachine,), {"ground_type": staticmethod(ground)})


def audited(machine: type[HoldMachine], examples: int, number: int, path: str, *, shortens: bool = True) -> None:
    """Run it; a failure says how it is replayed."""
    try:
        simulate(machine, examples, number, STEPS, shortens=shortens)
    except Exception as error:
        error.add_note(f"replay: HOLD_SEED={number} HOLD_EXAMPLES={examples} python -m pytest {path}")
        raise
