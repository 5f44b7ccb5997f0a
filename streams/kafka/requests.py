"""The three questions that a publisher asks a broker, and their answers.

Metadata 4 (who leads what), InitProducerId 0 (who am I) and Produce 7 (take these batches), which brokers since 2.1
answer. The bytes are those of the public protocol; numbers are big-endian, a text and a list begin with their length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

#: Question and its version.
METADATA, PRODUCER_ID, PRODUCE = (3, 4), (22, 0), (0, 7)
#: What reading an answer raises that is none.
MALFORMED = (struct.error, UnicodeDecodeError, ValueError)
ACKS_ALL = -1
NOTHING = -1
HEAD = struct.Struct(">hhi")
SHORT, INT = struct.Struct(">h"), struct.Struct(">i")
PRODUCE_BEGIN = struct.Struct(">hhii")
PARTITION_BEGIN = struct.Struct(">ii")
#: Error, first offset, time of the append, first offset kept.
PARTITION_END = struct.Struct(">ihqqq")
LONG_AND_SHORT = struct.Struct(">qh")


class Identity(NamedTuple):
    """Who a producer is to the brokers: what they know a batch that comes again by."""

    producer_id: int
    epoch: int


class Cluster(NamedTuple):
    """Who leads what."""

    #: Host and port of each broker.
    brokers: Mapping[int, tuple[str, int]]
    #: The leader of each partition, in their order; None for one without.
    leaders: Mapping[str, Sequence[int | None]]
    #: Error codes of the topics that can't be told of.
    errors: Mapping[str, int]


def head(question: tuple[int, int], correlation: int, client_id: str) -> bytes:
    """What a question begins with; the answer begins with the same `correlation`."""
    return HEAD.pack(*question, correlation) + _text(client_id)


def metadata_question(topics: Iterable[str]) -> bytes:
    """Who leads the partitions of these topics, and where are the brokers; makes no topic."""
    names = [_text(topic) for topic in topics]
    return b"".join((INT.pack(len(names)), *names, b"\0"))


def producer_id_question() -> bytes:
    """An identity without transactions."""
    return SHORT.pack(NOTHING) + INT.pack(NOTHING)


def produce_question(batches: Mapping[str, Sequence[tuple[int, bytes]]], wait_milliseconds: int) -> list[bytes]:
    """Append a batch to each of these partitions, on every replica in sync; as pieces."""
    pieces = [PRODUCE_BEGIN.pack(NOTHING, ACKS_ALL, wait_milliseconds, len(batches))]
    for topic, partitions in batches.items():
        pieces += (_text(topic), INT.pack(len(partitions)))
        for number, batch in partitions:
            pieces += (PARTITION_BEGIN.pack(number, len(batch)), batch)
    return pieces


def read_cluster(answer: bytes) -> Cluster:
    """The answer to `metadata_question`; raises MALFORMED."""
    said = _Reader(answer)
    said.number()
    brokers = {}
    for _ in range(said.count()):
        number = said.number()
        brokers[number] = (said.text() or "", said.number())
        said.text()
    said.text()
    said.number()
    leaders: dict[str, list[int | None]] = {}
    errors = {}
    for _ in range(said.count()):
        error, topic = said.short(), said.text() or ""
        said.byte()
        found = said.partitions()
        if error:
            errors[topic] = error
        else:
            leaders[topic] = [found.get(number) for number in range(len(found))]
    return Cluster(brokers, leaders, errors)


def read_identity(answer: bytes) -> Identity | int:
    """The answer to `producer_id_question`, or its error code; raises MALFORMED."""
    said = _Reader(answer)
    said.number()
    error = said.short()
    return error or Identity(*said.take(LONG_AND_SHORT))


def read_produced(answer: bytes) -> dict[tuple[str, int], int]:
    """Of each partition the error code, 0 where the batch stands; raises MALFORMED."""
    said = _Reader(answer)
    codes = {}
    for _ in range(said.count()):
        topic = said.text() or ""
        for _ in range(said.count()):
            number, error, *_ = said.take(PARTITION_END)
            codes[topic, number] = error
    return codes


def _text(text: str) -> bytes:
    data = text.encode()
    return SHORT.pack(len(data)) + data


class _Reader:
    """Takes one value after the other off an answer."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    def byte(self) -> None:
        self._at += 1

    def short(self) -> int:
        return self.take(SHORT)[0]

    def number(self) -> int:
        return self.take(INT)[0]

    def count(self) -> int:
        """Of what follows, which takes a byte each at least."""
        count = self.number()
        if count > len(self._data):
            raise ValueError("a list longer than its answer")
        return max(count, 0)

    def text(self) -> str | None:
        length = self.short()
        if length < 0:
            return None
        begin, self._at = self._at, self._at + length
        return self._data[begin : self._at].decode()

    def partitions(self) -> dict[int, int | None]:
        """The leader of each partition."""
        found: dict[int, int | None] = {}
        for _ in range(self.count()):
            self.short()
            number, leader = self.number(), self.number()
            found[number] = leader if leader >= 0 else None
            for _ in ("replicas", "in sync"):
                for _ in range(self.count()):
                    self.number()
        return found
