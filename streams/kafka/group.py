"""KafkaGroupReader: a reader whose partitions come and go with its group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from streams.kafka import configuration
from streams.kafka.reader import KafkaReader
from streams.log import Partition


class KafkaGroupReader(KafkaReader):
    """GroupReader on Kafka, cooperative: a rebalance moves only the partitions that change hands."""

    def __init__(self, bootstrap: str, group: str, client_id: str = "quaestor") -> None:
        """Connect in the background; subscribe joins the group."""
        super().__init__(bootstrap, client_id, configuration.group_reader(bootstrap, client_id, group))
        self._hints: dict[Partition, int] = {}

    def subscribe(
        self,
        topics: Sequence[str],
        cursors_of: Callable[[Sequence[Partition]], Mapping[Partition, int]],
        on_revoke: Callable[[Sequence[Partition]], None],
    ) -> None:
        """As the seam says."""

        def assigned(consumer: Any, given: list[TopicPartition]) -> None:
            if given:
                cursors = cursors_of(_partitions(given))
                consumer.incremental_assign([TopicPartition(*at, offset) for at, offset in cursors.items()])

        def revoked(consumer: Any, taken: list[TopicPartition]) -> None:
            if taken:
                leaving = _partitions(taken)
                on_revoke(leaving)
                self._commit(leaving, wait=True)
                consumer.incremental_unassign(taken)

        def lost(consumer: Any, taken: list[TopicPartition]) -> None:
            on_revoke(_partitions(taken))
            self._forget(_partitions(taken))
            consumer.incremental_unassign(taken)

        self._consumer.subscribe(list(topics), on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def commit_hint(self, cursors: Mapping[Partition, int]) -> None:
        """As the seam says."""
        self._hints.update(cursors)
        self._commit(list(cursors), wait=False)

    def committed(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:
        """As the seam says."""
        try:
            answers = self._consumer.committed([TopicPartition(*at) for at in partitions], timeout_seconds)
        except KafkaException as error:
            raise configuration.fault_of_exception(error) from error
        return {Partition(answer.topic, answer.partition): answer.offset for answer in answers if answer.offset >= 0}

    def _commit(self, partitions: Sequence[Partition], *, wait: bool) -> None:
        offsets = [TopicPartition(*at, self._hints[at]) for at in partitions if at in self._hints]
        if wait:
            self._forget(partitions)
        if not offsets:
            return
        commit: Any = self._consumer.commit
        try:
            commit(offsets=offsets, asynchronous=not wait)
        except KafkaException:
            # A hint that does not stick costs a repetition and nothing else.
            return

    def _forget(self, partitions: Sequence[Partition]) -> None:
        for at in partitions:
            self._hints.pop(at, None)

    def close(self) -> None:
        """As the seam says: what is owned is revoked first, then the group is left."""
        self._consumer.close()


def _partitions(given: Sequence[TopicPartition]) -> list[Partition]:
    return [Partition(one.topic, one.partition) for one in given]
