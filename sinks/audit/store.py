"""The seam to the ledger database: what the audit log keeps there. `sinks.postgres.audit` and `sinks.audit.memory`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from processors.audit.entry import KIND_HEADS, LOG_TENANT, Head, Sealed, Source
from processors.audit.merkle import EMPTY_ROOT
from sinks.totals import StoreTotals
from streams.log import Partition


@dataclass(frozen=True)
class LogState:
    """Where a log stands in the database."""

    #: Grows with every claim; a write with an older one is refused.
    epoch: int = 0
    #: Position the next entry gets: how many entries are sequenced.
    next_seq: int = 0
    #: How many of them are in durable tiles.
    integrated_size: int = 0
    #: Root of those.
    integrated_root: bytes = EMPTY_ROOT


class CursorMove(NamedTuple):
    """A partition's cursor before and after a batch."""

    partition: Partition
    topic_id: str
    first_offset: int
    next_offset: int


class StoredEntry(NamedTuple):
    """An entry as its row has it; every column, to be compared with the entry's own bytes."""

    seq: int
    tenant_id: str
    tseq: int
    chain: bytes
    leaf: bytes
    entry: bytes
    topic: str
    partition: int
    offset: int
    #: Empty where there is none.
    event_id: str
    #: Empty where there is none.
    request_id: str
    amount_nano: int | None


class EntryPlace(NamedTuple):
    """Where an event stands in the log, and in Kafka."""

    seq: int
    topic: str
    partition: int
    offset: int
    event_id: str


@dataclass(frozen=True)
class EntryFilter:
    """Which entries are looked for; None lets everything through. The log's own entries must be named to be found."""

    tenant_id: str | None = None
    topic: str | None = None
    kind: str | None = None
    request_id: str | None = None
    #: occurred_at, microseconds since the epoch: from this on, and before that.
    from_micros: int | None = None
    to_micros: int | None = None

    @property
    def wants_own(self) -> bool:
        """Whether the log's own entries (heads) are meant."""
        return self.tenant_id == LOG_TENANT or self.kind == KIND_HEADS

    def fits(self, source: Source) -> bool:
        """Whether an entry is looked for."""
        return (
            (source.tenant_id == self.tenant_id if self.tenant_id else self.wants_own or source.tenant_id != LOG_TENANT)
            and (self.topic is None or source.topic == self.topic)
            and (self.kind is None or source.kind == self.kind)
            and (self.request_id is None or source.request_id == self.request_id)
            and (self.from_micros is None or source.time_micros >= self.from_micros)
            and (self.to_micros is None or source.time_micros < self.to_micros)
        )


class Found(NamedTuple):
    """What a look at a part of the log found."""

    #: (position, entry), newest first.
    entries: list[tuple[int, bytes]]
    #: Everything from here on has been looked at; 0 when nothing is left.
    before: int


@dataclass(frozen=True)
class Snapshot:
    """Everything small about a log, read at one moment."""

    state: LogState
    heads: dict[str, Head]
    cursors: dict[Partition, int]


class AuditStore(Protocol):
    """The rows of one log. Every call raises StoreUnavailableError when the database is away."""

    async def open(self) -> None:
        """Connect and make the log's own row if it is new."""

    async def close(self) -> None:
        """Let go; never raises for a database that is away."""

    async def claim(self, owner: str, topic_ids: Mapping[Partition, str]) -> LogState:
        """Fence every earlier sequencer, make missing cursors, and answer where the log stands.

        Raises IntegrityError when a cursor belongs to another incarnation of its topic.
        """

    async def state(self) -> LogState:
        """Where the log stands, without claiming it."""

    async def snapshot(self) -> Snapshot:
        """State, heads and cursors of one moment."""

    async def cursors(self) -> dict[Partition, int]:
        """The next offset of every partition the log has taken records of."""

    async def heads(self, tenants: Sequence[str] | None = None) -> dict[str, Head]:
        """The chain heads of these tenants, or of all; a tenant without entries is left out."""

    async def append(
        self, epoch: int, sealed: Sequence[Sealed], heads: Mapping[str, Head], moves: Sequence[CursorMove]
    ) -> None:
        """Entries, heads and cursors in one transaction, durable on return.

        Raises FencedError when the epoch is no longer the log's, and GapError when a cursor or the next position is
        not where the batch begins; nothing is applied then. StoreUnavailableError leaves the outcome unknown.
        """

    async def entries(self, first: int, end: int) -> list[tuple[bytes, bytes]]:
        """(leaf hash, entry) of positions [first, end), in order; fewer when rows are missing."""

    def rows(self, first: int, end: int) -> AsyncIterator[list[StoredEntry]]:
        """The rows of positions [first, end), in order, in bounded pages."""

    async def integrated(self, epoch: int, size: int, root: bytes) -> None:
        """Tiles up to this size are durable; raises FencedError."""

    async def checkpointed(self, size: int, note: str) -> None:
        """Keep a signed checkpoint; one of the same size that is there stays."""

    async def checkpoints(self) -> dict[int, str]:
        """Every checkpoint kept, by size."""

    async def totals(self, barrier: Mapping[Partition, int], first_seq: int = 0) -> dict[str, StoreTotals]:
        """What the log holds from a position on and below the barrier, per topic."""

    async def counts(self, barrier: Mapping[Partition, int]) -> dict[str, int]:
        """Entries below the barrier per topic: one per (topic, partition, offset), undecodable ones included."""

    async def of_control(self, event_id: str) -> EntryPlace | None:
        """Where the entry of a control event is; None when the log does not have it (yet)."""

    async def of_request(self, request_id: str) -> list[EntryPlace]:
        """Where the entries of a request are, in the log's order."""

    async def find(self, wanted: EntryFilter, before: int, limit: int) -> Found:
        """Up to `limit` entries below a position that are looked for, newest first.

        Looks at a bounded part of the log: fewer may be found though there are more, which `Found.before` says.
        """
