"""Budgets on a real Valkey, over the log in memory and a real Kafka: nothing overspent, nothing leaked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import pytest

from processors.reaper import Reaper
from schemas.events import BudgetEvent, HealthState, ProviderHealth
from schemas.ids import uuid7
from sinks.redis.holds import Closed, ClosedReason, Confirmation, Placed
from sinks.redis.keys import gate_key, slot_keys
from sinks.redis.store import RedisHoldStore
from tests.budget_world import NOW_MICROS, TENANT, ask, leg
from tests.support.kafka_server import fresh_product_topics
from tests.support.live_budgets import DEADLINE_SECONDS, LIMIT, PARTITION, Log, SinkProcess, World, until
from tests.valkey import Valkey


@pytest.fixture(scope="module")
def kafka() -> str:
    """A broker with nothing on our topics."""
    return fresh_product_topics()


@pytest.fixture
async def world(valkey: Valkey) -> AsyncIterator[World]:
    """Everything over the log in memory, with one tenant open."""
    world = World(Log(None), valkey)
    await world.start()
    try:
        await world.name_tenant(TENANT)
        yield world
    finally:
        await world.stop()


class Traffic:
    """Callers that spend one nano-unit each until the limit refuses, some of which die on the way."""

    def __init__(self, world: World, seed: int) -> None:
        """Draw what happens from the seed."""
        self.world = world
        self.random = Random(seed)
        self.answers: Counter[str] = Counter()
        self.abandoned: list[BudgetEvent] = []
        self.calls = 0

    async def caller(self, ending: asyncio.Event) -> None:
        """One after the other, until told to end."""
        while not ending.is_set():
            await self.request()

    async def request(self, *, dies: float = 0.02) -> None:
        """The gateway's way of one attempt."""
        hold, store = self.world.hold(), self.world.store
        answer = await store.place(ask(hold, 1, LIMIT))
        self.answers[type(answer).__name__] += 1
        if not isinstance(answer, Placed):
            await asyncio.sleep(0.005)
            return
        placed = self.world.events.placed(hold, leg(1), generation=answer.generation)
        await self.world.record(placed)
        confirmed = await store.confirm(TENANT, hold, answer.generation)
        self.answers[confirmed.value] += 1
        if confirmed is not Confirmation.CONFIRMED:
            await self.world.record(self.world.events.released(placed))
            return
        self.calls += 1
        await asyncio.sleep(self.random.random() / 20)
        if self.random.random() < dies:
            self.abandoned.append(placed)
        else:
            await self.world.record(self.world.events.committed(placed, 1))


def lose_everything(valkey: Valkey) -> None:
    """FLUSHALL: the same server, empty."""
    valkey.command("FLUSHALL")


def restart_empty(valkey: Valkey) -> None:
    """SIGKILL and a start without data."""
    valkey.kill()
    valkey.forget()
    valkey.start()


def fail_over_to_older(valkey: Valkey) -> None:
    """SIGKILL and a start with the data of a while ago, as a replica that lacks the tail."""
    valkey.kill()
    valkey.start()


FAULTS = {"flushall": lose_everything, "restart": restart_empty, "failover": fail_over_to_older}


async def suffer(world: World, fault: str, seed: int) -> Traffic:
    """Traffic with a fault in its middle; ends when every abandoned call has expired and all is applied."""
    traffic, ending = Traffic(world, seed), asyncio.Event()
    callers = [asyncio.create_task(traffic.caller(ending)) for _ in range(12)]
    await until(lambda: reached(traffic, LIMIT // 4), "some calls")
    world.valkey.command("SAVE")
    await until(lambda: reached(traffic, LIMIT // 2), "half the calls")
    before = await world.generation()
    await asyncio.to_thread(FAULTS[fault], world.valkey)

    async def open_again() -> bool:
        return await generation_now(world) not in {"", before} and await world.admits()

    await until(open_again, "admission under another generation")
    refused = traffic.answers["Refused"]
    await until(lambda: all_spent(traffic, refused), "the limit to refuse again")
    ending.set()
    await asyncio.gather(*callers)
    await world.record(*(world.events.expired(placed) for placed in traffic.abandoned))
    await world.settled()
    return traffic


async def reached(traffic: Traffic, calls: int) -> bool:
    """Whether so many calls were made."""
    return traffic.calls >= calls


async def all_spent(traffic: Traffic, refused_before: int) -> bool:
    """Whether the limit has refused often since."""
    return traffic.answers["Refused"] >= refused_before + 50


async def generation_now(world: World) -> str:
    """The generation, empty while the server is away."""
    try:
        return await world.generation()
    except Exception:  # noqa: BLE001 - any fault means: not now
        return ""


@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_a_lost_server_overspends_and_leaks_nothing(world: World, fault: str) -> None:
    """Admission closes, the state is applied again, admission opens; every nano-unit is spent once, none more."""
    traffic = await suffer(world, fault, seed=7)
    assert await world.left() == 0
    assert traffic.calls <= LIMIT, traffic.answers
    assert await world.differences() == []
    assert (await world.reads.tenant_state(TENANT)).holds == {}


@pytest.mark.stack
async def test_the_same_on_a_real_kafka(kafka: str, valkey: Valkey) -> None:
    """FLUSHALL under traffic with acks=all and consumer groups."""
    world = World(Log(kafka), valkey)
    await world.start()
    try:
        await world.name_tenant(TENANT)
        traffic = await suffer(world, "flushall", seed=11)
        assert (await world.left(), traffic.calls <= LIMIT) == (0, True)
        assert await world.differences() == []
    finally:
        await world.stop()


async def test_a_slot_that_went_alone_is_applied_again_though_nothing_comes(world: World) -> None:
    """No hold is placed on it any more, so no event tells the sink of it."""
    await world.record(placed := world.events.placed(world.hold(), leg(LIMIT - 20)))
    await world.record(world.events.committed(placed, LIMIT - 20))
    await world.settled()
    before = await world.generation()

    world.valkey.command("DEL", slot_keys(TENANT).state)

    async def open_again() -> bool:
        return await generation_now(world) not in {"", before} and await world.admits()

    await until(open_again, "admission under another generation")
    assert (await world.left(), await world.differences()) == (20, [])


async def test_200_at_once_against_room_for_20(world: World) -> None:
    """Through the whole way: exactly 20 calls."""
    await world.record(placed := world.events.placed(world.hold(), leg(LIMIT - 20)))
    await world.record(world.events.committed(placed, LIMIT - 20))
    await world.settled()
    traffic = Traffic(world, seed=3)
    await asyncio.gather(*(traffic.request(dies=0) for _ in range(200)))
    assert (traffic.calls, traffic.answers["Refused"]) == (20, 180)


async def test_a_new_tenant_is_opened_when_control_names_it(world: World) -> None:
    """Its first hold waits for nothing else."""
    started = time.monotonic()
    await world.name_tenant("newcomer")
    assert time.monotonic() - started < DEADLINE_SECONDS


async def test_a_restarted_sink_keeps_the_generation(world: World) -> None:
    """Only the server's loss makes a new one; what came meanwhile is applied."""
    before = await world.generation()
    await world.sink.stop()
    await world.record(placed := world.events.placed(world.hold(), leg(50)))
    await world.record(world.events.committed(placed, 50))
    world.sink = SinkProcess(world.log, world.valkey.url)
    await world.settled()
    assert (await world.generation(), await world.left()) == (before, LIMIT - 50)


async def test_a_slot_that_lost_what_it_had_begins_a_generation(world: World) -> None:
    """One tenant's keys are gone, the rest of the server is fine: it is noticed at the next event."""
    await world.record(world.events.placed(world.hold(), leg(50)))
    await world.settled()
    before = await world.generation()
    for key in slot_keys(TENANT)[:3]:
        world.valkey.command("DEL", key)
    await world.record(world.events.placed(world.hold(), leg(10)))
    await world.settled()
    assert await world.generation() != before
    assert await world.left() == LIMIT - 60


async def test_admission_closes_when_the_sink_is_gone(world: World) -> None:
    """Live state nobody keeps up to date is not trusted for longer than the bound."""
    store = RedisHoldStore(world.valkey.url, lag_seconds_max=0.5)
    await store.open()
    await world.sink.stop()

    async def closed() -> bool:
        return await store.place(ask(world.hold(), 1, LIMIT)) == Closed(ClosedReason.LAGGING)

    await until(closed, "admission to close")
    world.sink = SinkProcess(world.log, world.valkey.url)

    async def opened() -> bool:
        return isinstance(await store.place(ask(world.hold(), 1, LIMIT)), Placed)

    await until(opened, "admission to open")
    await store.close()


async def test_admission_is_closed_while_redis_is_away(world: World) -> None:
    """A value, at once; no call waits for the server to come back."""
    generation = await world.generation()
    world.valkey.kill()

    async def away() -> bool:
        return await world.store.place(ask(world.hold(), 1, LIMIT)) == Closed(ClosedReason.UNREACHABLE)

    await until(away, "Closed")
    assert await world.store.confirm(TENANT, world.hold(), generation) is Confirmation.UNREACHABLE
    world.valkey.forget()
    world.valkey.start()
    await until(world.admits, "admission after the server came back")


async def test_unsound_events_move_nothing(world: World) -> None:
    """A negative amount is quarantined by the sink and passed over by the fold."""
    await world.record(world.events.placed(world.hold(), leg(-5)), world.events.placed(world.hold(), leg(5)))
    await world.settled()
    assert await world.left() == LIMIT - 5
    assert await world.differences() == []


async def test_the_reaper_gives_the_room_of_a_dead_gateway_its_final_state(world: World) -> None:
    """EXPIRED charges the hold; the late commit takes the difference back."""
    await world.record(placed := world.events.placed(world.hold(), leg(50)))
    reaper = Reaper()
    state = reaper.evolve(reaper.initial(PARTITION), placed)
    await world.record(*reaper.tick(state, NOW_MICROS + 10**9, caught_up=True))
    await world.settled()
    assert await world.left() == LIMIT - 50
    await world.record(world.events.committed(placed, 20))
    await world.settled()
    assert await world.left() == LIMIT - 20


async def test_provider_health_keeps_the_last_window(world: World) -> None:
    """Older windows that come late change nothing."""
    await world.record(*(health(end) for end in (60, 120, 90)))

    async def there() -> bool:
        found = await world.reads.provider_health()
        return [each["window_end"] for each in found] == ["120"]

    await until(there, "the window that ended last")


def health(window_end: int) -> ProviderHealth:
    """A window of one provider."""
    return ProviderHealth(
        event_id=uuid7(NOW_MICROS, window_end.to_bytes(10, "big")),
        occurred_at=NOW_MICROS,
        tenant_id="_system",
        actor="health",
        provider_id="simulated",
        model="small",
        region="-",
        window_start=window_end - 60,
        window_end=window_end,
        attempts=3,
        errors=1,
        timeouts=0,
        latency_p50_micros=5,
        latency_p95_micros=9,
        state=HealthState.DEGRADED,
    )


async def test_the_gate_says_how_far_the_log_is_applied(world: World) -> None:
    """Cursor, end offset and lag for operators."""
    await world.record(world.events.placed(world.hold(), leg(1)))
    await world.settled()
    gate = next(gate for gate in await world.reads.gates() if gate.partition == PARTITION)
    assert (gate.is_open, gate.cursor, gate.lag) == (True, 1, 0)
    assert world.valkey.command("HEXISTS", gate_key(PARTITION), "epoch") == b":1\r\n"
