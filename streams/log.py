"""The seam to the log: what the rest of the product asks of Kafka, and nothing more.

Two implementations ship and pass one contract suite (tests/contract/test_log.py): `streams.kafka` and
in this process, `streams.memory`. Offsets: `offset` names a record; a cursor is the *next* offset to read, one past the
last record taken; an end offset is the next offset the partition will give out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from schemas.errors import LogError
from schemas.limits import SESSION_SECONDS

if TYPE_CHECKING:
    from streams.runs import Run

HEARTBEATS_PER_SESSION = 5
#: Name and value of each, in order.
Headers = Sequence[tuple[str, bytes]]
Done = Callable[[LogError | None], None]


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        """As operators write it: topic/number."""
        return f"{self.topic}/{self.number}"


class OutgoingRecord(NamedTuple):
    """A record to be written; the key decides its partition (murmur2, as the JVM clients and Faust hash)."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


class LogRecord(NamedTuple):
    """A record as read."""

    topic: str
    partition: int
    offset: int
    timestamp_millis: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Publisher(Protocol):
    """Writes records. Thread-safe."""

    def publish(self, records: Sequence[OutgoingRecord], done: Done) -> None:
        """Hand a group of records over; returns at once, never blocks.

        `done` is called exactly once for the group, from any thread: with None when every record is acknowledged with
        acks=all, else with the first error once nothing of the group is under way any more. Records of one key keep
        their order within and across groups, also over internal retries. A group given to a full queue is done with
        LogUnavailableError.
        """

    def flush(self, timeout_seconds: float) -> int:
        """Wait until everything handed over is done; returns how many records are still under way. Blocks."""

    def close(self) -> None:
        """Flush within the delivery timeout and let go. Blocks."""


class LogReader(Protocol):
    """Reads assigned partitions from given offsets; commits nothing by itself. Not thread-safe: one thread owns it."""

    def assign(self, cursors: Mapping[Partition, int]) -> None:
        """Read exactly these partitions from these next offsets; replaces any assignment."""

    def seek(self, cursors: Mapping[Partition, int]) -> None:
        """Read these assigned partitions from these next offsets instead; what was fetched of them is dropped."""

    def consume(self, records_max: int, timeout_seconds: float) -> list[LogRecord]:
        """Up to `records_max` records, in order per partition; an empty list after the timeout.

        Raises LogUnavailableError when the log can't be reached for good reason to stop, and IntegrityError when an
        assigned offset no longer exists (retention or re-created topic): never skips silently.
        """

    def consume_runs(self, records_max: int, timeout_seconds: float) -> list[Run]:
        """`consume`, by partition, with nothing made per record; runs of one partition stand in order."""

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Stop fetching these until resumed; what was fetched already is dropped and read again."""

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Fetch these again."""

    def end_offsets(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:
        """End offsets taken now; raises LogUnavailableError. Blocks."""

    def begin_offsets(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:
        """First offsets still kept; raises LogUnavailableError. Blocks."""

    def offsets_at(
        self, time_millis: int, partitions: Sequence[Partition], timeout_seconds: float
    ) -> dict[Partition, int]:
        """First offset at or after a time (end offset where there is none); raises LogUnavailableError. Blocks."""

    def partitions(self, topics: Sequence[str], timeout_seconds: float) -> list[Partition]:
        """All partitions of these topics; raises LogUnavailableError. Blocks."""

    def topic_ids(self, topics: Sequence[str], timeout_seconds: float) -> dict[str, str]:
        """Each topic's UUID, to tell a re-created topic from the old one; raises LogUnavailableError."""

    def close(self) -> None:
        """Let go. Blocks briefly."""


@dataclass(frozen=True, slots=True)
class Membership:
    """How a process belongs to its group."""

    #: Silent for so long, a member is dead to its group, and its partitions go to the others.
    session_seconds: float = SESSION_SECONDS
    #: Its name among the processes of its group, the same after a restart; a newer process of that name takes its place
    #: and partitions at once and fences it. Empty: a new member every time, and a dead one is waited for.
    instance: str = ""

    @property
    def heartbeat_seconds(self) -> float:
        """How often it says that it lives."""
        return self.session_seconds / HEARTBEATS_PER_SESSION


class GroupReader(LogReader, Protocol):
    """A LogReader whose partitions are shared among the processes of one group."""

    def subscribe(
        self,
        topics: Sequence[str],
        cursors_of: Callable[[Sequence[Partition]], Mapping[Partition, int]],
        on_revoke: Callable[[Sequence[Partition]], None],
    ) -> None:
        """Join the group for these topics.

        `cursors_of` is called (from within consume) with partitions just given to this process and answers the next
        offset of each: it is where an owner claims its epoch. What it raises comes out of consume; the partitions are
        silent then, and the next consume asks again. `on_revoke` is called before partitions leave: drain first, fence
        second. Lost partitions are revoked too, and work under way for them must fail at its fence.
        """

    def commit_hint(self, cursors: Mapping[Partition, int]) -> None:
        """Tell Kafka where we stand; does not block, and close makes the last one stick when Kafka can be reached.

        A store with a cursor of its own never reads it back as truth: for it this serves lag tools only.
        """

    def confirm(self, cursors: Mapping[Partition, int]) -> bool:
        """Whether the group counts on us for these at this very moment: asked, not remembered. Blocks.

        Asks by committing these cursors as hints. False while the group rebalances, when it went on without us, and
        when it can't be asked. A process that was frozen finds out here, before its own reader has told it.
        """

    def committed(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:
        """What the group committed last, without partitions it never committed; raises LogUnavailableError. Blocks.

        Only for what has no store of its own and may repeat work: the stream runtime, whose ids are deterministic.
        """
