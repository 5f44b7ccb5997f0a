"""LoopPublisher: what it asks of a broker, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from schemas.errors import ConfigurationError, LogError, LogUnavailableError, RecordRefusedError
from schemas.limits import RECORD_BYTES_MAX
from streams.kafka import loop_publisher
from streams.kafka.loop_publisher import LoopPublisher
from streams.log import OutgoingRecord
from tests.support.memory_broker import HANG_UP, SILENCE, MemoryBroker, numbered, values

SECONDS = 10.0
NOT_LEADER, TOO_LARGE, DUPLICATE, OUT_OF_ORDER = 6, 10, 46, 45


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    """Whatever is connected to is this broker; pauses are short."""
    made = MemoryBroker(a=1, b=3)
    monkeypatch.setattr(LoopPublisher, "_connect", made.connect)
    for name in ("SWEEP_SECONDS", "PAUSE_SECONDS_MIN", "PAUSE_SECONDS_MAX"):
        monkeypatch.setattr(loop_publisher, name, 0.001)
    return made


@pytest.fixture
async def publisher() -> AsyncIterator[LoopPublisher]:
    """On that broker."""
    made = LoopPublisher("broker.test:9092")
    yield made
    await made.close()


def record(value: bytes, topic: str = "a") -> OutgoingRecord:
    """One record."""
    return OutgoingRecord(topic, b"key", value, ())


def hand_over(publisher: LoopPublisher, *records: OutgoingRecord) -> asyncio.Future[LogError | None]:
    """Publish a group; its end comes as a value."""
    ended: asyncio.Future[LogError | None] = asyncio.get_running_loop().create_future()
    publisher.publish(records, ended.set_result)
    return ended


async def end_of(*groups: asyncio.Future[LogError | None]) -> list[LogError | None]:
    """How groups ended."""
    return await asyncio.wait_for(asyncio.gather(*groups), SECONDS)


async def test_a_group_for_many_partitions_is_one_request(publisher: LoopPublisher, broker: MemoryBroker) -> None:
    """One batch for each of them."""
    group = [record(b"1"), record(b"2", "b"), record(b"3")]

    assert [None] == await end_of(hand_over(publisher, *group))
    (request,) = broker.produced
    assert {"a": [b"1", b"3"], "b": [b"2"]} == {topic: values(batch) for (topic, _), batch in request.items()}


async def test_what_comes_while_an_answer_is_waited_for_goes_together(
    publisher: LoopPublisher, broker: MemoryBroker
) -> None:
    """In the next request, in the order in which it came."""
    broker.holding = True
    first = hand_over(publisher, record(b"first"))
    await broker.requests(1)
    others = [hand_over(publisher, record(b"%d" % number)) for number in range(3)]
    await asyncio.sleep(0)
    assert len(broker.produced) == 1

    broker.release()

    assert [None] * 4 == await end_of(first, *others)
    assert [[b"first"], [b"0", b"1", b"2"]] == [values(request["a", 0]) for request in broker.produced]


@pytest.mark.parametrize("outcome", [HANG_UP, {("a", 0): NOT_LEADER}])
async def test_a_batch_in_doubt_is_sent_again_as_it_was(
    publisher: LoopPublisher, broker: MemoryBroker, outcome: str | dict[tuple[str, int], int]
) -> None:
    """Before anything that came later; the broker may say that it stands already."""
    broker.outcomes += [outcome, {("a", 0): DUPLICATE}]
    first = hand_over(publisher, record(b"first"))
    await broker.requests(1)
    second = hand_over(publisher, record(b"second"))

    assert [None, None] == await end_of(first, second)
    tried, again, later = [request["a", 0] for request in broker.produced]
    assert tried == again
    assert [b"second"] == values(later)
    assert (1, 1) == numbered(later)


async def test_a_silent_broker_is_hung_up_on_and_asked_again(broker: MemoryBroker) -> None:
    """After half of the delivery timeout."""
    publisher = LoopPublisher("broker.test:9092", delivery_seconds=0.5)
    broker.outcomes.append(SILENCE)

    assert [None] == await end_of(hand_over(publisher, record(b"value")))
    first, second = broker.produced
    assert first == second
    await publisher.close()


async def test_a_producer_the_broker_does_not_know_goes_on_as_another(
    publisher: LoopPublisher, broker: MemoryBroker
) -> None:
    """Its numbers begin again, for every partition."""
    assert [None] == await end_of(hand_over(publisher, record(b"before"), record(b"before", "b")))
    broker.outcomes.append({("a", 0): OUT_OF_ORDER})

    assert [None] == await end_of(hand_over(publisher, record(b"after")))
    assert [None] == await end_of(hand_over(publisher, record(b"after", "b")))
    assert [(1, 0), (1, 1), (2, 0)] == [numbered(one["a", 0]) for one in broker.produced if ("a", 0) in one]
    assert (2, 0) == numbered(next(iter(broker.produced[-1].values())))


async def test_a_refused_record_fails_its_group_alone(publisher: LoopPublisher, broker: MemoryBroker) -> None:
    """Others in its batch are written after all."""
    broker.outcomes += [{("a", 0): TOO_LARGE}, {}, {("a", 0): TOO_LARGE}]

    good, bad = hand_over(publisher, record(b"good")), hand_over(publisher, record(b"bad"))

    assert [type(None), RecordRefusedError] == [type(fault) for fault in await end_of(good, bad)]


async def test_a_record_over_the_limit_keeps_its_group_back(publisher: LoopPublisher, broker: MemoryBroker) -> None:
    """Nothing of it is sent."""
    large = record(bytes(RECORD_BYTES_MAX + 10_000))

    (fault,) = await end_of(hand_over(publisher, record(b"small"), large))

    assert isinstance(fault, RecordRefusedError)
    assert [] == broker.produced


async def test_a_full_queue_refuses_a_group_at_once(broker: MemoryBroker) -> None:
    """Whole; what was taken before is not harmed."""
    publisher = LoopPublisher("broker.test:9092", queue_records_max=2)
    taken = hand_over(publisher, record(b"1"), record(b"2"))
    refused = hand_over(publisher, record(b"3"))

    assert isinstance(refused.result(), LogUnavailableError)
    assert [None] == await end_of(taken)
    assert len(broker.produced) == 1
    await publisher.close()


async def test_without_a_broker_groups_fail_in_time(broker: MemoryBroker) -> None:
    """Those of a topic that is known, and those of one that is not yet."""
    broker.away = True
    publisher = LoopPublisher("broker.test:9092", delivery_seconds=0.05)

    (fault,) = await end_of(hand_over(publisher, record(b"value")))

    assert isinstance(fault, LogUnavailableError)
    broker.away = False
    assert [None] == await end_of(hand_over(publisher, record(b"value")))
    await publisher.close()


async def test_what_expires_in_doubt_costs_the_identity(broker: MemoryBroker) -> None:
    """The next batch has numbers of another producer, so none is taken for what expired."""
    publisher = LoopPublisher("broker.test:9092", delivery_seconds=0.2)
    broker.outcomes += [{("a", 0): NOT_LEADER}] * 10_000

    (fault,) = await end_of(hand_over(publisher, record(b"lost")))
    broker.outcomes.clear()

    assert isinstance(fault, LogUnavailableError)
    assert [None] == await end_of(hand_over(publisher, record(b"kept")))
    assert (2, 0) == numbered(broker.produced[-1]["a", 0])
    await publisher.close()


async def test_a_topic_that_comes_later_gets_what_waited_for_it(publisher: LoopPublisher, broker: MemoryBroker) -> None:
    """A broker that has just been set up may not know it at first."""
    group = hand_over(publisher, record(b"value", "late"))
    await broker.asked_for_topics(3)

    broker.topics["late"] = 1

    assert [None] == await end_of(group)


async def test_closing_waits_for_what_is_under_way_and_takes_nothing_more(broker: MemoryBroker) -> None:
    """A group handed over after that is refused."""
    publisher = LoopPublisher("broker.test:9092")
    group = hand_over(publisher, record(b"value"))

    await publisher.close()

    assert group.result() is None
    assert isinstance(hand_over(publisher, record(b"late")).result(), LogUnavailableError)


async def test_closing_gives_up_what_the_broker_does_not_answer(broker: MemoryBroker) -> None:
    """Its group ends before `close` does."""
    publisher = LoopPublisher("broker.test:9092", delivery_seconds=0.05)
    broker.outcomes += [SILENCE] * 10_000
    group = hand_over(publisher, record(b"value"))

    await publisher.close()

    assert isinstance(group.result(), LogUnavailableError)


@pytest.mark.parametrize("bootstrap", ["", "broker.test", "broker.test:kafka"])
async def test_what_is_no_address_is_said_to_be_none(bootstrap: str) -> None:
    """At once."""
    with pytest.raises(ConfigurationError, match="host:port"):
        LoopPublisher(bootstrap)
