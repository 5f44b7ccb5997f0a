"""Inserts records that were set aside, below the cursor and outside of every plan.

The quarantine pins which records are tried together, so a repetition brings the same ones. Those that have a row were
inserted by an earlier try; an insert of that try which is still on its way carries the same token and is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from schemas.errors import StoreUnavailableError
from sinks.clickhouse import queries
from sinks.clickhouse.client import ClickHouse, Guard, unguarded
from sinks.clickhouse.tables import TABLES, FactTable
from sinks.runner.seam import Decoded, Span

DIGEST_BYTES = 16
#: Offsets that are asked for at once; they travel in an address.
OFFSETS_MAX = 1_000


async def redrive_rows(
    clickhouse: ClickHouse, projection: str, span: Span, records: Sequence[Decoded], guard: Guard = unguarded
) -> None:
    """Insert those of the records that have no row, unless `guard` stops it.

    Raises StoreUnavailableError; also while the server drops them for a token that it noted without their rows.
    """
    table = TABLES[span.partition.topic]
    missing = await _missing(clickhouse, table, span, records)
    if missing:
        columns = table.columns_of([(span.partition.number, span.topic_id, missing)])
        token = _token(projection, span, missing)
        await clickhouse.insert(table.name, table.column_names, table.column_types, columns, token, guard)
        if await _missing(clickhouse, table, span, missing):
            raise StoreUnavailableError(f"ClickHouse drops records of {span.partition} that are inserted by offset")


async def _missing(clickhouse: ClickHouse, table: FactTable, span: Span, records: Sequence[Decoded]) -> list[Decoded]:
    present = await _present(clickhouse, table, span, [record.offset for record in records])
    return [record for record in records if record.offset not in present]


async def _present(clickhouse: ClickHouse, table: FactTable, span: Span, offsets: Sequence[int]) -> set[int]:
    sql = queries.present(clickhouse.database, table.name)
    found: set[int] = set()
    for first in range(0, len(offsets), OFFSETS_MAX):
        page = list(offsets[first : first + OFFSETS_MAX])
        asked = {"topic_id": span.topic_id, "part": span.partition.number, "offsets": page}
        found.update(int(row[0]) for row in await clickhouse.query(sql, asked))
    return found


def _token(projection: str, span: Span, records: Sequence[Decoded]) -> str:
    offsets = ",".join(str(record.offset) for record in records)
    digest = hashlib.blake2b(offsets.encode(), digest_size=DIGEST_BYTES).hexdigest()
    topic, number = span.partition
    return f"{projection}:{span.topic_id}:{topic}:{number}:redrive:{digest}"
