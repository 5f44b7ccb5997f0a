"""What one store must hold of the log: its distinct events without those that were set aside, and their content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from processors.parity.digest import RangeDigest, RowHasher
from processors.parity.totals import LogFold, TopicTotals, digest_of
from sinks.content import ContentStore, LogRow
from streams.log import Partition

#: Offsets that one digest covers: how much is read again to find the first difference.
RANGE_OFFSETS = 4_096
#: Which event: its topic, its tenant and its id.
EventName = tuple[str, str, str]
#: Of each partition, by the number of the range of offsets.
RangeDigests = dict[Partition, dict[int, RangeDigest]]


def add_row(digests: RangeDigests, partition: Partition, offset: int, number: int) -> None:
    """Take a row's hash into the digest of its range."""
    ranges = digests.setdefault(partition, {})
    digest = ranges.get(offset // RANGE_OFFSETS)
    if digest is None:
        digest = ranges[offset // RANGE_OFFSETS] = RangeDigest()
    digest.add(number)


@dataclass
class Expected:
    """Folds the log for one store. `take` is called for every record, in the order of each partition."""

    #: Offsets of records that the store's sink put into quarantine or parked.
    set_aside: Mapping[Partition, set[int]]
    #: Whether retention gave up the row of a record (api/verify/kept.py).
    is_gone: Callable[[LogRow], bool] = lambda _row: False
    #: Amounts of events whose every record so far was set aside or given up.
    absent: dict[EventName, int] = field(default_factory=dict)
    #: Events that stand in the log more than once; which of their records a store took is its own affair.
    repeated: set[EventName] = field(default_factory=set)
    #: Records that nobody can read: how many, and which of them the sink did not put into quarantine.
    unread: int = 0
    lost: list[tuple[Partition, int]] = field(default_factory=list)

    def take(self, row: LogRow, is_new: bool) -> bool:
        """Whether the store must have a row of this record and of none of the event's records before."""
        is_aside = bool(self.set_aside) and row.record.offset in self.set_aside.get(_partition(row), ())
        if row.fields is None:
            self.unread += 1
            if not is_aside:
                self.lost.append((_partition(row), row.record.offset))
            return False
        is_here = not (is_aside or self.is_gone(row))
        return (is_new and is_here) or self._take_unusual(row, row.fields, is_new=is_new, is_here=is_here)

    def _take_unusual(self, row: LogRow, fields: Mapping[str, Any], *, is_new: bool, is_here: bool) -> bool:
        """`take`, for a record of an event that stands elsewhere too, or nowhere."""
        name = (row.record.topic, fields["tenant_id"], fields["event_id"])
        if not is_new:
            self.repeated.add(name)
        elif not is_here:
            self.absent[name] = int(fields.get("amount_nano") or 0)
        return is_here and self.absent.pop(name, None) is not None

    def totals(self, topic: str, fold: LogFold) -> TopicTotals:
        """The topic's totals in the log without what was set aside or given up."""
        found = fold.totals.get(topic, TopicTotals())
        absent = [(tenant, event, amount) for (of, tenant, event), amount in self.absent.items() if of == topic]
        return TopicTotals(
            found.records - len(absent),
            found.id_digest - sum(digest_of(tenant_id, event_id) for tenant_id, event_id, _ in absent),
            found.amount_nano - sum(amount for _, _, amount in absent),
        )


def _partition(row: LogRow) -> Partition:
    return Partition(row.record.topic, row.record.partition)


@dataclass
class ExpectedContent:
    """Digests of what a store must hold, field by field."""

    store: ContentStore
    expected: Expected
    hasher: RowHasher
    digests: RangeDigests = field(default_factory=dict)

    def take(self, row: LogRow, is_new: bool) -> None:
        """Take a record of the log in."""
        must_hold = self.expected.take(row, is_new)
        content = self.store.contents.get(row.record.topic)
        must_hold = must_hold or (self.store.holds_every_record and not self.expected.is_gone(row))
        if content is not None and must_hold:
            add_row(self.digests, _partition(row), row.record.offset, self.hasher.hash(content.of(row)))
