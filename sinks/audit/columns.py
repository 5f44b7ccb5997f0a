"""What audit entries say about many records of one topic, read from their columns instead of a dictionary each.

The same sources as `processors.audit.sources.source_of` gives (a test compares); where anything is unusual, that one is
asked, record by record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from processors.audit.commitment import Salts
from processors.audit.entry import LOG_TENANT, Source
from processors.audit.sources import KIND_FIELDS, Place, currency_fits, source_of
from schemas.ids import is_name
from sinks.runner.columns import Rows, Selection, joined, selections
from sinks.runner.seam import Decoded, Span
from streams.codec import HEADER
from streams.columns import Column, Columns
from streams.pieces import UnusualError
from streams.texts import texts_of


def sources_together(spans: Sequence[Span], salts: Salts) -> list[Source]:
    """The sources of the records of spans of one topic, which have no poison; partition by partition, each in order."""
    topic_id = spans[0].topic_id
    records = joined([span.records for span in spans])
    if isinstance(records, Rows):
        chosen, _ = selections(records)
        return [source for selection in chosen for source in _sources(selection, topic_id, salts)]
    return [source_of_record(record, topic_id, salts) for record in records]


def source_of_record(item: Decoded, topic_id: str, salts: Salts) -> Source:
    """The source of one decoded record."""
    record = item.record
    place = Place(record.topic, topic_id, record.partition, item.offset, record.timestamp_millis, record.value)
    return source_of(item.fields, place, salts)


def _sources(selection: Selection, topic_id: str, salts: Salts) -> Iterable[Source]:
    try:
        return list(map(Source._make, _fields(selection, topic_id, salts)))
    except UnusualError:
        return [source_of_record(record, topic_id, salts) for record in selection.records]


def _fields(selection: Selection, topic_id: str, salts: Salts) -> Iterable[Sequence[object]]:
    """The fields of every source, in their order; raises UnusualError when one may not fit an entry."""
    columns, count = selection.columns, len(selection.columns)
    topic = selection.records[0].record.topic
    fields = columns.fields
    columns.uuids(fields["event_id"])
    amounts, currencies = _amounts(columns, count)
    kind_field = KIND_FIELDS.get(topic)
    tenants = _tenants(columns)
    partitions, offsets = selection.partitions.tolist(), selection.offsets.tolist()
    return zip(
        tenants,
        [topic] * count,
        [topic_id] * count,
        partitions,
        offsets,
        fields["occurred_at"].values.tolist(),
        [_schema_id(columns)] * count,
        map(salts.commitment, _values(columns), tenants, [topic_id] * count, partitions, offsets),
        amounts,
        currencies,
        texts_of(columns, "event_id"),
        _names(columns, "request_id"),
        [""] * count if kind_field is None else [kind or "" for kind in texts_of(columns, kind_field)],
        strict=True,
    )


def _names(columns: Columns, field: str) -> list[str]:
    """A field of names; none is empty. Raises UnusualError for what is no name."""
    texts = texts_of(columns, field)
    if not all(text is None or is_name(text) for text in set(texts)):
        raise UnusualError
    return [text or "" for text in texts]


def _tenants(columns: Columns) -> list[str]:
    """The tenants; raises UnusualError for one that no record may have."""
    tenants = _names(columns, "tenant_id")
    if not {"", LOG_TENANT}.isdisjoint(tenants):
        raise UnusualError
    return tenants


def _amounts(columns: Columns, count: int) -> tuple[Sequence[int | None], Sequence[str]]:
    """Amounts and their currencies; raises UnusualError for a currency that does not fit."""
    amount = columns.fields.get("amount_nano")
    if amount is None:
        return [None] * count, [""] * count
    amounts = _or_none(amount)
    currencies = (
        [text or "" for text in texts_of(columns, "currency")] if "currency" in columns.fields else [""] * count
    )
    if not all(map(currency_fits, set(currencies))):
        raise UnusualError
    if amount.present is not None:
        currencies = [text if there else "" for text, there in zip(currencies, amount.present.tolist(), strict=True)]
    return amounts, currencies


def _or_none(column: Column) -> list[int | None]:
    values = column.values.tolist()
    if column.present is None:
        return list(values)
    return [value if there else None for value, there in zip(values, column.present.tolist(), strict=True)]


def _schema_id(columns: Columns) -> int:
    """Values whose columns are sound have one frame."""
    begin = int(columns.begins[0])
    return int(HEADER.unpack_from(columns.buffer, begin)[1])


def _values(columns: Columns) -> list[bytes]:
    """The records' value bytes, as Kafka has them."""
    buffer, begins = columns.buffer, columns.begins
    ends = (begins + columns.sizes).tolist()
    return [bytes(buffer[at:end]) for at, end in zip(begins.tolist(), ends, strict=True)]
