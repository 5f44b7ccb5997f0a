"""The records of a batch that go into one table: those with columns, and the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from itertools import chain

import numpy as np

from schemas.topics import CONTROL
from sinks.postgres.balances import FIELDS, Transfer, transfers_of
from sinks.postgres.copy import CopyWriter
from sinks.postgres.months import EARLIEST_MICROS, LATEST_MICROS, MICROS_PER_DAY, has_month, months_of
from sinks.postgres.tables import TABLES, EventTable, Row, content_hash
from sinks.runner.columns import Selection, selections
from sinks.runner.seam import Batch, Decoded, Span
from streams.columns import texts_of


@dataclass(frozen=True)
class TableRows:
    """What one batch puts into one table."""

    table: EventTable
    spans: Sequence[Span]
    chosen: list[Selection] = field(default_factory=list)
    plain: list[Decoded] = field(default_factory=list)

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
        for each in self.chosen:
            places = [record.record for record in each.records]
            yield _writer(self.table.topic).rows(
                each.columns,
                np.fromiter((place.partition for place in places), np.int64, len(places)),
                np.fromiter((place.offset for place in places), np.int64, len(places)),
                b"".join([content_hash(place.value) for place in places]),
            )

    def transfers(self) -> list[Transfer]:
        """The rows of the ledger as transfers."""
        found = transfers_of(self.plain_rows())
        for each in self.chosen:
            texts = {name: texts_of(each.columns, name) for name in FIELDS if name != "amount_nano"}
            amounts = each.columns.fields["amount_nano"].values.tolist()
            found += map(Transfer._make, zip(*(texts.get(name, amounts) for name in FIELDS), strict=True))
        return found


def table_rows(spans: Iterable[Span]) -> list[TableRows]:
    """The spans by table."""
    return [_of_topic(topic, of_topic) for topic, of_topic in Batch(list(spans), 0).by_topic().items()]


def _of_topic(topic: str, spans: Sequence[Span]) -> TableRows:
    records = [record for span in spans for record in span.records]
    if topic == CONTROL.name:
        return TableRows(TABLES[topic], spans, [], records)
    return TableRows(TABLES[topic], spans, *selections(records))


@cache
def _writer(topic: str) -> CopyWriter:
    return CopyWriter(TABLES[topic])
