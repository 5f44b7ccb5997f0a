"""Compares every field of every row of a store with the log, and finds the first that differs.

The log and the store are each read once, in pages, and folded into digests per range of offsets. Only where a
partition's digests differ are its differing ranges read again, from both, and compared row by row.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from api.verify.expected import RANGE_OFFSETS, ExpectedContent, RangeDigests, add_row
from processors.parity.checks import Check
from processors.parity.digest import RangeDigest
from sinks.content import LogRow, Ranges, StoredRow
from streams.log import Partition

#: Differing ranges of a partition that are read again.
RANGES_READ_MAX = 8
VALUE_CHARACTERS_MAX = 60
#: Reads ranges of the log again; blocks.
Reread = Callable[[Ranges], Iterable[list[LogRow]]]
Progress = Callable[[int], None]


@dataclass
class ContentComparison:
    """One store's comparison."""

    name: str
    of_log: ExpectedContent
    barrier: Mapping[Partition, int]
    reread: Reread

    async def checks(self, progress: Progress) -> list[Check]:
        """One check per topic; `progress` takes the rows read so far. Raises as the store's and the log's reads do."""
        digests = await self._digests(progress)
        topics = [topic for topic in self.of_log.store.contents if any(each.topic == topic for each in self.barrier)]
        return [await self._check(topic, digests) for topic in topics]

    async def _digests(self, progress: Progress) -> RangeDigests:
        digests: RangeDigests = {}
        done, hasher = 0, self.of_log.hasher
        async for page in self.of_log.store.rows({each: (0, end) for each, end in self.barrier.items()}):
            for row in page:
                add_row(digests, row.partition, row.offset, hasher.hash(row.values))
            done += len(page)
            progress(done)
            await asyncio.sleep(0)
        return digests

    async def _check(self, topic: str, digests: RangeDigests) -> Check:
        name = f"{self.name} = log, every field: {topic}"
        log_side, store_side = RangeDigest(), RangeDigest()
        differing: list[Partition] = []
        for partition in sorted(each for each in self.barrier if each.topic == topic):
            log_part, store_part = _joined(self.of_log.digests, partition), _joined(digests, partition)
            if log_part != store_part:
                differing.append(partition)
            log_side.join(log_part)
            store_side.join(store_part)
        if not differing:
            return Check(name, ok=True, expected=log_side.count, actual=store_side.count)
        # The same event may stand in two partitions of the log; the store keeps one of them.
        if log_side == store_side:
            return Check(name, ok=True, expected=log_side.count, actual=store_side.count)
        words = await self._first_difference(differing[0], digests)
        return Check(name, ok=False, expected=log_side.words(), actual=store_side.words(), first_difference=words)

    async def _first_difference(self, partition: Partition, digests: RangeDigests) -> str:
        ours, theirs = self.of_log.digests.get(partition, {}), digests.get(partition, {})
        numbers = [each for each in sorted(ours.keys() | theirs.keys()) if ours.get(each) != theirs.get(each)]
        for number in numbers[:RANGES_READ_MAX]:
            first, after = number * RANGE_OFFSETS, min((number + 1) * RANGE_OFFSETS, self.barrier[partition])
            span = {partition: (first, after)}
            log_rows = await asyncio.to_thread(lambda: [row for page in self.reread(span) for row in page])  # noqa: B023
            stored = [row async for page in self.of_log.store.rows(span) for row in page]
            for words in self._differences(partition, log_rows, stored):
                return words
        return f"{partition}: {len(numbers)} ranges of {RANGE_OFFSETS} offsets differ, the first from {numbers[0]}"

    def _differences(self, partition: Partition, log_rows: list[LogRow], stored: list[StoredRow]) -> Iterator[str]:
        """What is not as the log says, by offset; then what may be, of events that stand in the log more than once."""
        by_offset: dict[int, list[StoredRow]] = {}
        for row in stored:
            by_offset.setdefault(row.offset, []).append(row)
        times = Counter((row.tenant_id, row.event_id) for row in stored)
        perhaps = []
        for log_row in log_rows:
            rows = by_offset.pop(log_row.record.offset, [])
            words = self._difference(log_row, rows)
            if words:
                yield f"{partition}@{log_row.record.offset} {words}"
            elif self._is_repeated(log_row) and (found := times[_name(log_row)]) != 1:
                perhaps.append(
                    f"{partition}@{log_row.record.offset} {_where(log_row)}: {self.name} has it {found} times"
                )
        for offset, rows in sorted(by_offset.items()):
            yield f"{partition}@{offset} event {rows[0].event_id}: {self.name} has it, the log has no such offset"
        yield from perhaps

    def _difference(self, row: LogRow, stored: list[StoredRow]) -> str:
        where = _where(row)
        if len(stored) > 1:
            return f"{where}: {self.name} has it {len(stored)} times"
        if not stored:
            return f"{where}: missing in {self.name}" if self._is_due(row) and not self._is_repeated(row) else ""
        if not self._is_due(row):
            return f"{where}: {self.name} has it, though it is in quarantine"
        content = self.of_log.store.contents[row.record.topic]
        return _field_difference(self.name, where, content.names, content.of(row), stored[0].values)

    def _is_due(self, row: LogRow) -> bool:
        """Whether a row of this very record may stand in the store."""
        if self.of_log.expected.is_gone(row):
            return False
        if self.of_log.store.holds_every_record:
            return True
        set_aside = self.of_log.expected.set_aside.get(Partition(row.record.topic, row.record.partition), ())
        return row.fields is not None and row.record.offset not in set_aside

    def _is_repeated(self, row: LogRow) -> bool:
        """Whether another record of the same event may stand there in its place."""
        is_known = (row.record.topic, *_name(row)) in self.of_log.expected.repeated
        return is_known and not self.of_log.store.holds_every_record


def _name(row: LogRow) -> tuple[str, str]:
    """Whose event, and which; empty for what can't be read."""
    return (row.fields["tenant_id"], row.fields["event_id"]) if row.fields else ("", "")


def _where(row: LogRow) -> str:
    return f"event {row.fields['event_id']}" if row.fields else "that can't be read"


def _field_difference(
    store: str, where: str, names: tuple[str, ...], expected: Iterable[Any], actual: Iterable[Any]
) -> str:
    for field, ours, theirs in zip(names, expected, actual, strict=True):
        if ours != theirs:
            return f"{where}: {field} is {_worded(theirs)} in {store}, {_worded(ours)} in the log"
    return ""


def _worded(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "…"


def _joined(digests: RangeDigests, partition: Partition) -> RangeDigest:
    joined = RangeDigest()
    for digest in digests.get(partition, {}).values():
        joined.join(digest)
    return joined
