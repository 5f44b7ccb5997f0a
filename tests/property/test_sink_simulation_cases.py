"""What the simulation found in the sinks, kept step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from schemas.topics import BUDGETS
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.plans import Draft, Known, Planned
from sinks.redis.keys import gate_key, slot_keys, tenants_key
from streams.log import Partition
from tests.support.simulation import Simulation
from tests.support.simulation_log import TENANTS, Kind
from tests.support.simulation_run import machine_of
from tests.support.simulation_stores import ClickHouseBench, MemoryBench, RedisBench

FAULTS = sorted(("keep", "fail over", "flush", "restart", "spoil a snapshot"))
PLANNED = Partition("quaestor.costs", 0)


@pytest.fixture
def redis() -> Iterator[Simulation]:
    """A partition of budgets with one event, its slot written, its gate not told."""
    structlog.configure(processors=[_drop])
    machine = machine_of(RedisBench)()
    machine.begin(records=0)
    machine.produce(partition=0, kind=Kind.EVENT, picks=[0])
    machine.write(process=0, records=1)
    (apply,) = machine.wire.calls
    machine._finish(apply)
    assert ["apply", "gate_write"] == [apply.what, machine.wire.calls[0].what]
    yield machine
    structlog.reset_defaults()


def _drop(_logger: Any, _name: str, _fields: Any) -> Any:
    raise structlog.DropEvent


def test_a_gate_hears_of_a_slot_though_the_first_telling_was_lost(redis: Simulation) -> None:
    """Else `verify budgets`, which asks the gates for tenants, would pass over one of them."""
    redis.lose(call=0, is_executed=False)
    redis.write_through(process=0, records=1)
    redis.beat(process=0)

    assert TENANTS[0] in redis.bench.server.hashes[tenants_key(0)]
    redis.teardown()


def test_a_slot_that_no_gate_knows_does_not_hold_its_partition(redis: Simulation) -> None:
    """Redis starts again between slot and gate: the slot is of an older generation, and nobody remembers its tenant."""
    redis.spoil(fault=FAULTS.index("restart"))
    redis.teardown()

    assert 1 == redis.bench.cursors()[Partition(BUDGETS.name, 0)]


def test_an_owner_that_dies_while_it_restores_is_followed_by_one_that_begins_again(redis: Simulation) -> None:
    """The slot is half there, the gate says so: nobody opens it, and in the end it is the fold."""
    redis._deliver_all()
    redis.spoil(fault=FAULTS.index("flush"))
    redis.processes[0].claim([Partition(BUDGETS.name, 0)])
    redis.loop.settle()
    hashes, state = redis.bench.server.hashes, slot_keys(TENANTS[0]).state
    while "restoring" not in hashes.get(state, {}):
        redis._finish(redis.wire.calls[0])
    assert "1" == hashes[gate_key(0)]["rebuilding"]
    redis.crash(process=0)

    redis.teardown()
    assert redis.bench.server.hashes[gate_key(0)]["open"] == "1"


def behind_a_discarded_record(bench: type[MemoryBench]) -> Simulation:
    """A record of a key whose record before was set aside and discarded, which its owner has not heard."""
    machine = machine_of(bench)()
    machine.begin(records=1)
    machine.produce(partition=0, kind=Kind.UNDECODABLE, picks=[1])
    machine.write_through(process=0, records=8)
    machine.discard(letter=0)
    machine.produce(partition=0, kind=Kind.EVENT, picks=[1])
    return machine


def test_what_an_owner_parks_behind_a_discarded_record_is_applied() -> None:
    """The owner has not heard of the discard; the record it parks is nobody's follower any more, yet it must go."""
    machine = behind_a_discarded_record(MemoryBench)
    machine.write_through(process=0, records=8)

    machine.teardown()


def test_what_was_set_aside_above_the_cursor_is_read_before_it_is_redriven() -> None:
    """An owner parks a record behind a discarded one and dies before the cursor passes it: it is asked for already."""
    machine = behind_a_discarded_record(ClickHouseBench)
    machine.write(process=0, records=8)
    machine.deliver(call=0, steps=1)
    machine.crash(process=0)
    assert [1, 2] == sorted(row.event.source_offset for row in machine.bench.quarantine.rows.values())
    machine._deliver_all()
    machine.tend(process=2, is_undisturbed=True)

    machine.teardown()


def test_a_process_that_stood_still_behind_its_plan_inserts_nothing_of_it() -> None:
    """Its successor inserted the plan so long ago that no token is left: the plan is asked for again, and is fenced."""
    machine = machine_of(ClickHouseBench)()
    machine.begin(records=3)
    machine.write(process=0, records=3)
    (plan,) = machine.wire.calls
    machine._oversleep(plan, machine.processes[1])
    assert 3 == len(machine.bench.server.rows)

    machine.write_through(process=0, records=3)
    machine.teardown()


async def test_a_settlement_that_arrives_late_moves_nothing() -> None:
    """A cancelled write's settlement comes in while the next plan is open: that one stays open, the cursor stays."""
    store = MemoryPlanStore()
    held = await store.claim("p@v1", [PLANNED], {PLANNED.topic: "id"})
    epochs = {PLANNED: held[PLANNED].epoch}
    first = await store.plan("p@v1", [draft(0, 3)], epochs)
    assert isinstance(first, Planned)
    await store.settle("p@v1", first.plans, epochs)
    second = await store.plan("p@v1", [draft(3, 6)], epochs)
    assert isinstance(second, Planned)

    await store.settle("p@v1", first.plans, epochs)

    assert [second.plans[0].token] == [plan.token for plan in await store.left_open("p@v1", [PLANNED])]
    await store.settle("p@v1", second.plans, epochs)
    assert {PLANNED: 6} == await store.cursors("p@v1")


def draft(first: int, after: int) -> Draft:
    """A span to be planned."""
    events = [Known("acme", f"event-{offset}", 0, offset, b"hash") for offset in range(first, after)]
    return Draft(PLANNED, "id", first, after, events)
