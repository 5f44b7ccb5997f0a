"""The seam between the runner and a store: what a sink offers, what a batch is, what may be raised.

The runner owns the log side (consuming, decoding, batching, retrying, rebalances, quarantine); a sink owns its store
and applies batches, each exactly once. `sinks.fake.MemorySink` is the smallest complete sink;
tests/contract/test_sink_contract.py holds what every sink must pass.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from processors.quarantine.order import Waiting
from schemas import limits
from schemas.events import Alert, Event, QuarantinedRecord, QuarantineReason
from streams.log import LogRecord, Partition


class Decoded(NamedTuple):
    """A record that could be read: its fields as this release's schema has them, and the record itself."""

    offset: int
    fields: Mapping[str, Any]
    record: LogRecord


class Records(Sequence[Decoded]):
    """Records in the order of their offsets that are made when somebody asks for them (sinks.runner.columns)."""

    @abstractmethod
    def between(self, first_offset: int, next_offset: int) -> Records:
        """Those of [first_offset, next_offset)."""


def between(records: Sequence[Decoded], first_offset: int, next_offset: int) -> Sequence[Decoded]:
    """The records of [first_offset, next_offset)."""
    if isinstance(records, Records):
        return records.between(first_offset, next_offset)
    return [record for record in records if first_offset <= record.offset < next_offset]


class Poison(NamedTuple):
    """A record that is set aside, with the event that says so (its id is deterministic).

    It can't be applied, or waits behind one that can't (`event.kind` is PARKED then); to a sink both are the same.
    """

    offset: int
    record: LogRecord
    event: QuarantinedRecord


@dataclass(slots=True)
class Span:
    """The consecutive records of one partition in a batch: every record of [first_offset, next_offset)."""

    partition: Partition
    #: The topic's UUID.
    topic_id: str
    #: Where the store's cursor must stand.
    first_offset: int
    #: Where the store's cursor stands afterwards.
    next_offset: int
    #: In the order of their offsets.
    records: Sequence[Decoded] = field(default_factory=list)
    #: In the order of their offsets.
    poison: list[Poison] = field(default_factory=list)

    def after(self, cursor: int) -> Span:
        """The part of this span from `cursor` on: what a store that stands there has not applied yet."""
        return Span(
            self.partition,
            self.topic_id,
            max(cursor, self.first_offset),
            max(cursor, self.next_offset),
            between(self.records, cursor, self.next_offset),
            [record for record in self.poison if record.offset >= cursor],
        )

    def before(self, offset: int) -> Span:
        """The part of this span below `offset`, which lies within it."""
        return Span(
            self.partition,
            self.topic_id,
            self.first_offset,
            offset,
            between(self.records, self.first_offset, offset),
            [record for record in self.poison if record.offset < offset],
        )


@dataclass(slots=True)
class Batch:
    """What is applied at once: one span per partition, each partition at most once."""

    spans: list[Span]
    #: When the runner cut the batch, microseconds since the epoch; for marks such as first_seen, never for decisions.
    now_micros: int

    @property
    def record_count(self) -> int:
        """Records in all, poison included."""
        return sum(len(span.records) + len(span.poison) for span in self.spans)

    @property
    def poison_count(self) -> int:
        """Records that are set aside."""
        return sum(len(span.poison) for span in self.spans)

    def by_topic(self) -> dict[str, list[Span]]:
        """The spans of each topic."""
        grouped: dict[str, list[Span]] = {}
        for span in self.spans:
            grouped.setdefault(span.partition.topic, []).append(span)
        return grouped

    def quarantined(self) -> list[QuarantinedRecord]:
        """The quarantine events of every poison record."""
        return [poison.event for span in self.spans for poison in span.poison]

    def each(self) -> Iterator[Batch]:
        """One batch per span, to find out which partition a fault belongs to."""
        return (Batch([span], self.now_micros) for span in self.spans)


@dataclass(frozen=True)
class BatchPolicy:
    """When a batch is cut, and who keeps poison."""

    #: Most records of a batch.
    records_max: int = limits.BATCH_RECORDS_MAX
    #: The same while the sink gives way to others that are there: its server works in short pieces then. None where
    #: small batches cost it more than that is worth.
    yielding_records_max: int | None = None
    #: Bytes of record values with which a batch is full; its last record may go beyond.
    bytes_max: int = limits.BATCH_BYTES_MAX
    #: Longest wait of a batch's first record for company, milliseconds.
    age_milliseconds: int = limits.BATCH_AGE_MILLISECONDS
    #: Longest block in one consume, milliseconds.
    poll_milliseconds: int = 50
    #: How often `heartbeat` is called, milliseconds.
    heartbeat_milliseconds: int = 1_000
    #: Whether the sink itself stores `Span.poison` within `write` (Postgres in its transaction, audit as commitments).
    #: Otherwise the runner puts poison into the QuarantineStore first and then lets the sink advance past it.
    keeps_poison: bool = False
    #: Whether it enters whatever can be read, and poison too (audit): then no rule is asked and nothing is parked.
    takes_everything: bool = False
    #: How often people's requests (redrive, resume) are looked for, milliseconds.
    tend_milliseconds: int = 1_000
    #: Whether the sink writes columns (sinks.runner.columns): then records are screened together, once a batch is full.
    takes_columns: bool = False


NO_STEPS: Mapping[str, float] = MappingProxyType({})


class Sink(Protocol):
    """A store's side of a projection. The runner never overlaps two writes.

    Every coroutine runs on one event loop, which all of the process shares, and may wait but not block. `prepare` runs
    on the consuming thread, which also reads `policy`.

    A write may take as long as it likes: the thread goes on polling the log, and takes nothing once the next batch is
    full. Where a partition of it leaves, or the process stops, it has DRAIN_SECONDS (runner) and is cancelled then. For
    the others the thread waits and does not poll: `heartbeat` is cancelled after METADATA_SECONDS (reading), `release`
    after DRAIN_SECONDS, `claim` and `redrive` only when the process stops, and `prepare` never is. The session outlives
    such a wait, since Kafka's client keeps it by itself; but after POLL_INTERVAL_MILLISECONDS_MAX (streams.kafka)
    without a poll the group may give the partitions to others. `open` is cancelled when the process stops; `close` has
    no limit and must end by itself.
    """

    #: Name and version of the projection, for example postgres@v1; stands in everything the sink owns.
    projection: str
    #: Topics it projects.
    topics: tuple[str, ...]
    #: When batches are cut; a sink may give another one for a while, of which only size and age may differ.
    policy: BatchPolicy
    #: Seconds that each step of the last write took, by name, for metrics; empty where a write is one step.
    steps: Mapping[str, float] = NO_STEPS

    async def open(self) -> None:
        """Connect. Raises StoreUnavailableError; is called again then."""

    async def close(self) -> None:
        """Let go of everything; never raises for a store that is away."""

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Take ownership: fence every earlier owner of these partitions and answer where the store stands (0 when new).

        `topic_ids` has the UUID of each partition's topic. Raises StoreUnavailableError (called again), and
        IntegrityError when the cursor belongs to another incarnation of the topic, or what an earlier owner left can't
        be completed: a person must look. With several partitions, the runner claims them one by one then, to learn
        which one stops; the others must be had that way. May be called for partitions already owned. Work an earlier
        owner has under way either commits before this returns, and is in the answer, or fails.
        """

    async def write(self, batch: Batch) -> None:
        """Apply the batch and advance its cursors: all or nothing, durable on return.

        Spans below the cursor were applied before and are skipped (also in part), so the runner may repeat a batch
        whose outcome it does not know. Raises
        - StoreUnavailableError: unknown or nothing applied; the runner repeats this very batch with back-off;
        - FencedError: another owner claimed a partition of the batch; nothing applied;
        - GapError: a span begins above the store's cursor; nothing applied;
        - RejectedError: these records will never be taken; nothing applied; the runner quarantines and writes the rest.
          Where none is named, it finds them by halving;
        - IntegrityError: stop the partition, a person must look;
        - anything else is taken for a fault of this code in the face of some record: nothing may be applied then, and
          the runner halves the batch until it knows the record, which it quarantines as BUG.
        With several spans, the runner repeats them one by one to learn which partition a fault belongs to.
        It may be cancelled at any await and must then leave nothing half applied.
        """

    def prepare(self, spans: Sequence[Span]) -> None:
        """Make ready what needs no store; asked of sinks that take columns, on the consuming thread, beside a write.

        The next batch most likely has these spans, but need not, and may have some of them cut or changed. A fault is
        passed over here: `write` meets it again.
        """

    async def redrive(self, span: Span) -> None:
        """Apply `span.records`, which were set aside and lie below the cursor, each once; the cursor stays.

        Offsets need not be consecutive. May be called again for records that are applied already, with the very same
        span: an event that is there stays as it is. Partitions are claimed before. Raises as `write` does (but never
        GapError); after any of it, some of the records may be applied.
        """

    async def heartbeat(self, end_offsets: Mapping[Partition, int]) -> None:
        """Called every `policy.heartbeat_milliseconds`, never beside a write, with the end offsets of what is owned.

        A sink whose store can lose its state without a write noticing looks after it here. Raises StoreUnavailableError
        (shown, called again later), or FencedError or GapError: the runner then claims everything again and reads from
        where the store stands. A sink without such needs returns at once.
        """

    async def release(self, partitions: Sequence[Partition]) -> None:
        """Forget these partitions; called after their work is drained. Must not fail when the store is away."""


@dataclass(frozen=True)
class Standing:
    """What an owner of a partition must know of records set aside before."""

    #: Quarantined and parked records that nobody settled.
    unresolved: tuple[Waiting, ...] = ()
    #: Offsets from the cursor on that were set aside before, and are again, whatever is found now; None: discarded.
    known: Mapping[int, Waiting | None] = field(default_factory=dict)
    #: Why the partition is paused; None when it is not.
    paused: str | None = None
    #: Below this offset the limits on poison do not count: a person lifted them.
    lifted_until: int = 0


class Failed(NamedTuple):
    """A redriven record that failed again."""

    event_id: str
    reason: QuarantineReason
    detail: str
    fingerprint: str


class Calls(NamedTuple):
    """What people asked of a projection."""

    #: Partitions with records to be redriven.
    redrives: tuple[Partition, ...] = ()
    #: Partitions whose pause was ended.
    resumed: tuple[Partition, ...] = ()


class Unreadable(NamedTuple):
    """A kept event that this release can't read, and why, without its content."""

    event_id: str
    why: str


class QuarantineStore(Protocol):
    """Where records that were set aside wait until someone redrives or discards them, and are told to the log.

    Every call may raise StoreUnavailableError. The same store serves people (`sinks.dead_letters`).
    """

    async def put(self, records: Sequence[QuarantinedRecord]) -> None:
        """Keep these durably; an id already kept is left as it was."""

    async def unpublished(self, events_max: int, without: Collection[str] = ()) -> list[Event | Unreadable]:
        """Kept events not yet known to be on their topic, oldest first, but for those of these ids."""

    async def mark_published(self, event_ids: Sequence[str]) -> None:
        """These are on their topic now."""

    async def standings(self, projection: str, cursors: Mapping[Partition, int]) -> dict[Partition, Standing]:
        """What is set aside in each of these partitions, for the process that just claimed them."""

    async def pause(self, projection: str, partition: Partition, topic_id: str, offset: int, alert: Alert) -> None:
        """Keep that a partition stands still before this record, and the alert that says so."""

    async def calls(self, projection: str) -> Calls:
        """What people asked for and nobody has done yet; cheap, asked every second."""

    async def take(
        self, projection: str, partition: Partition, cursor: int, records_max: int
    ) -> list[QuarantinedRecord]:
        """The next records to redrive, as they were kept, in the order of offsets: what may_go says of those asked for.

        Only of those below the owner's cursor. One that is kept already, by an owner who died before the cursor passed
        it, will be read again, and applied or set aside then: until it is, it waits, asked for.
        The answer is pinned: until it is settled, every caller gets the very same records, so that two owners never
        apply different cuts.
        """

    async def settle(
        self, projection: str, partition: Partition, redriven: Sequence[str], failed: Sequence[Failed]
    ) -> None:
        """The taken records' outcome; those in neither list wait on, unasked for. Repeating it changes nothing."""


class Progress(Protocol):
    """Where the runner tells how it stands; implemented over streams.monitor by `sinks.runner.progress`."""

    def running(self) -> None:
        """All is well."""

    def waiting(self, detail: str) -> None:
        """The store, the registry or the log is away: `detail` says which and why."""

    def broken(self, partitions: Mapping[Partition, str]) -> None:
        """Every partition that stopped because two things disagree, and why; empty when none is."""

    def paused(self, partitions: Mapping[Partition, str]) -> None:
        """Every partition that stands still because too much of it was poison, and why; empty when none does."""

    def lag(self, lag_events: Mapping[Partition, int], oldest_seconds: float) -> None:
        """Events not yet applied of each owned partition, and the age of the oldest of them (0 when none waits)."""

    def batch(self, records: int, write_seconds: float, steps: Mapping[str, float]) -> None:
        """A batch was applied; `steps` says what of the time went where, and how old it was when it was cut."""

    def retry(self) -> None:
        """A write is repeated, or a question to the store, the log or the registry."""

    def quarantined(self, records: Sequence[QuarantinedRecord]) -> None:
        """Records went to quarantine."""

    def redriven(self, applied: int, failed: int) -> None:
        """Records that were set aside were tried again."""
