"""The records of a batch that go into one table: those with columns, and the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from itertools import chain

import numpy as np

from schemas.topics import CONTROL, LEDGER
from sinks.postgres.balances import FIELDS, Transfer, transfers_of
from sinks.postgres.copy import CopyWriter
from sinks.postgres.months import EARLIEST_MICROS, LATEST_MICROS, MICROS_PER_DAY, has_month, months_of
from sinks.postgres.tables import TABLES, EventTable, Row, body_hash
from sinks.runner.columns import Selection, joined, selections
from sinks.runner.seam import Batch, Decoded, Span
from streams.texts import texts_of


@dataclass
class TableRows:
    """What one batch puts into one table."""

    table: EventTable
    spans: Sequence[Span]
    chosen: list[Selection] = field(default_factory=list)
    plain: list[Decoded] = field(default_factory=list)
    #: Made before they are asked for.
    _copies: list[bytearray] | None = None
    _transfers: list[Transfer] | None = None

    def __post_init__(self) -> None:
        """Remember what the spans were made of."""
        self._of = [(span, span.first_offset, span.next_offset, span.records) for span in self.spans]

    def is_of(self, spans: Sequence[Span]) -> bool:
        """Whether these spans, as they are now, are what this was made of."""
        return len(spans) == len(self._of) and all(
            span is one and span.records is records and (span.first_offset, span.next_offset) == (first, following)
            for span, (one, first, following, records) in zip(spans, self._of, strict=True)
        )

    def prepare(self) -> None:
        """Make the rows now; raises whatever they would raise later."""
        self._copies = list(self.copies())
        if self.table.topic == LEDGER.name:
            self._transfers = self.transfers()

    def months(self) -> set[date]:
        """First days of the months the rows belong to."""
        days = [np.unique(each.columns.fields["occurred_at"].values // MICROS_PER_DAY) for each in self.chosen]
        times = (int(day) * MICROS_PER_DAY for day in chain.from_iterable(days))
        return months_of(chain(times, (record.fields["occurred_at"] for record in self.plain)))

    def without_month(self) -> Iterator[Decoded]:
        """Records whose time no partition is made for."""
        for each in self.chosen:
            times = each.columns.fields["occurred_at"].values
            for row in np.flatnonzero((times < EARLIEST_MICROS) | (times >= LATEST_MICROS)).tolist():
                yield each.records[row]
        yield from (record for record in self.plain if not has_month(record.fields["occurred_at"]))

    def rows(self) -> list[Row]:
        """All of them as tuples: the slow way."""
        return [row for span in self.spans for row in self.table.rows(span.partition.number, span.records)]

    def plain_rows(self) -> list[Row]:
        """Those without columns as tuples."""
        return [row for record in self.plain for row in self.table.rows(record.record.partition, [record])]

    def copies(self) -> Iterator[bytearray]:
        """Those with columns in the binary format of COPY; raises UnusualError."""
        if self._copies is not None:
            yield from self._copies
            return
        for each in self.chosen:
            hashes = b"".join(map(body_hash, each.bodies()))
            yield _writer(self.table.topic).rows(each.columns, each.partitions, each.offsets, hashes)

    def transfers(self) -> list[Transfer]:
        """The rows of the ledger as transfers."""
        if self._transfers is not None:
            return self._transfers
        found = transfers_of(self.plain_rows())
        for each in self.chosen:
            texts = {name: texts_of(each.columns, name) for name in FIELDS if name != "amount_nano"}
            amounts = each.columns.fields["amount_nano"].values.tolist()
            found += map(Transfer._make, zip(*(texts.get(name, amounts) for name in FIELDS), strict=True))
        return found


def table_rows(spans: Iterable[Span], ready: Mapping[str, TableRows] | None = None) -> list[TableRows]:
    """The spans by table; those that are `ready` are taken as they are."""
    made = ready or {}
    return [
        made[topic] if topic in made and made[topic].is_of(of_topic) else _of_topic(topic, of_topic)
        for topic, of_topic in Batch(list(spans), 0).by_topic().items()
    ]


def _of_topic(topic: str, spans: Sequence[Span]) -> TableRows:
    # In the order of the chunk: then its columns are taken as they are.
    records = joined([span.records for span in sorted(spans, key=lambda span: span.partition)])
    if topic == CONTROL.name:
        return TableRows(TABLES[topic], spans, [], list(records))
    return TableRows(TABLES[topic], spans, *selections(records))


@cache
def _writer(topic: str) -> CopyWriter:
    return CopyWriter(TABLES[topic])
