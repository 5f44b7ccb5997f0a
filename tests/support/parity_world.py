"""A log in memory and a store beside it that can be spoilt row by row, compared as `quaestor verify --deep` does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from api.verify.content import ContentComparison
from api.verify.expected import Expected, ExpectedContent
from api.verify.kept import Whole
from api.verify.log_scan import LogScan, take_barrier
from api.verify.parity import ComparedStore, NamedStore, compare_totals
from processors.parity.checks import Check
from processors.parity.digest import KEY_BYTES, RowHasher
from processors.parity.totals import LogFold
from schemas.events import Event
from schemas.topics import TOPICS
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.reads import AuditReads
from sinks.audit.sequencer import Sequencer
from sinks.audit.store import AuditStore
from sinks.content import Content, ContentStore, LogRow, Ranges, SchemaContent, StoredRow
from sinks.runner.screen import Screen
from sinks.runner.seam import Decoded, Span
from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog
from tests.support.audit import SALTS
from tests.support.stories import codec, outgoing

CODEC = codec()
HASHER = RowHasher(bytes(range(KEY_BYTES)))
MILLIS = 1_793_491_200_000


class TotalledStore(ComparedStore, ContentStore, Protocol):
    """What a plain comparison asks of a store."""


class RowStore:
    """A ContentStore in a list."""

    holds_every_record = False
    contents: Mapping[str, Content] = {topic.name: SchemaContent(topic.name) for topic in TOPICS}

    def __init__(self, found: Sequence[StoredRow] = ()) -> None:
        """Hold these rows."""
        self.found = list(found)

    async def rows(self, ranges: Ranges) -> AsyncIterator[list[StoredRow]]:
        """As the seam says; one row a page, last first."""
        for row in reversed(self.found):
            first, after = ranges.get(row.partition, (0, 0))
            if first <= row.offset < after:
                yield [row]


class ParityWorld:
    """The log, and comparisons of stores with it."""

    def __init__(self, events: Sequence[Event] = ()) -> None:
        """A log of these events."""
        self.log = MemoryLog(clock_millis=lambda: MILLIS)
        self.produce(outgoing(CODEC, events))

    def produce(self, records: Sequence[OutgoingRecord]) -> None:
        """Write records."""
        for record in records:
            self.log.append(record)

    def rows(self, content: Mapping[str, Content] | None = None) -> list[StoredRow]:
        """What a store holds that took every record once."""
        contents = content or RowStore.contents
        reader = self.log.reader()
        found: dict[tuple[str, str, str], StoredRow] = {}
        for page in LogScan(reader, CODEC).read({at: (0, self.log.end(at)) for at in self.log.records}):
            for row in page:
                if row.fields is not None and row.record.topic in contents:
                    name = row.record.topic, row.fields["tenant_id"], row.fields["event_id"]
                    found.setdefault(name, _stored(row, contents[row.record.topic]))
        return list(found.values())

    async def checks(
        self,
        store: ContentStore,
        set_aside: Mapping[Partition, set[int]] | None = None,
        barrier: Mapping[Partition, int] | None = None,
        kept: Whole | None = None,
    ) -> list[Check]:
        """What a deep comparison says of a store named `store`."""
        reader = self.log.reader()
        scan = LogScan(reader, CODEC)
        barrier = barrier or take_barrier(reader)
        of_log = ExpectedContent(store, Expected(set_aside or {}, (kept or Whole()).is_gone), HASHER)
        scan.fold(barrier, [of_log.take], lambda _done, _all: None)
        part = {at: end for at, end in barrier.items() if at.topic in store.contents}
        return await ContentComparison("store", of_log, part, scan.read).checks(lambda _done: None)

    def fold(self, expected: Expected) -> LogFold:
        """The log folded beside what one store must hold."""
        reader = self.log.reader()
        return LogScan(reader, CODEC).fold(take_barrier(reader), [expected.take], lambda _done, _all: None)

    async def compare(self, store: TotalledStore) -> dict[str, str]:
        """What a plain comparison says of a store: the first difference of each topic that differs."""
        expected, barrier = Expected({}), take_barrier(self.log.reader())
        fold = self.fold(expected)
        named = NamedStore("store", tuple(store.contents), store, store)
        checks = await compare_totals(named, barrier, fold, expected)
        return {each.name.removeprefix("store = log: "): each.first_difference or "" for each in checks if not each.ok}

    async def difference(
        self, store: ContentStore, set_aside: Mapping[Partition, set[int]] | None = None, kept: Whole | None = None
    ) -> str:
        """The first difference of all topics; empty when there is none."""
        checks = await self.checks(store, set_aside, kept=kept)
        return next((check.first_difference or "?" for check in checks if not check.ok), "")


def _stored(row: LogRow, content: Content) -> StoredRow:
    record = row.record
    tenant_id, event_id = (row.fields["tenant_id"], row.fields["event_id"]) if row.fields else ("", "")
    return StoredRow(Partition(record.topic, record.partition), record.offset, tenant_id, event_id, content.of(row))


async def audited(world: ParityWorld, store: AuditStore | None = None) -> AuditReads:
    """The audit log of a log, sequenced as its sink does, in memory or in an open store."""
    store, topic_ids = store or MemoryAuditStore(), world.log.reader().topic_ids(list(world.log.counts), 1)
    screen, sequencer = Screen(CODEC, "audit@v1", takes_everything=True), Sequencer(store, SALTS, "test")
    await sequencer.claim({at: topic_ids[at.topic] for at in world.log.records})
    for at, records in world.log.records.items():
        span = Span(at, topic_ids[at.topic], 0, len(records))
        for record in records:
            screened = screen.screen(record, span.topic_id, 1)
            if isinstance(screened, Decoded):
                span.records.append(screened)
            else:
                span.poison.append(screened)
        await sequencer.append([span])
    return AuditReads(store, SALTS)
