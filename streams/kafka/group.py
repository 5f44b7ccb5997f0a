"""KafkaGroupReader: a reader whose partitions come and go with its group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from schemas.errors import QuaestorError
from streams.kafka import configuration
from streams.kafka.reader import KafkaReader
from streams.log import Membership, Partition
from streams.runs import Run


class KafkaGroupReader(KafkaReader):
    """GroupReader on Kafka, cooperative: a rebalance moves only the partitions that change hands.

    `consume` also raises ReplacedError once a newer process of the same instance name joined the group.
    """

    def __init__(
        self, bootstrap: str, group: str, client_id: str = "quaestor", membership: Membership | None = None
    ) -> None:
        """Connect in the background; subscribe joins the group."""
        membership = membership or Membership()
        super().__init__(bootstrap, client_id, configuration.group_reader(bootstrap, client_id, group, membership))
        self._hints: dict[Partition, int] = {}
        self._unclaimed: set[Partition] = set()
        self._cursors_of: Callable[[Sequence[Partition]], Mapping[Partition, int]] = lambda _: {}

    def subscribe(
        self,
        topics: Sequence[str],
        cursors_of: Callable[[Sequence[Partition]], Mapping[Partition, int]],
        on_revoke: Callable[[Sequence[Partition]], None],
    ) -> None:
        """As the seam says."""
        self._cursors_of = cursors_of

        def assigned(consumer: Any, given: list[TopicPartition]) -> None:
            if given:
                self._take(consumer, _partitions(given))

        def revoked(consumer: Any, taken: list[TopicPartition]) -> None:
            leaving = self._claimed(_partitions(taken))
            if leaving:
                on_revoke(leaving)
                self._commit(leaving, wait=True)
            if taken:
                consumer.incremental_unassign(taken)

        def lost(consumer: Any, taken: list[TopicPartition]) -> None:
            leaving = self._claimed(_partitions(taken))
            if leaving:
                on_revoke(leaving)
            self._forget(leaving)
            consumer.incremental_unassign(taken)

        self._consumer.subscribe(list(topics), on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def consume_runs(self, records_max: int, timeout_seconds: float) -> list[Run]:
        """As the seam says; also raises what `cursors_of` raises, and asks it again the next time."""
        if self._unclaimed and self._fault is None:
            again = sorted(self._unclaimed)
            cursors = self._cursors_of(again)
            self._unclaimed.clear()
            self._consumer.incremental_unassign([TopicPartition(*at) for at in again])
            self._consumer.incremental_assign(_positions(cursors))
            self._consumer.resume([TopicPartition(*at) for at in again])
        return super().consume_runs(records_max, timeout_seconds)

    def _take(self, consumer: Any, given: list[Partition]) -> None:
        """Begin with partitions just given. When their cursors can't be had yet they are ours, and silent."""
        try:
            cursors = self._cursors_of(given)
        except QuaestorError as error:
            # Raised in this callback it would be lost, and Kafka's own position used: consume raises it instead.
            self._fault = error
            self._unclaimed.update(given)
            consumer.incremental_assign([TopicPartition(*at, 0) for at in given])
            consumer.pause([TopicPartition(*at) for at in given])
            return
        consumer.incremental_assign(_positions(cursors))

    def _claimed(self, partitions: Sequence[Partition]) -> list[Partition]:
        """Those of them whose cursors were had; the others are forgotten."""
        claimed = [at for at in partitions if at not in self._unclaimed]
        self._unclaimed.difference_update(partitions)
        return claimed

    def commit_hint(self, cursors: Mapping[Partition, int]) -> None:
        """As the seam says."""
        self._hints.update(cursors)
        self._commit(list(cursors), wait=False)

    def confirm(self, cursors: Mapping[Partition, int]) -> bool:
        """As the seam says."""
        commit: Any = self._consumer.commit
        try:
            answers = commit(offsets=_positions(cursors), asynchronous=False)
        except KafkaException:
            return False
        return all(answer.error is None for answer in answers)

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


def _positions(cursors: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(*at, offset) for at, offset in cursors.items()]
