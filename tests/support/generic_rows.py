"""A row in every table of a Postgres database of any version, whatever its columns are called by then."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

#: A value of each type, and of arrays of it.
VALUES = {
    "uuid": "'01930000-0000-7000-8000-000000000001'",
    "text": "'x'",
    "bigint": "7",
    "integer": "7",
    "smallint": "7",
    "numeric": "7",
    "double precision": "0.5",
    "boolean": "true",
    "bytea": r"'\x01'",
    "jsonb": "'{}'",
    "date": "'2026-01-15'",
    "timestamp with time zone": "'2026-01-15 12:00+00'",
}
KEPT_EVENT = {"tenant_id": "acme", "detail": "bad", "occurred_at": 1_768_478_400_000_000, "key_bytes": "aw=="}
#: Where a constraint wants more of a value than its type does, or a later migration reads it.
PARTICULAR = {
    ("quarantine_outbox", "body"): f"convert_to('{json.dumps(KEPT_EVENT)}', 'UTF8')",
    ("quarantine_outbox", "state"): "'QUARANTINED'",
    ("subject", "lookup_hash"): "decode(repeat('01', 32), 'hex')",
    ("subject", "handle"): "repeat('0a', 16)",
    ("subject", "wrapped_key"): "decode(repeat('02', 60), 'hex')",
    ("clickhouse_plan", "next_offset"): "8",
}
TABLES = """
SELECT n.nspname || '.' || c.relname, c.relname, c.relkind = 'p'
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('quaestor', 'quaestor_v1') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname <> 'schema_migrations'
ORDER BY 1
"""
COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
#: Partitions are made for the months that come; this takes any.
REST = "CREATE TABLE quaestor.rest_of_{name} PARTITION OF {table} DEFAULT"


async def fill(connection: asyncpg.Connection[Any]) -> list[str]:
    """Put a row into every table that there is; returns the tables."""
    tables = await connection.fetch(TABLES)
    await connection.execute("SET session_replication_role = replica")  # a row need not have those that it refers to
    for table, name, is_partitioned in tables:
        if is_partitioned:
            await connection.execute(REST.format(table=table, name=name))
        await connection.execute(insert(table, name, await connection.fetch(COLUMNS, table)))
    return [str(table) for table, *_ in tables]


def insert(table: str, name: str, columns: list[asyncpg.Record]) -> str:
    """The statement that adds a row with a value in every column."""
    values = ", ".join(PARTICULAR.get((name, column)) or _value(kind) for column, kind in columns)
    names = ", ".join(f'"{column}"' for column, _ in columns)
    return f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})"  # noqa: S608 - ours


def _value(kind: str) -> str:
    if kind.endswith("[]"):
        return f"ARRAY[{VALUES[kind.removesuffix('[]')]}]::{kind}"
    return f"{VALUES[kind]}::{kind}"


async def rows_of(connection: asyncpg.Connection[Any], tables: list[str]) -> dict[str, dict[str, Any]]:
    """The row of each table that `fill` filled, by column."""
    found = {}
    for table in tables:
        found[table] = json.loads(await connection.fetchval(f"SELECT to_jsonb(t) FROM {table} AS t"))  # noqa: S608 - ours
    return found
