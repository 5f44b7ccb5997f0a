"""One Kafka broker without a network, as far as a publisher asks it anything; a test says what goes wrong."""

from __future__ import annotations

import asyncio
from collections import deque
from io import BytesIO
from typing import Any

from aiokafka.protocol.metadata import MetadataResponse_v4
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from aiokafka.protocol.transaction import InitProducerIdResponse_v0
from aiokafka.record.default_records import DefaultRecordBatch

from streams.kafka.link import Link
from streams.kafka.requests import HEAD, INT, METADATA, PRODUCE, SHORT
from tests.support.gateway_world import until

TOPIC_UNKNOWN = 3
#: Instead of error codes: the answer never comes, or the connection ends before it.
SILENCE, HANG_UP = "silence", "hang up"
Outcome = dict[tuple[str, int], int] | str


class MemoryBroker:
    """Takes batches, and says of each what the test wants."""

    def __init__(self, **topics: int) -> None:
        """Topics and how many partitions each has."""
        self.topics = topics
        self.away = False
        #: Of every produce request the batches, by topic and partition.
        self.produced: list[dict[tuple[str, int], bytes]] = []
        #: Of the next produce requests: error codes by partition, or what happens instead of an answer.
        self.outcomes: deque[Outcome] = deque()
        #: Answers that a test holds back until it says `release`.
        self.holding = False
        self._held: list[tuple[_Wire, bytes]] = []
        #: How often it made an identity, and said who leads what.
        self.identities = self.told = 0
        self.connected = 0

    async def connect(self, *_: object) -> Link:
        """A link to it; raises OSError while it is away."""
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionRefusedError("nobody listens")
        self.connected += 1
        link = Link(asyncio.get_running_loop(), "test")
        link.connection_made(_Wire(self, link))
        return link

    async def requests(self, count: int) -> list[dict[tuple[str, int], bytes]]:
        """What was produced, once there are so many requests."""
        async with asyncio.timeout(10):
            await until(lambda: len(self.produced) >= count)
        return self.produced

    async def asked_for_topics(self, times: int) -> None:
        """Return when it was asked so often who leads what."""
        async with asyncio.timeout(10):
            await until(lambda: self.told >= times)

    def release(self) -> None:
        """Hand the held answers out, and hold no more."""
        self.holding = False
        for wire, answer in self._held:
            wire.link.data_received(answer)
        self._held = []

    def asked(self, wire: _Wire, question: bytes) -> None:
        """Answer one question in the next turn of the loop."""
        key, version, correlation = HEAD.unpack_from(question)
        (client,) = SHORT.unpack_from(question, HEAD.size)
        body = question[HEAD.size + SHORT.size + client :]
        if (key, version) == PRODUCE:
            said = self._produce(body)
            if said is HANG_UP:
                wire.abort()
            if isinstance(said, str):
                return
        else:
            said = self._metadata() if (key, version) == METADATA else self._identity()
        encoded = INT.pack(correlation) + said.encode()
        answer = INT.pack(len(encoded)) + encoded
        if self.holding and (key, version) == PRODUCE:
            self._held.append((wire, answer))
        else:
            asyncio.get_running_loop().call_soon(wire.link.data_received, answer)

    def _produce(self, body: bytes) -> Any:
        topics = ProduceRequest_v7.decode(BytesIO(body)).topics
        batches = {(topic, number): data for topic, partitions in topics for number, data in partitions}
        self.produced.append(batches)
        outcome = self.outcomes.popleft() if self.outcomes else {}
        if isinstance(outcome, str):
            return outcome
        return ProduceResponse_v7([(topic, [(n, outcome.get((topic, n), 0), 0, 0, 0)]) for topic, n in batches], 0)

    def _metadata(self) -> Any:
        self.told += 1
        known = [
            (0, topic, False, [(0, number, 1, [1], [1]) for number in range(count)])
            for topic, count in self.topics.items()
        ]
        return MetadataResponse_v4(0, [(1, "broker.test", 9092, None)], "memory", 1, known)

    def _identity(self) -> Any:
        self.identities += 1
        return InitProducerIdResponse_v0(0, 0, self.identities, 0)


class _Wire(asyncio.Transport):
    """The transport of one link."""

    def __init__(self, broker: MemoryBroker, link: Link) -> None:
        super().__init__()
        self.broker, self.link = broker, link
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.broker.asked(self, bytes(data)[INT.size :])

    def is_closing(self) -> bool:
        return self._closed

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self.link.connection_lost, None)


def values(batch: bytes) -> list[bytes]:
    """The values of the records of a batch."""
    return [record.value for record in DefaultRecordBatch(batch)]


def numbered(batch: bytes) -> tuple[int, int]:
    """Producer and first sequence number of a batch."""
    found = DefaultRecordBatch(batch)
    return found.producer_id, found.base_sequence
