"""`quaestor migrate` from every older version of a store: the newest schema, and every row that was there."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sinks.clickhouse import migrations as of_clickhouse
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.migrations import Target
from sinks.clickhouse.tables import TABLES as FACTS
from sinks.postgres import migrations as of_postgres
from tests.support.databases import ClickHouseDatabases, postgres_databases
from tests.support.generic_rows import KEPT_EVENT, fill, rows_of

pytestmark = pytest.mark.stack
#: Without partitions that depend on what rows there are.
SCHEMA = """
SELECT table_schema, table_name, column_name, data_type, is_nullable FROM information_schema.columns
WHERE table_schema LIKE 'quaestor%' AND table_name !~ '^(rest_of|clickhouse_event_2)' ORDER BY 1, 2, ordinal_position
"""
POSTGRES_VERSIONS = len(of_postgres.migrations())
CLICKHOUSE_VERSIONS = len(of_clickhouse.migrations())
FACT_COLUMNS = """
SELECT table, name, type, default_kind, default_expression FROM system.columns
WHERE database = {database:String} ORDER BY table, position
"""
GIVEN_COLUMNS = """
SELECT name, type FROM system.columns
WHERE database = {database:String} AND table = {table:String} AND default_kind IN ('', 'DEFAULT') ORDER BY position
"""
OUTBOX = "quaestor.quarantine_outbox"
EVENT_INDEX = "quaestor.clickhouse_event"
GIVEN = {
    "event_id": "'01930000-0000-7000-8000-000000000001'",
    "occurred_at": "'2026-01-15 12:00:00'",
    "tenant_id": "'acme'",
    "amount_nano": "7",
}


def first(count: int, folder: Path, into: Path) -> Path:
    """A folder with the first so many migrations of another."""
    into.mkdir()
    for path in sorted(folder.glob("*.sql"))[:count]:
        shutil.copy(path, into)
    return into


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection for as long as the block lasts."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def test_every_older_postgres_comes_forward_with_its_rows(tmp_path: Path) -> None:
    """From each number of applied migrations on: the columns of a new database, and what stood in them before."""
    server = postgres_databases()
    newest = server.dsn("newest")
    await of_postgres.migrate(newest)
    async with connected(newest) as connection:
        whole = await connection.fetch(SCHEMA)
    for count in range(1, POSTGRES_VERSIONS):
        dsn = server.dsn(f"older_{count}")
        await of_postgres.migrate(dsn, first(count, of_postgres.FOLDER, tmp_path / str(count)))
        async with connected(dsn) as connection:
            tables = await fill(connection)
            before = await rows_of(connection, tables)
            await of_postgres.migrate(dsn)
            after = await rows_of(connection, tables)
            if EVENT_INDEX in before and isinstance(
                before[EVENT_INDEX]["topic"], str
            ):  # a later migration numbers them
                names = dict(await connection.fetch("SELECT number, name FROM quaestor.clickhouse_name"))
                after[EVENT_INDEX] |= {name: names[after[EVENT_INDEX][name]] for name in ("topic", "projection")}

            assert before == {table: {name: row[name] for name in before[table]} for table, row in after.items()}
            if "tenant_id" not in before[OUTBOX]:  # a later migration reads it from the kept event
                assert KEPT_EVENT["tenant_id"] == after[OUTBOX]["tenant_id"]
            assert whole == await connection.fetch(SCHEMA)


async def columns_of(client: ClickHouse) -> list[tuple[Any, ...]]:
    """Every column of a database."""
    return await client.query(FACT_COLUMNS, {"database": client.database})


async def add_row(client: ClickHouse, table: str) -> None:
    """A row with one leg, candidate and so on; what is not given has its type's own value."""
    columns = await client.query(GIVEN_COLUMNS, {"database": client.database, "table": table})
    # Arrays of a Nested are equally long.
    one_each = {name: _one_of(kind) for name, kind in columns if "." in name}
    values = {name: GIVEN[name] for name, _ in columns if name in GIVEN} | one_each
    names = ", ".join(f"`{name}`" for name in values)
    await client.command(f"INSERT INTO {client.database}.{table} ({names}) SELECT {', '.join(values.values())}")


def _one_of(array: str) -> str:
    quoted = array.replace("'", "\\'")
    return f"arrayResize(CAST([], '{quoted}'), 1)"


async def rows_of_facts(client: ClickHouse, names: dict[str, list[str]]) -> dict[str, list[tuple[Any, ...]]]:
    """What stands in these columns of each table."""
    found = {}
    for table, columns in names.items():
        listed = ", ".join(f"`{name}`" for name in columns)
        found[table] = await client.query(f"SELECT {listed} FROM {client.database}.{table}")  # noqa: S608 - ours
    return found


@pytest.mark.parametrize("count", range(1, CLICKHOUSE_VERSIONS))
async def test_every_older_clickhouse_comes_forward_with_its_rows(
    clickhouse: ClickHouseDatabases, count: int, tmp_path: Path
) -> None:
    """The columns of a new database, what stood in them before, and as many rates as legs in a row that had none."""
    newest, older = (ClickHouse(clickhouse.url, name) for name in (clickhouse.name(), f"older_{count}"))
    target = Target(older.database)
    await of_clickhouse.migrate(clickhouse.url, target, first(count, of_clickhouse.FOLDER, tmp_path / "older"))
    tables = [fact.name for fact in FACTS.values()]
    for table in tables:
        await add_row(older, table)
    names = {table: [name for where, name, *_ in await columns_of(older) if where == table] for table in tables}
    before = await rows_of_facts(older, names)

    await of_clickhouse.migrate(clickhouse.url, target)

    assert dict.fromkeys(tables, 1) == {table: len(rows) for table, rows in before.items()}
    assert before == await rows_of_facts(older, names)
    assert await columns_of(newest) == await columns_of(older)
    legs = "SELECT length(`legs.exchange_rate_nano`), length(`legs.window_end`) FROM {}.budgets"
    assert [(1, 1)] == await older.query(legs.format(older.database))
    await newest.close()
    await older.close()
