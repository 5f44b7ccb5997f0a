"""Every script touches keys of one hash slot, or a cluster would refuse it: they have the same part in braces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from processors.budgets.live import MINUTE_DIGITS, Ended, LiveTenant
from schemas.events import HealthState, ProviderHealth
from schemas.ids import derived_id
from schemas.topics import HEALTH
from sinks.redis.client import RedisClient
from sinks.redis.connection import Argument
from sinks.redis.fullness import Fullness
from sinks.redis.gate import Gates
from sinks.redis.health import HealthWriter
from sinks.redis.keys import Names, SlotKeys
from sinks.redis.reads import RedisReads
from sinks.redis.restore import AppliedState, Restorer
from sinks.redis.scripts import BEGINNINGS, FOLDER, Script
from sinks.redis.slot_event import SlotEvent
from sinks.redis.slots import Ownership, Slots
from sinks.redis.store import RedisHoldStore
from sinks.runner.seam import Decoded, Span
from streams.log import LogRecord, Partition
from tests.budget_world import NOW_MICROS, TENANT, ask, hold_id
from tests.support.stories import START_MICROS, TOPIC_ID

HOUR_MICROS = 3_600_000_000
URL = "redis://127.0.0.1:1"
OWNER = Ownership(1, "run:1", TOPIC_ID, is_open=True)
#: Holds whose ids are of different hours, and so of different keys.
HOLDS = [hold_id(number, NOW_MICROS + number * HOUR_MICROS) for number in range(3)]
#: What a server answers when all is well.
ANSWERS: dict[str, Any] = {
    "apply": [b"K", b"1"],
    "confirm": b"K",
    "extend": [b"P"],
    "gate_claim": [b"1", b"", b"", b"", b"", b"", []],
    "gate_generation": [b"K", b"run:1"],
    "gate_read": [b"run:1", b"1", b"0"],
    "gate_write": [b"K", b"1"],
    "health": [b"K", b"1"],
    "health_claim": [b"1", b"0", b""],
    "place": [b"P"],
    "restore": [b"K", b""],
    "slot": [b"K", b"", b""],
    "tenant_read": [[], [], []],
}


def tag(key: str) -> str:
    """What a cluster hashes of a key: between the first brace and the next one that closes, unless that is nothing."""
    _, opened, rest = key.partition("{")
    inside, closed, _ = rest.partition("}")
    return inside if opened and closed and inside else key


class Calls:
    """The keys each script was given, in the order of the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for every server."""
        self.keys: list[tuple[str, tuple[str, ...]]] = []
        calls = self.keys

        async def evaluate(_: RedisClient, program: Script, keys: tuple[str, ...], __: tuple[Argument, ...]) -> Any:
            calls.append((program.name, keys))
            return ANSWERS[program.name]

        async def fullness(_: RedisClient) -> Fullness:
            return Fullness(0, 0)

        monkeypatch.setattr(RedisClient, "evaluate", evaluate)
        monkeypatch.setattr(RedisClient, "fullness", fullness)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """No script was called."""
    return Calls(monkeypatch)


def client() -> RedisClient:
    """One that is never connected."""
    return RedisClient(URL)


async def use_slots() -> None:
    """Claim a tenant's slot and write to it."""
    slots = Slots(client())
    events = [SlotEvent(offset, "PLACED", hold, ["counter", "5"]) for offset, hold in enumerate(HOLDS)]
    await slots.claim(TENANT, OWNER, generation="run:1")
    await slots.apply(TENANT, events, OWNER, 0, 3)


async def use_restorer() -> None:
    """Make slots of two tenants anew, with holds that are open and holds that ended."""
    minutes = [hold[:MINUTE_DIGITS] for hold in HOLDS]
    tenants = {
        tenant_id: LiveTenant(3, {"counter": 7}, {"counter": 5}, {HOLDS[0]: ("counter", "5")})
        for tenant_id in (TENANT, "umbrella")
    }

    async def ended(minute: str) -> Ended:
        return {tenant_id: {hold: "c" for hold in HOLDS if hold.startswith(minute)} for tenant_id in tenants}

    await Restorer(client()).write(OWNER, AppliedState(3, tenants, minutes, ended))


async def use_store() -> None:
    """What the gateway does with a hold."""
    store = RedisHoldStore(URL)
    store._client.run_id = "run"
    await store.refresh()
    hold = ask(HOLDS[0], 5, 10)
    await store.place(hold)
    await store.confirm(TENANT, hold.hold_id, "run:1")
    await store.extend(hold)


async def use_gates() -> None:
    """What the sink does with a partition's gate."""
    gates = Gates(client())
    await gates.claim(3)
    await gates.begin(3, 1, 0, TOPIC_ID)
    await gates.write(3, 1, "run:1", 5, 6, moved={TENANT: 5, "umbrella": 4})


async def use_health() -> None:
    """Write windows of two models."""
    writer = HealthWriter(client())
    await writer.claim(TOPIC_ID)
    await writer.write(Span(Partition(HEALTH.name, 0), TOPIC_ID, 0, 2, [window(0, "a"), window(1, "b")]))


async def use_reads() -> None:
    """Read a tenant's slot."""
    await RedisReads(URL).tenant_state(TENANT)


def window(offset: int, model: str) -> Decoded:
    """A window of a model's health."""
    event = ProviderHealth(
        event_id=derived_id("test", str(offset), "", ""), occurred_at=START_MICROS, tenant_id="_system", actor="test",
        provider_id="simulated", model=model, region="", window_start=0, window_end=1, attempts=1, errors=0,
        timeouts=0, latency_p50_micros=1, latency_p95_micros=1, first_chunk_p50_micros=1, state=HealthState.HEALTHY,
    )  # fmt: skip
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return Decoded(offset, fields, LogRecord(HEALTH.name, 0, offset, 0, model.encode(), b"", ()))


USES: dict[str, tuple[Callable[[], Awaitable[None]], set[str]]] = {
    "slots": (use_slots, {"slot", "apply"}),
    "restorer": (use_restorer, {"restore"}),
    "hold store": (use_store, {"gate_read", "place", "confirm", "extend"}),
    "gates": (use_gates, {"gate_claim", "gate_generation", "gate_write"}),
    "health": (use_health, {"health_claim", "health"}),
    "reads": (use_reads, {"tenant_read"}),
}


def keys_of(slot: SlotKeys) -> list[str]:
    """Every key of a tenant."""
    return [*slot[:3], *(key for hold in HOLDS for key in (slot.done_of(hold), slot.refused_of(hold)))]


@pytest.mark.parametrize("projection", ["redis@v1", "redis@v12"])
@pytest.mark.parametrize("tenant_id", ["acme", "a", "_system", "a-b_c.9"])
def test_all_keys_of_a_tenant_are_in_its_hash_slot(projection: str, tenant_id: str) -> None:
    """Also those of holds of other hours and minutes."""
    keys = keys_of(Names(projection).slot(tenant_id))

    assert len(keys) == len(set(keys))
    assert {tenant_id} == set(map(tag, keys))


@pytest.mark.parametrize("name", USES)
async def test_a_script_is_given_keys_of_one_hash_slot(calls: Calls, name: str) -> None:
    """Whoever calls it."""
    use, scripts = USES[name]
    await use()

    assert scripts == {script for script, _ in calls.keys}
    assert [(script, keys) for script, keys in calls.keys if len(set(map(tag, keys))) != 1] == []


def test_the_keys_of_every_script_are_looked_at() -> None:
    """A new one must be called here too."""
    looked_at = set().union(*(scripts for _, scripts in USES.values()))

    assert {path.stem for path in FOLDER.glob("*.lua")} - set(BEGINNINGS.values()) == looked_at
