"""The state machine of holds on a real Valkey: the Lua, the sink, its snapshots and the gateways' store are real.

A failure prints its steps as they were, and the line that replays them: to shorten them would take many minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest

from sinks.redis.sink import RedisSink
from tests.support.hold_auditor import AuditError
from tests.support.hold_ground_valkey import ValkeyGround
from tests.support.hold_machine import STEPS, audited, machine_on
from tests.support.hold_mutants import NO_TOMBSTONE, SCRIPTS, changed
from tests.support.hold_world import TENANTS, Fate, HoldWorld
from tests.support.simulation_run import simulate
from tests.valkey import Valkey, running

SEED = int(os.environ.get("HOLD_SEED", "20261121"))
EXAMPLES = int(os.environ.get("HOLD_EXAMPLES", "30"))
MUTANT_EXAMPLES = 200


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """One server; every example empties it."""
    with running() as server:
        yield server


class Broken(ValkeyGround):
    """A ground of which one script is changed."""

    def __init__(self, valkey: Valkey, name: str, old: str, new: str) -> None:
        """Nothing but that."""
        super().__init__(valkey)
        self._changed = changed(name, old, new)
        for store in self._stores if name != "apply" else ():
            setattr(store, f"_{name}", self._changed)

    async def _new_sink(self) -> RedisSink:
        sink = await super()._new_sink()
        if self._changed.name == "apply":
            sink._slots._apply = self._changed
        return sink


def test_every_answer_is_allowed_on_a_real_server(valkey: Valkey) -> None:
    """With FLUSHALL, restarts from an older file, snapshots, and sinks that die between slots and gate."""
    machine = machine_on(partial(ValkeyGround, valkey))
    audited(machine, EXAMPLES, SEED, "tests/gateway/test_hold_machine_valkey.py", shortens=False)


def fall_away(ground: ValkeyGround) -> None:
    """A hold falls away, another takes its room, and both are confirmed: too rare for chance."""
    world = HoldWorld(ground)
    try:
        for _ in range(2):
            world.ask(TENANTS[0], 0, ("tenant_total",), 40, Fate.HEARD)
            world.record_placed(world.calls[-1], Fate.HEARD)
            world.pass_overlay_time()
        for call in reversed(world.calls):
            world.confirm(call, Fate.HEARD)
        world.end()
    finally:
        world.close()


def test_a_forgotten_tombstone_is_caught(valkey: Valkey) -> None:
    """The same steps are sound on the script as it is."""
    fall_away(ValkeyGround(valkey))
    with pytest.raises(AuditError, match="overspend: 80 of 60"):
        fall_away(Broken(valkey, *NO_TOMBSTONE))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_breaks_a_rule_is_caught(valkey: Valkey, name: str) -> None:
    """Otherwise the machine would see nothing of the Lua."""
    with pytest.raises(AuditError):
        simulate(machine_on(partial(Broken, valkey, *SCRIPTS[name])), MUTANT_EXAMPLES, 1, STEPS, shortens=False)
