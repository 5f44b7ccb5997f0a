"""How alerts get to channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from api.alerts.courier import Courier
from api.alerts.outlets import Later, MemoryOutlet, Never, Receipt
from api.providers.errors import SecretUnavailableError
from processors.control import Channel
from processors.guardrails import AlertBook
from schemas.errors import CodecError, RecordRefusedError
from schemas.events import Alert
from schemas.limits import ALERT_ATTEMPTS_MAX, ALERT_CHANNEL_SENDS_AT_ONCE_MAX, ALERT_SENDS_AT_ONCE_MAX
from streams.metrics import Metrics
from tests.support.events import NOW_MICROS, TENANT, alert

HOUR_MICROS = 3_600_000_000


def channel(name: str = "ops", **fields: Any) -> Channel:
    """A channel that takes everything."""
    given: dict[str, Any] = {"tenant_id": TENANT, "kind": "slack", "target_ref": "env:HOOK"}
    return Channel(channel_id=name, **given | fields)


class World:
    """A courier with an outlet in memory, and a clock that the test moves."""

    def __init__(self, *channels: Channel) -> None:
        """Two alerts are told."""
        self.now, self.book, self.outlet = NOW_MICROS, AlertBook(), MemoryOutlet()
        self.channels = channels or (channel(),)
        self.ends: list[Alert] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.courier = Courier(
            {"slack": self.outlet, "webhook": self.outlet, "email": self.outlet},
            self.resolve,
            self.tell,
            lambda: self.now,
            lambda: 1.0,
            Metrics(),
        )

    def resolve(self, reference: str | None) -> str | None:
        """What references hold."""
        if reference == "env:MISSING":
            raise SecretUnavailableError("env:MISSING is empty or not set")
        return reference and f"value of {reference}"

    async def tell(self, end: Alert) -> None:
        """Record an end: it comes back through the log."""
        await self.gate.wait()
        self.ends.append(end)
        self.book.apply(end)

    async def turn(self) -> None:
        """One turn, and all that it began."""
        self.courier.turn(self.book.due(self.channels, self.now))
        await asyncio.gather(*list(self.courier._running.values()))

    def ended(self) -> list[tuple[str | None, str | None, int | None]]:
        """Channel, state and attempts of what ended."""
        return [(end.channel_id, end.delivery_state, end.attempts) for end in self.ends]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """One channel, one alert."""
    made = World()
    made.book.apply(alert("a1"))
    yield made
    await made.courier.close()


async def test_an_alert_is_handed_over_once_and_its_end_recorded(world: World) -> None:
    """However often it turns."""
    await world.turn()
    await world.turn()
    assert [("ops", "value of env:HOOK", "a1")] == [
        (name, target, told.event_id) for name, target, told in world.outlet.taken
    ]
    assert [("ops", "SENT", 1)] == world.ended()


async def test_a_receiver_that_is_away_is_tried_again_after_a_pause(world: World) -> None:
    """Not before it."""
    world.outlet.answers = [Later("HTTP 503"), Later("HTTP 503")]
    for seconds in (0, 0.4, 0.2, 0.9, 0.2):
        world.now += round(seconds * 1_000_000)
        await world.turn()
    assert (3, [("ops", "SENT", 3)]) == (world.outlet.calls, world.ended())


async def test_who_has_it_is_left_out_of_the_next_attempts(world: World) -> None:
    """Whatever went wrong in between."""
    world.outlet.answers = [Later("1 of 3", ended={"a": 250}), Later("away"), Later("1 of 3", ended={"b": 550})]
    for _ in range(4):
        await world.turn()
        world.now += HOUR_MICROS
    assert [{}, {"a": 250}, {"a": 250}, {"a": 250, "b": 550}] == world.outlet.ended
    assert [("ops", "SENT", 4)] == world.ended()


async def test_a_receiver_may_say_when_to_come_back(world: World) -> None:
    """Retry-After counts."""
    world.outlet.answers = [Later("HTTP 429", 30.0)]
    await world.turn()
    world.now += 29_000_000
    await world.turn()
    before = world.outlet.calls
    world.now += 1_000_000
    await world.turn()
    assert (1, 2) == (before, world.outlet.calls)


@pytest.mark.parametrize("answer", [Never("HTTP 404"), Never("the channel's URL can't be read")])
async def test_a_receiver_that_will_never_take_it_is_given_up_at_once(world: World, answer: Receipt) -> None:
    """And the reason is recorded."""
    world.outlet.answers = [answer]
    await world.turn()
    world.now += HOUR_MICROS
    await world.turn()
    assert (1, [("ops", "FAILED", 1)]) == (world.outlet.calls, world.ended())
    assert world.ends[0].detail.endswith(answer.reason if isinstance(answer, Never) else "")


async def test_a_receiver_that_stays_away_is_given_up_after_so_many_attempts(world: World) -> None:
    """FAILED says how often."""
    world.outlet.answers = [Later("HTTP 500")] * 100
    for _ in range(30):
        await world.turn()
        world.now += HOUR_MICROS // 2
    assert [("ops", "FAILED", ALERT_ATTEMPTS_MAX)] == world.ended()


async def test_a_secret_that_can_not_be_read_is_waited_for() -> None:
    """An operator may put it there."""
    world = World(channel(target_ref="env:MISSING"))
    world.book.apply(alert("a1"))
    await world.turn()
    assert (0, []) == (world.outlet.calls, world.ended())


async def test_one_channel_that_fails_leaves_the_others_alone() -> None:
    """Each has its own pauses and ends."""
    world = World(channel("bad", target_ref="env:MISSING"), channel("good"))
    world.book.apply(alert("a1"))
    await world.turn()
    assert [("good", "SENT", 1)] == world.ended()


async def test_an_outlet_that_breaks_is_tried_again(world: World) -> None:
    """A fault of ours is no reason to lose an alert."""

    class Broken(MemoryOutlet):
        async def send(self, *given: Any) -> Receipt:
            raise ValueError("boom")

    world.courier._outlets = {"slack": Broken()}
    await world.turn()
    world.courier._outlets = {"slack": world.outlet}
    world.now += 1_000_000
    await world.turn()
    assert [("ops", "SENT", 2)] == world.ended()


@pytest.mark.parametrize("fault", [RecordRefusedError("too large"), CodecError("does not fit")], ids=["log", "codec"])
async def test_an_end_that_can_not_be_recorded_is_an_end_and_said(world: World, fault: Exception) -> None:
    """Nothing else would tell anybody, and the alert is not sent again and again."""

    async def tell(_end: Alert) -> None:
        raise fault

    world.courier._tell = tell
    with capture_logs() as lines:
        await world.turn()
        world.now += HOUR_MICROS
        await world.turn()
    assert 1 == world.outlet.calls
    said = [(line["event"], line["alert"], line["channel"], line["state"], line["error"]) for line in lines]
    assert [("delivery_not_recorded", "a1", "ops", "SENT", str(fault))] == said


@pytest.mark.parametrize(
    ("channels", "begun"),
    [(1, ALERT_CHANNEL_SENDS_AT_ONCE_MAX), (50, ALERT_SENDS_AT_ONCE_MAX)],
    ids=["to one channel", "in all"],
)
async def test_only_so_many_are_sent_at_once(channels: int, begun: int) -> None:
    """The rest wait for their turn."""
    alerts = ALERT_CHANNEL_SENDS_AT_ONCE_MAX + 2
    world = World(*(channel(f"c{number}") for number in range(channels)))
    world.gate.clear()
    for number in range(alerts):
        world.book.apply(alert(f"a{number}"))
    world.courier.turn(world.book.due(world.channels, world.now))
    assert begun == len(world.courier._running)
    world.gate.set()
    while len(world.ends) < channels * alerts:
        await world.turn()
    assert channels * alerts == world.outlet.calls
    await world.courier.close()


class Hanging(MemoryOutlet):
    """An outlet that never answers one channel."""

    async def send(self, channel: Channel, *given: Any) -> Receipt:
        """As the seam says, but to that channel."""
        if channel.channel_id == "hangs":
            self.calls += 1
            await asyncio.Event().wait()
        return await super().send(channel, *given)


async def test_a_channel_that_hangs_holds_up_no_other() -> None:
    """Twenty alerts for two channels: one has all of them while the other has not answered."""
    world = World(channel("hangs"), channel("works"))
    world.courier._outlets = {"slack": Hanging()}
    for number in range(20):
        world.book.apply(alert(f"a{number}"))
    async with asyncio.timeout(5):
        while len(world.ends) < 20:
            world.courier.turn(world.book.due(world.channels, world.now))
            await asyncio.sleep(0)
    assert {("works", "SENT", 1)} == set(world.ended())
    assert ALERT_CHANNEL_SENDS_AT_ONCE_MAX == len(world.courier._running)
    await world.courier.close()


async def test_a_channel_that_did_not_take_the_last_alert_is_asked_with_one() -> None:
    """Until it takes one: then it gets as many at once as others."""
    world = World()
    world.outlet.answers = [Later("HTTP 503")] * ALERT_CHANNEL_SENDS_AT_ONCE_MAX
    for number in range(2 * ALERT_CHANNEL_SENDS_AT_ONCE_MAX):
        world.book.apply(alert(f"a{number}"))
    calls = []
    for _ in range(3):
        await world.turn()
        calls.append(world.outlet.calls)
        world.now += HOUR_MICROS // 2
    assert [ALERT_CHANNEL_SENDS_AT_ONCE_MAX + more for more in (0, 1, 1 + ALERT_CHANNEL_SENDS_AT_ONCE_MAX)] == calls
    await world.courier.close()


async def test_what_is_under_way_when_it_stops_is_left_to_the_next_one() -> None:
    """Nothing is recorded of it, so it is sent again: under the same id."""
    world = World()
    world.book.apply(alert("a1"))
    world.gate.clear()
    world.courier.turn(world.book.due(world.channels, world.now))
    await asyncio.sleep(0)
    await world.courier.stop()
    world.gate.set()
    await world.turn()
    assert (["a1", "a1"], 1) == ([told.event_id for _, _, told in world.outlet.taken], len(world.ends))
    await world.courier.close()
