"""The Kafka publisher and readers when Kafka is away, killed and back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from infra.embedded.servers.kafka import KafkaServer
from schemas.errors import ConfigurationError, LogError, LogUnavailableError
from schemas.topics import BUDGETS, CONTROL, Topic
from streams.kafka import KafkaPublisher, KafkaReader, LoopPublisher, ensure_topics, topic_ids
from streams.log import LogRecord, OutgoingRecord, Partition, Publisher
from tests.support.kafka_server import start_kafka
from tests.support.loop_publisher import ThreadedPublisher
from tests.support.proxy import NetworkFault, Proxy

pytestmark = pytest.mark.stack

NOWHERE = "127.0.0.1:1"
SECONDS = 60.0
BRIEFLY = 0.2
AT = Partition(CONTROL.name, 0)


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    """A Kafka that these tests may kill."""
    kafka = start_kafka()
    ensure_topics(address(kafka))
    yield kafka
    kafka.stop()


def address(server: KafkaServer) -> str:
    """Where it listens."""
    return server.settings()["kafka_bootstrap"]


def record(number: int) -> OutgoingRecord:
    """One numbered record."""
    return OutgoingRecord(CONTROL.name, b"key", b"%d" % number, ())


class Outcomes:
    """Outcomes of groups, in the order of their end."""

    def __init__(self) -> None:
        """None yet."""
        self.faults: list[LogError | None] = []
        self._changed = threading.Condition()

    def done(self, fault: LogError | None) -> None:
        """One group ended."""
        with self._changed:
            self.faults.append(fault)
            self._changed.notify_all()

    def wait(self, count: int) -> list[LogError | None]:
        """Until so many have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.faults) >= count, SECONDS), len(self.faults)
            return list(self.faults)


def at_once(bootstrap: str) -> KafkaPublisher:
    """A publisher that waits for no company."""
    return KafkaPublisher(bootstrap, linger_milliseconds=0)


def end_of_log(server: KafkaServer) -> int:
    """Where the next record of the one partition goes."""
    reader = KafkaReader(address(server))
    end = reader.end_offsets([AT], SECONDS)[AT]
    reader.close()
    return end


def read_all(reader: KafkaReader, begin: int = 0) -> list[LogRecord]:
    """Everything on the one partition from there on."""
    records: list[LogRecord] = []
    reader.assign({AT: begin})
    end = reader.end_offsets([AT], SECONDS)[AT]
    deadline = time.monotonic() + SECONDS
    while len(records) < end - begin and time.monotonic() < deadline:
        records += reader.consume(1_000, 0.5)
    return records


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers that give up after a second instead of five."""
    monkeypatch.setattr("streams.kafka.configuration.DELIVERY_TIMEOUT_SECONDS", 1)


@pytest.mark.usefixtures("impatient")
def test_a_publisher_without_kafka_says_so_within_the_delivery_timeout() -> None:
    """Once per group, as unavailable: try again."""
    publisher, outcomes = KafkaPublisher(NOWHERE), Outcomes()
    publisher.publish([record(1), record(2)], outcomes.done)

    (fault,) = outcomes.wait(1)

    assert isinstance(fault, LogUnavailableError)
    assert publisher.flush(SECONDS) == 0
    publisher.close()


@pytest.mark.usefixtures("impatient")
def test_a_full_queue_refuses_the_group_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither blocks nor grows: the group ends with the first fault, once nothing of it is under way."""
    monkeypatch.setattr("streams.kafka.configuration.PRODUCER_QUEUE_RECORDS_MAX", 10)
    publisher, outcomes = KafkaPublisher(NOWHERE), Outcomes()
    begun = time.monotonic()

    publisher.publish([record(number) for number in range(20)], outcomes.done)

    assert time.monotonic() - begun < SECONDS / 10
    (fault,) = outcomes.wait(1)
    assert isinstance(fault, LogUnavailableError)
    assert str(fault) == "the producer's queue is full"
    publisher.close()


def test_a_lost_or_late_answer_doubles_nothing(server: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the network does to a request of the gateway's publisher: every group stands once, in order."""
    proxy = Proxy(int(address(server).rpartition(":")[2]))
    port = proxy.start()
    connect = LoopPublisher._connect
    monkeypatch.setattr(LoopPublisher, "_connect", lambda self, *_: connect(self, "127.0.0.1", port))
    publisher, outcomes, begin = ThreadedPublisher(address(server)), Outcomes(), end_of_log(server)
    for number, fault in enumerate(list(NetworkFault) * 2):
        proxy.arm(fault, CONTROL.name.encode(), seconds=BRIEFLY)
        publisher.publish([record(2 * number), record(2 * number + 1)], outcomes.done)
        outcomes.wait(number + 1)

    reader, count = KafkaReader(address(server)), 4 * len(NetworkFault)
    assert [None] * (count // 2) == outcomes.faults
    assert proxy.hits == count // 2
    assert list(range(count)) == [int(kept.value or b"") for kept in read_all(reader, begin)]
    publisher.close()
    reader.close()
    proxy.stop()


def test_questions_without_kafka_end_in_time() -> None:
    """Each with the same fault."""
    reader = KafkaReader(NOWHERE)
    for ask in (
        lambda: reader.partitions([CONTROL.name], BRIEFLY),
        lambda: reader.end_offsets([AT], BRIEFLY),
        lambda: reader.topic_ids([CONTROL.name], BRIEFLY),
        lambda: ensure_topics(NOWHERE, timeout_seconds=BRIEFLY),
    ):
        with pytest.raises(LogUnavailableError):
            ask()
    reader.close()


def test_topics_are_made_once_and_their_partitions_checked(server: KafkaServer) -> None:
    """Again is a no-op; another count is a mistake that nothing must run on."""
    assert [] == ensure_topics(address(server))
    wrong = Topic(BUDGETS.name, BUDGETS.event_type, BUDGETS.partitions + 1, BUDGETS.key_of)

    with pytest.raises(ConfigurationError, match="partitions"):
        ensure_topics(address(server), [wrong])


def test_topics_are_told_apart_by_their_ids(server: KafkaServer) -> None:
    """Each has its own."""
    found = topic_ids(address(server), [BUDGETS.name, CONTROL.name], SECONDS)

    assert len(set(found.values())) == 2


def test_an_unknown_topic_is_named(server: KafkaServer) -> None:
    """Its partitions can't be told."""
    reader = KafkaReader(address(server))
    with pytest.raises(LogUnavailableError, match="nowhere"):
        reader.partitions(["nowhere"], SECONDS)
    reader.close()


@pytest.mark.parametrize("publisher_on", [at_once, ThreadedPublisher])
def test_a_killed_broker_loses_nothing_it_acknowledged_and_doubles_nothing(
    server: KafkaServer, publisher_on: Callable[[str], Publisher]
) -> None:
    """Groups acknowledged around a kill -9 and a restart are all there, once, in order; the others said so."""
    publisher, outcomes, begin = publisher_on(address(server)), Outcomes(), end_of_log(server)
    acknowledged: list[int] = []
    for number in range(300):
        if number == 100:
            assert server.child is not None
            server.child.kill()
            restarted = threading.Thread(target=server.start)
            restarted.start()

        def done(fault: LogError | None, number: int = number) -> None:
            if fault is None:
                acknowledged.append(number)
            outcomes.done(fault)

        publisher.publish([record(number)], done)
        if number < 100:
            outcomes.wait(number + 1)
    restarted.join()
    outcomes.wait(300)
    reader = KafkaReader(address(server))

    written = [int(kept.value or b"") for kept in read_all(reader, begin)]

    assert sorted(set(written)) == written
    assert set(acknowledged) <= set(written)
    assert len(acknowledged) >= 100
    publisher.close()
    reader.close()


def test_a_reader_goes_on_after_a_restart(server: KafkaServer) -> None:
    """Without a new assignment, and without a gap."""
    publisher, outcomes, reader = KafkaPublisher(address(server)), Outcomes(), KafkaReader(address(server))
    end = reader.end_offsets([AT], SECONDS)[AT]
    reader.assign({AT: end})
    publisher.publish([record(1_000)], outcomes.done)
    outcomes.wait(1)
    server.stop()
    server.start()
    deadline = time.monotonic() + SECONDS
    while outcomes.wait(1)[-1] is not None or len(outcomes.faults) < 2:
        assert time.monotonic() < deadline
        publisher.publish([record(1_001)], outcomes.done)
        outcomes.wait(len(outcomes.faults) + 1)

    records: list[LogRecord] = []
    while len(records) < 2:
        assert time.monotonic() < deadline
        records += reader.consume(10, 0.5)

    assert [end, end + 1] == [kept.offset for kept in records[:2]]
    publisher.close()
    reader.close()
