"""The log in this process: the same seam as `streams.kafka` without a broker, for tests and for trying processors out.

`MemoryLog` holds the records; publishers and readers of it may be many. It can be taken away (`away = True`), truncated
(`truncate`) and re-created (`recreate`), so that what happens then can be tried without a broker. Thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import NAMESPACE_OID, uuid5

from schemas.errors import IntegrityError, LogUnavailableError, RecordRefusedError
from schemas.limits import RECORD_BYTES_MAX
from schemas.topics import TOPICS
from streams.log import Done, LogRecord, OutgoingRecord, Partition
from streams.partitioner import partition_of
from streams.runs import Run, runs_of


class MemoryLog:
    """Topics with their records, and the groups that share them."""

    def __init__(
        self,
        topics: Mapping[str, int] | None = None,
        clock_millis: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`topics` gives each topic's partitions and defaults to the product's own; the clock stamps records."""
        counts = topics or {topic.name: topic.partitions for topic in TOPICS}
        self.counts = dict(counts)
        self.away = False
        self.lock = threading.Condition()
        self.records: dict[Partition, list[LogRecord]] = {
            Partition(name, number): [] for name in counts for number in range(counts[name])
        }
        self.begins = dict.fromkeys(self.records, 0)
        self.versions = dict.fromkeys(counts, 0)
        self.groups: dict[str, MemoryGroup] = {}
        self.clock_millis = clock_millis

    def publisher(self) -> MemoryPublisher:
        """A publisher into this log."""
        return MemoryPublisher(self)

    def reader(self) -> MemoryReader:
        """A reader of this log."""
        return MemoryReader(self)

    def group_reader(self, group: str) -> MemoryGroupReader:
        """A reader that shares its partitions with the other readers of its group."""
        return MemoryGroupReader(self, self.groups.setdefault(group, MemoryGroup()))

    def end(self, partition: Partition) -> int:
        """The next offset the partition will give out."""
        return self.begins[partition] + len(self.records[partition])

    def truncate(self, partition: Partition, begin: int) -> None:
        """Forget the records before an offset, as retention does."""
        with self.lock:
            del self.records[partition][: begin - self.begins[partition]]
            self.begins[partition] = begin

    def recreate(self, topic: str) -> None:
        """Delete a topic and create it anew: its records go, its id changes."""
        with self.lock:
            self.versions[topic] += 1
            for partition in self.records:
                if partition.topic == topic:
                    self.records[partition].clear()
                    self.begins[partition] = 0

    def append(self, record: OutgoingRecord) -> None:
        """Write one record; the caller holds the lock."""
        partition = Partition(record.topic, partition_of(record.key, self.counts[record.topic]))
        end, now = self.end(partition), self.clock_millis()
        kept = LogRecord(record.topic, partition.number, end, now, record.key, record.value, record.headers)
        self.records[partition].append(kept)

    def demand(self) -> None:
        """Raise LogUnavailableError while the log is away."""
        if self.away:
            raise LogUnavailableError


class MemoryGroup:
    """The members of one group, who owns what, and what they committed."""

    def __init__(self) -> None:
        """Nobody has joined."""
        self.members: list[MemoryGroupReader] = []
        self.committed: dict[Partition, int] = {}
        self.owners: dict[Partition, MemoryGroupReader] = {}

    def wanted(self, reader: MemoryGroupReader) -> set[Partition]:
        """The partitions that should be this member's: round robin over those who want the topic."""
        share = set()
        for partition in reader.log.records:
            takers = [member for member in self.members if partition.topic in member.topics]
            if takers and takers[partition.number % len(takers)] is reader:
                share.add(partition)
        return share


class MemoryPublisher:
    """Publisher into a MemoryLog: a group is written whole, at once."""

    def __init__(self, log: MemoryLog) -> None:
        """Write into this log."""
        self._log = log

    def publish(self, records: Sequence[OutgoingRecord], done: Done) -> None:
        """As the seam says; the group is acknowledged before this returns."""
        if self._log.away:
            done(LogUnavailableError())
            return
        if any(len(record.value) > RECORD_BYTES_MAX for record in records):
            done(RecordRefusedError("a record is over the size limit"))
            return
        with self._log.lock:
            for record in records:
                self._log.append(record)
            self._log.lock.notify_all()
        done(None)

    def flush(self, timeout_seconds: float) -> int:  # noqa: ARG002 - the seam's signature
        """Nothing is ever under way."""
        return 0

    def close(self) -> None:
        """Nothing to let go."""


class MemoryReader:
    """Reader of a MemoryLog."""

    def __init__(self, log: MemoryLog) -> None:
        """Read from this log."""
        self.log = log
        self._cursors: dict[Partition, int] = {}
        self._paused: set[Partition] = set()

    def assign(self, cursors: Mapping[Partition, int]) -> None:
        """As the seam says."""
        self._cursors = dict(cursors)
        self._paused.clear()

    def seek(self, cursors: Mapping[Partition, int]) -> None:
        """As the seam says."""
        self._cursors.update({at: cursor for at, cursor in cursors.items() if at in self._cursors})

    def consume(self, records_max: int, timeout_seconds: float) -> list[LogRecord]:
        """As the seam says."""
        with self.log.lock:
            self.log.demand()
            taken = self._take(records_max)
            if not taken and timeout_seconds > 0:
                self.log.lock.wait(timeout_seconds)
                taken = self._take(records_max)
            return taken

    def consume_runs(self, records_max: int, timeout_seconds: float) -> list[Run]:
        """As the seam says."""
        return runs_of(self.consume(records_max, timeout_seconds))

    def _take(self, records_max: int) -> list[LogRecord]:
        taken: list[LogRecord] = []
        for partition, cursor in self._cursors.items():
            begin = self.log.begins[partition]
            if not begin <= cursor <= self.log.end(partition):
                raise IntegrityError(f"{partition} has no offset {cursor}")
            if partition in self._paused:
                continue
            chunk = self.log.records[partition][cursor - begin :][: records_max - len(taken)]
            self._cursors[partition] = cursor + len(chunk)
            taken += chunk
        return taken

    def pause(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        self._paused.difference_update(partitions)

    def end_offsets(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:  # noqa: ARG002
        """As the seam says."""
        self.log.demand()
        return {partition: self.log.end(partition) for partition in partitions}

    def begin_offsets(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:  # noqa: ARG002
        """As the seam says."""
        self.log.demand()
        return {partition: self.log.begins[partition] for partition in partitions}

    def offsets_at(
        self,
        time_millis: int,
        partitions: Sequence[Partition],
        timeout_seconds: float,  # noqa: ARG002 - the seam's signature
    ) -> dict[Partition, int]:
        """As the seam says."""
        self.log.demand()
        return {partition: self._offset_at(time_millis, partition) for partition in partitions}

    def _offset_at(self, time_millis: int, partition: Partition) -> int:
        later = (record.offset for record in self.log.records[partition] if record.timestamp_millis >= time_millis)
        return next(later, self.log.end(partition))

    def partitions(self, topics: Sequence[str], timeout_seconds: float) -> list[Partition]:  # noqa: ARG002
        """As the seam says."""
        self.log.demand()
        return [Partition(topic, number) for topic in topics for number in range(self.log.counts[topic])]

    def topic_ids(self, topics: Sequence[str], timeout_seconds: float) -> dict[str, str]:  # noqa: ARG002
        """As the seam says."""
        self.log.demand()
        return {topic: str(uuid5(NAMESPACE_OID, f"{topic}/{self.log.versions[topic]}")) for topic in topics}

    def close(self) -> None:
        """As the seam says."""
        self._cursors.clear()


class MemoryGroupReader(MemoryReader):
    """Reader of a MemoryLog that shares its partitions with its group; rebalances happen inside consume."""

    def __init__(self, log: MemoryLog, group: MemoryGroup) -> None:
        """Become a possible member; subscribe joins."""
        super().__init__(log)
        self.topics: tuple[str, ...] = ()
        self._group = group

    def subscribe(
        self,
        topics: Sequence[str],
        cursors_of: Callable[[Sequence[Partition]], Mapping[Partition, int]],
        on_revoke: Callable[[Sequence[Partition]], None],
    ) -> None:
        """As the seam says."""
        self.topics = tuple(topics)
        self._cursors_of, self._on_revoke = cursors_of, on_revoke
        with self.log.lock:
            self._group.members.append(self)
            self.log.lock.notify_all()

    def consume(self, records_max: int, timeout_seconds: float) -> list[LogRecord]:
        """As the seam says; gives up what is another's now and takes what is free."""
        self.log.demand()
        self._rebalance()
        return super().consume(records_max, timeout_seconds)

    def _rebalance(self) -> None:
        wanted = self._group.wanted(self)
        leaving = sorted(set(self._cursors) - wanted)
        if leaving:
            self._on_revoke(leaving)
            self._give_up(leaving)
        with self.log.lock:
            free = sorted(partition for partition in wanted if self._group.owners.get(partition, None) is None)
            self._group.owners.update(dict.fromkeys(free, self))
        if free:
            try:
                self._cursors.update(self._cursors_of(free))
            except BaseException:  # whatever it is, the partitions are free again
                with self.log.lock:
                    for partition in free:
                        del self._group.owners[partition]
                raise

    def _give_up(self, partitions: Sequence[Partition]) -> None:
        with self.log.lock:
            for partition in partitions:
                self._cursors.pop(partition, None)
                self._paused.discard(partition)
                if self._group.owners.get(partition) is self:
                    del self._group.owners[partition]
            self.log.lock.notify_all()

    def confirm(self, cursors: Mapping[Partition, int]) -> bool:
        """As the seam says."""
        owners, wanted = self._group.owners, self._group.wanted(self)
        return self in self._group.members and all(at in wanted and owners.get(at) is self for at in cursors)

    def committed(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:  # noqa: ARG002
        """As the seam says."""
        self.log.demand()
        return {at: self._group.committed[at] for at in partitions if at in self._group.committed}

    def commit_hint(self, cursors: Mapping[Partition, int]) -> None:
        """As the seam says."""
        self._group.committed.update(cursors)

    def close(self) -> None:
        """As the seam says: what it owned is revoked, then free for the others."""
        if self in self._group.members:
            owned = sorted(self._cursors)
            if owned:
                self._on_revoke(owned)
            self._give_up(owned)
            self._group.members.remove(self)
