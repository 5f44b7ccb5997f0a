"""Kafka gone: new requests are turned away, running ones end in the spool, and the spool ends first when it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from api.gateway.spool import REFUSED, Spool, read_groups
from api.providers.memory import MemoryAnswer
from api.providers.upstream import Call
from schemas.errors import CodecError, LogUnavailableError, RecordRefusedError
from schemas.events import BudgetKind, Event, RequestEvent, RequestKind
from tests.support.events import budget, leg
from tests.support.gateway_answers import chat_answer, whole_stream
from tests.support.gateway_world import World, chat, until

COMPLETE = [
    "attempts SUCCEEDED",
    "budgets COMMITTED",
    "budgets PLACED",
    "costs CHARGE",
    "costs CHARGE",
    "decisions",
    "requests COMPLETED",
    "requests RECEIVED",
]


async def eventually(world: World, kinds: list[str]) -> bool:
    """Whether the log comes to hold exactly these."""
    try:
        async with asyncio.timeout(5):
            await until(lambda: world.kinds() == kinds)
    except TimeoutError:
        return False
    return True


async def test_without_kafka_new_requests_are_503(tmp_path: Path) -> None:
    """With Retry-After, and no provider is called."""
    async with World(tmp_path) as world:
        world.take_log_away()
        response = await world.call()
        world.bring_log_back()

    assert (503, "log_unavailable", "1") == (
        response.status,
        response.error["code"],
        response.headers["retry-after"],
    )
    assert [] == world.upstream.calls


async def test_half_of_an_end_without_room_in_the_spool_is_completed(tmp_path: Path) -> None:
    """Kafka fails between its records, the disk of the spool is full: the caller gets no answer, the log has all."""
    async with World(tmp_path) as world:
        record = world.journal._recorder.record

        async def half(events: list[Event], traceparent: bytes | None = None) -> None:
            if not any(isinstance(event, RequestEvent) and event.kind is RequestKind.COMPLETED for event in events):
                await record(events, traceparent)
                return
            await record(events[:2])
            raise LogUnavailableError

        world.journal._recorder.record = half  # type: ignore[method-assign,assignment]  # Kafka's part
        world.journal._spool._bytes_max = 0
        response = await world.call()
        kinds = set(world.kinds())
        world.journal._recorder.record = record  # type: ignore[method-assign]
        world.bring_log_back()
        async with asyncio.timeout(5):
            await until(lambda: world.journal.closed() is None)
        missing = set(world.kinds()) - kinds

    assert (500, "not_recorded") == (response.status, response.error["code"])
    assert missing
    assert kinds | missing == set(COMPLETE)
    assert [] == list(world.options.spool_directory.glob("*.spool"))


async def test_without_kafka_readyz_says_so(tmp_path: Path) -> None:
    """Which part, and why."""
    async with World(tmp_path) as world:
        world.take_log_away()
        response = await world.call("/readyz", method="GET")
        alive = await world.call("/healthz", method="GET")
        world.bring_log_back()

    assert (503, False, 200) == (response.status, response.json["parts"]["kafka"]["ok"], alive.status)


async def test_before_the_control_topic_is_read_every_path_of_a_key_is_503(tmp_path: Path) -> None:
    """A valid key is not known yet: 401 would make the SDKs give up."""
    async with World(tmp_path) as world:
        world.health.caught_up = False
        answers = [await world.call(), await world.call("/v1/models", method="GET")]

    told = [(each.status, each.error["code"], each.headers["retry-after"]) for each in answers]
    assert [(503, "starting", "1")] * 2 == told


async def test_models_are_told_without_kafka(tmp_path: Path) -> None:
    """Nothing is recorded of it."""
    async with World(tmp_path) as world:
        world.take_log_away()
        response = await world.call("/v1/models", method="GET")
        world.bring_log_back()

    assert 200 == response.status


def losing_log(world_of: list[World]) -> object:
    """A provider during whose call Kafka goes away."""

    def answer(call: Call) -> MemoryAnswer:
        world_of[0].take_log_away()
        return whole_stream() if call.stream else chat_answer()

    return answer


async def test_a_running_request_is_answered_from_the_spool(tmp_path: Path) -> None:
    """Its end is on disk before the answer; once Kafka is back it is in the log, and the spool is empty."""
    worlds: list[World] = []
    async with World(tmp_path, losing_log(worlds)) as world:  # type: ignore[arg-type]  # it is one
        worlds.append(world)
        response = await world.call()
        spooled = world.journal.spooled_bytes
        world.bring_log_back()
        complete = await eventually(world, COMPLETE)

    assert (200, True) == (response.status, complete)
    assert spooled > 0
    assert [] == list(world.options.spool_directory.glob("*.spool"))


async def test_a_running_stream_ends_from_the_spool(tmp_path: Path) -> None:
    """The caller sees a whole stream."""
    worlds: list[World] = []
    async with World(tmp_path, losing_log(worlds)) as world:  # type: ignore[arg-type]  # it is one
        worlds.append(world)
        response = await world.call(body=chat(stream=True))
        world.bring_log_back()
        complete = await eventually(world, COMPLETE)

    assert response.body.endswith(b"data: [DONE]\n\n")
    assert complete


async def test_new_requests_wait_for_the_spool(tmp_path: Path) -> None:
    """Kafka is back, but what is spooled comes first."""
    worlds: list[World] = []
    async with World(tmp_path, losing_log(worlds)) as world:  # type: ignore[arg-type]  # it is one
        worlds.append(world)
        await world.call()
        world.bring_log_back()
        early = await world.call()
        async with asyncio.timeout(5):
            await until(lambda: world.journal.closed() is None)
        world.upstream.answer = lambda _: chat_answer()
        late = await world.call()

    assert (503, "spool_draining", 200) == (early.status, early.error["code"], late.status)


async def test_a_log_that_fails_at_placement_leaves_one_story(tmp_path: Path) -> None:
    """The group may be half in the log: all of it is written again with its release, and the request ends refused."""
    async with World(tmp_path) as world:
        world.log.away = True
        response = await world.call()
        world.bring_log_back()
        kinds = ["budgets PLACED", "budgets RELEASED", "decisions", "requests RECEIVED", "requests REFUSED"]
        complete = await eventually(world, kinds)

    assert (503, "log_unavailable", True) == (response.status, response.error["code"], complete)
    assert [] == world.upstream.calls


async def test_the_files_of_dead_processes_are_drained_first(tmp_path: Path) -> None:
    """Before the first request is admitted."""
    group: list[Event] = [budget(BudgetKind.RELEASED, "h", "e", leg("l", 5))]
    world = World(tmp_path)
    dead = Spool(world.options.spool_directory, "gateway-dead")
    await dead.append(group)
    dead.close()
    closed = world.journal.closed()
    async with world:
        response = await world.call("/readyz", method="GET")

        assert ["budgets RELEASED"] == world.kinds()
    assert (200, "spool_draining") == (response.status, closed.code if closed else None)


def refuse(world: World, event_id: str, fault: type[Exception]) -> None:
    """Whatever is recorded with this event fails."""
    record = world.journal._recorder.record

    async def refuse_one(events: list[Event], traceparent: bytes | None = None) -> None:
        if any(event.event_id == event_id for event in events):
            raise fault
        await record(events, traceparent)

    world.journal._recorder.record = refuse_one  # type: ignore[method-assign,assignment]


async def test_a_record_that_kafka_refuses_does_not_block_the_spool(tmp_path: Path) -> None:
    """It is put aside; what follows it is drained."""
    world = World(tmp_path)
    refuse(world, "poison", RecordRefusedError)  # Kafka's part
    dead = Spool(world.options.spool_directory, "gateway-dead")
    for event_id in ("poison", "good"):
        await dead.append([budget(BudgetKind.RELEASED, "h", event_id, leg("l", 5))])
    dead.close()
    async with world:
        assert ["good"] == [event.event_id for event in world.events("budgets")]
    assert 1 == len(list(world.options.spool_directory.glob("*.refused")))


async def test_a_group_with_an_event_that_fits_no_record_is_put_aside_whole(tmp_path: Path) -> None:
    """Half of it in the log would be a story without its end; what stands before and behind it is drained."""
    world = World(tmp_path)
    refuse(world, "misfit", CodecError)  # what the codec would do
    dead = Spool(world.options.spool_directory, "gateway-dead")
    for group in (["first"], ["beside", "misfit"], ["last"]):
        await dead.append([budget(BudgetKind.RELEASED, "h", event_id, leg("l", 5)) for event_id in group])
    dead.close()
    async with world:
        assert ["first", "last"] == [event.event_id for event in world.events("budgets")]
    (aside,) = world.options.spool_directory.glob(f"*{REFUSED}")
    assert [["beside", "misfit"]] == [[event.event_id for event in group] for group in read_groups(aside)]


async def test_an_end_that_fits_no_record_stops_nobody_else(tmp_path: Path) -> None:
    """Its caller gets no answer and the reaper ends it; the next call finds the gateway open."""
    async with World(tmp_path) as world:
        record = world.journal._recorder.record

        async def encode(events: list[Event], traceparent: bytes | None = None) -> None:
            if any(isinstance(event, RequestEvent) and event.kind is RequestKind.COMPLETED for event in events):
                raise CodecError
            await record(events, traceparent)

        world.journal._recorder.record = encode  # type: ignore[method-assign,assignment]  # what the codec would do
        first = await world.call()
        begun = world.kinds()
        world.journal._recorder.record = record  # type: ignore[method-assign]
        second = await world.call()

    assert (500, "not_recorded", 200) == (first.status, first.error["code"], second.status)
    assert ["budgets PLACED", "decisions", "requests RECEIVED"] == begun
    assert sorted([*begun, *COMPLETE]) == world.kinds()


async def test_a_request_cancelled_in_its_call_is_closed(tmp_path: Path) -> None:
    """A gateway that is told to stop and runs out of patience: charged by estimate, ended, through the spool."""
    called = asyncio.Event()

    class Hanging(MemoryAnswer):
        async def some(self) -> bytes:
            called.set()
            await asyncio.Event().wait()
            return b""

    async with World(tmp_path, lambda _: Hanging(200, [])) as world:
        running = asyncio.create_task(world.call())
        await asyncio.wait_for(called.wait(), 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        spooled = world.journal.spooled_bytes
        kinds = [
            "attempts ABANDONED",
            "budgets COMMITTED",
            "budgets PLACED",
            "costs CHARGE",
            "decisions",
            "requests FAILED",
            "requests RECEIVED",
        ]

        assert spooled > 0
        assert await eventually(world, kinds)
