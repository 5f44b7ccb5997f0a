"""Inserts records that were set aside, below the cursor and outside of every plan.

The quarantine pins which records are tried together, so a repetition brings the same ones. Those that have a row were
inserted by an earlier try; an insert of that try which is still on its way carries the same token and is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sinks.clickhouse import queries
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.tables import TABLES
from sinks.runner.seam import Decoded, Span

DIGEST_BYTES = 16


async def redrive_rows(clickhouse: ClickHouse, projection: str, span: Span, records: Sequence[Decoded]) -> None:
    """Insert those of the records that have no row; raises StoreUnavailableError."""
    if not records:
        return
    table = TABLES[span.partition.topic]
    asked = {
        "topic_id": span.topic_id,
        "part": span.partition.number,
        "offsets": [record.offset for record in records],
    }
    rows = await clickhouse.query(queries.present(clickhouse.database, table.name), asked)
    present = {int(row[0]) for row in rows}
    missing = [record for record in records if record.offset not in present]
    if missing:
        columns = table.columns_of([(span.partition.number, span.topic_id, missing)])
        token = _token(projection, span, missing)
        await clickhouse.insert(table.name, table.column_names, table.column_types, columns, token)


def _token(projection: str, span: Span, records: Sequence[Decoded]) -> str:
    offsets = ",".join(str(record.offset) for record in records)
    digest = hashlib.blake2b(offsets.encode(), digest_size=DIGEST_BYTES).hexdigest()
    topic, number = span.partition
    return f"{projection}:{span.topic_id}:{topic}:{number}:redrive:{digest}"
