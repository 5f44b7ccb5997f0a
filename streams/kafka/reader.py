"""KafkaReader: reads what it is told to, from where it is told to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from operator import is_, methodcaller
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import IntegrityError, LogUnavailableError, QuaestorError, ReplacedError
from streams.kafka import admin, configuration
from streams.log import Headers, LogRecord, Partition
from streams.runs import Run

#: Errors of a broker that has just begun to lead a partition, which librdkafka hands on instead of asking again.
PASSING = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError._TRANSPORT,  # noqa: SLF001 - its public name
    }
)
PASSING_SECONDS = 0.05
ASK_SECONDS_MIN = 0.1
#: The one fault that ends a consumer for good; librdkafka tells it as fatal, with the broker's words.
REPLACED = frozenset({KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL})  # noqa: SLF001 - its public name
GONE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})  # noqa: SLF001 - its public name
_error_of, _topic_of, _partition_of, _offset_of, _key_of, _value_of, _headers_of = map(
    methodcaller, ("error", "topic", "partition", "offset", "key", "value", "headers")
)


class KafkaReader:
    """LogReader on Kafka."""

    def __init__(self, bootstrap: str, client_id: str = "quaestor", consumer: Mapping[str, Any] | None = None) -> None:
        """Connect in the background; `consumer` is the librdkafka configuration when it is not a plain reader's."""
        self._bootstrap = bootstrap
        self._consumer = Consumer(dict(consumer or configuration.reader(bootstrap, client_id)))
        self._fault: QuaestorError | None = None

    def assign(self, cursors: Mapping[Partition, int]) -> None:
        """As the seam says."""
        self._fault = None
        self._consumer.assign([TopicPartition(at.topic, at.number, offset) for at, offset in cursors.items()])

    def seek(self, cursors: Mapping[Partition, int]) -> None:
        """As the seam says."""
        try:
            for at, cursor in cursors.items():
                self._consumer.seek(TopicPartition(at.topic, at.number, cursor))
        except KafkaException as error:
            raise configuration.fault_of_exception(error) from error

    def consume(self, records_max: int, timeout_seconds: float) -> list[LogRecord]:
        """As the seam says."""
        return list(chain.from_iterable(self.consume_runs(records_max, timeout_seconds)))

    def consume_runs(self, records_max: int, timeout_seconds: float) -> list[Run]:
        """`consume`, with nothing made per record."""
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        try:
            messages = self._fetched(records_max, timeout_seconds)
        except KafkaException as error:
            raise configuration.fault_of_exception(error) from error
        errors = list(map(_error_of, messages))
        # By identity: an error of librdkafka can't be compared with None.
        if not all(map(is_, errors, repeat(None))):
            for message, of_it in zip(messages, errors, strict=True):
                if of_it is not None:
                    self._note(message, of_it)
            messages = [message for message, of_it in zip(messages, errors, strict=True) if of_it is None]
        return _runs(messages)

    def _fetched(self, records_max: int, timeout_seconds: float) -> list[Any]:
        """What has come, or what comes first: librdkafka's own consume waits for a full batch or the whole timeout."""
        messages = self._consumer.consume(records_max, 0)
        if messages:
            return list(messages)
        first = self._consumer.poll(timeout_seconds)
        return [] if first is None else [first, *self._consumer.consume(records_max - 1, 0)]

    def _note(self, message: Any, error: KafkaError) -> None:
        """Keep a fault for the next call, so that the records read with it are not lost."""
        if error.code() in REPLACED:
            self._fault = ReplacedError(error.str())
        elif error.code() in GONE:
            self._fault = IntegrityError(f"{message.topic()}/{message.partition()}: {error.str()}")
        elif not error.retriable():
            self._fault = self._fault or configuration.fault_of(error)

    def pause(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        self._consumer.pause([TopicPartition(*at) for at in partitions])

    def resume(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        self._consumer.resume([TopicPartition(*at) for at in partitions])

    def end_offsets(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:
        """As the seam says."""
        return self._offsets(dict.fromkeys(partitions, OFFSET_END), timeout_seconds)

    def begin_offsets(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:
        """As the seam says."""
        return self._offsets(dict.fromkeys(partitions, OFFSET_BEGINNING), timeout_seconds)

    def offsets_at(
        self, time_millis: int, partitions: Sequence[Partition], timeout_seconds: float
    ) -> dict[Partition, int]:
        """As the seam says."""
        found = self._offsets(dict.fromkeys(partitions, time_millis), timeout_seconds)
        later = [at for at, offset in found.items() if offset < 0]
        return found | (self.end_offsets(later, timeout_seconds) if later else {})

    def _offsets(self, times: Mapping[Partition, int], timeout_seconds: float) -> dict[Partition, int]:
        """Kafka's ListOffsets: one round for all partitions of a broker; begin and end are special times."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            asked = [TopicPartition(at.topic, at.number, millis) for at, millis in times.items()]
            left = max(deadline - time.monotonic(), ASK_SECONDS_MIN)
            try:
                answers = self._consumer.offsets_for_times(asked, left)
                errors = [answer.error for answer in answers if answer.error is not None]
            except KafkaException as exception:
                errors = [exception.args[0]]
            if not errors:
                return {Partition(answer.topic, answer.partition): answer.offset for answer in answers}
            if errors[0].code() not in PASSING or time.monotonic() >= deadline:
                raise LogUnavailableError(f"Kafka: {errors[0].str()}")
            time.sleep(PASSING_SECONDS)

    def partitions(self, topics: Sequence[str], timeout_seconds: float) -> list[Partition]:
        """As the seam says."""
        try:
            found = self._consumer.list_topics(timeout=timeout_seconds).topics
        except KafkaException as error:
            raise configuration.fault_of_exception(error) from error
        missing = [topic for topic in topics if topic not in found or found[topic].error is not None]
        if missing:
            raise LogUnavailableError(f"no such topics: {', '.join(missing)}")
        return [Partition(topic, number) for topic in topics for number in sorted(found[topic].partitions)]

    def topic_ids(self, topics: Sequence[str], timeout_seconds: float) -> dict[str, str]:
        """As the seam says."""
        return admin.topic_ids(self._bootstrap, topics, timeout_seconds)

    def close(self) -> None:
        """As the seam says."""
        self._consumer.close()


def _runs(messages: list[Any]) -> list[Run]:
    """Messages without errors by partition, in their order."""
    topics, numbers = list(map(_topic_of, messages)), list(map(_partition_of, messages))
    columns = list(map(_offset_of, messages)), list(map(_key_of, messages)), list(map(_value_of, messages))
    runs, first, count = [], 0, len(messages)
    while first < count:
        topic, number, after = topics[first], numbers[first], first + 1
        while after < count and numbers[after] == number and topics[after] == topic:
            after += 1
        part = slice(first, after)
        of_run = columns[0][part], columns[1][part], columns[2][part]
        runs.append(Run(topic, number, of_run, messages[part], _record))
        first = after
    return runs


def _record(message: Any) -> LogRecord:
    return LogRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        _Headers(message),
    )


class _Headers(Sequence[tuple[str, bytes]]):
    """A message's headers, taken apart when somebody asks: nobody does on the way to a store.

    Kafka lets a header have no value, which is an empty one here. Where a name is no text there are none.
    """

    __slots__ = ("_headers", "_message")

    def __init__(self, message: Any) -> None:
        self._message = message
        self._headers: Headers = ()

    def _all(self) -> Headers:
        message, self._message = self._message, None
        if message is not None:
            # The client's word for a name that is no text. A plain call would give out what is no object instead, once
            # the interpreter has specialised it; so would a second one.
            with contextlib.suppress(SystemError):
                self._headers = tuple((name, value or b"") for name, value in _headers_of(message) or ())
        return self._headers

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())
