"""Migrations and the vault on real Postgres."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from schemas.errors import IntegrityError, StoreUnavailableError
from schemas.events import QuarantineReason
from sinks.postgres.migrations import FOLDER, migrate, migrations, pending
from sinks.postgres.quarantine import PostgresQuarantine
from sinks.postgres.tables import POSITION_COLUMNS, TABLES
from sinks.runner.screen import Screen
from streams.codec import schema_text
from streams.log import LogRecord
from tests.support.databases import PostgresDatabases, postgres_databases
from tests.support.stories import TOPIC_ID, codec

pytestmark = pytest.mark.stack
MASTER = bytes(range(32))
#: Avro logical and plain types as Postgres has them.
TYPES = {
    "uuid": "uuid", "timestamp-micros": "timestamp with time zone", "string": "text", "enum": "text", "long": "bigint",
    "int": "integer", "double": "double precision", "boolean": "boolean", "bytes": "bytea",
    "array": "jsonb", "map": "jsonb",
}  # fmt: skip
COLUMNS = """
SELECT column_name, data_type, is_nullable FROM information_schema.columns
WHERE table_schema = 'quaestor_v1' AND table_name = $1 ORDER BY ordinal_position
"""


@pytest.fixture
def server() -> PostgresDatabases:
    """Databases by name on a shared server."""
    return postgres_databases()


async def ask(dsn: str, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Rows of a query."""
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def test_a_new_database_is_made_and_brought_forward_once(server: PostgresDatabases) -> None:
    """Migrating creates the database, applies everything, and then has nothing to do."""
    dsn = server.dsn("fresh")
    assert await migrate(dsn) == [each.name for each in migrations()]
    assert (await migrate(dsn), await pending(dsn)) == ([], [])


async def test_migrations_at_once_apply_each_file_once(server: PostgresDatabases) -> None:
    """Of four migrations of one new database one applies, the others find it done."""
    dsn = server.dsn("together")
    applied = await asyncio.gather(*(migrate(dsn) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]


async def test_a_changed_migration_is_refused(server: PostgresDatabases, tmp_path: Path) -> None:
    """A file that was applied may not change afterwards."""
    for migration in migrations():
        shutil.copy(FOLDER / f"{migration.name}.sql", tmp_path)
    dsn = server.dsn("changed")
    await migrate(dsn, tmp_path)
    first = tmp_path / f"{migrations()[0].name}.sql"
    first.write_text(f"{migrations()[0].sql}\n-- later\n")
    with pytest.raises(IntegrityError):
        await migrate(dsn, tmp_path)


async def test_a_failing_migration_leaves_nothing(server: PostgresDatabases, tmp_path: Path) -> None:
    """Each file is one transaction."""
    (tmp_path / "0001_bad.sql").write_text("CREATE TABLE quaestor.half (); SELECT 1 / 0;")
    dsn = server.dsn("failing")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(dsn, tmp_path)
    assert await ask(dsn, "SELECT to_regclass('quaestor.half')") == [(None,)]


async def test_an_unreachable_server_says_so() -> None:
    """Nobody listens: StoreUnavailableError, which the command waits on."""
    with pytest.raises(StoreUnavailableError):
        await migrate("postgresql://postgres@127.0.0.1:9/none")


@pytest.mark.parametrize("topic", sorted(TABLES))
async def test_tables_follow_their_schema(server: PostgresDatabases, topic: str) -> None:
    """Every field of a topic's record has its column, of its type, and can be null where the field can."""
    found = await ask(await server.emptied("columns"), COLUMNS, TABLES[topic].name)
    expected = [(field["name"], *column_of(field["type"])) for field in json.loads(schema_text(topic))["fields"]]
    assert found[len(POSITION_COLUMNS) :] == expected
    assert {row[0] for row in found} == set(TABLES[topic].columns)


def column_of(avro: Any) -> tuple[str, str]:
    """Postgres' type and nullability of a field."""
    options = avro if isinstance(avro, list) else [avro]
    (kind,) = [option for option in options if option != "null"]
    name = kind if isinstance(kind, str) else kind.get("logicalType", kind["type"])
    return TYPES[name], "YES" if "null" in options else "NO"


async def test_the_outbox_keeps_poison_once(server: PostgresDatabases) -> None:
    """Kept twice it stands once, comes back as it was, and is no longer unpublished once marked."""
    dsn = await server.emptied("vault")
    outbox = PostgresQuarantine(dsn)
    record = LogRecord("quaestor.requests", 0, 7, 1, b"key", b"\xff\0", (("h", b"\0\xff"),))
    event = Screen(codec(), "a@v1").poison(record, TOPIC_ID, QuarantineReason.UNDECODABLE, "bad", 1).event
    await outbox.put([event])
    await outbox.put([event])
    assert await outbox.unpublished(10) == [event]
    await outbox.mark_published([event.event_id])
    assert await outbox.unpublished(10) == []
    await outbox.close()
