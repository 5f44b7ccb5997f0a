"""Brings a Postgres database forward: numbered files in migrations/, one transaction each, kept with their checksum."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from schemas.errors import IntegrityError
from sinks.postgres.connect import connect

FOLDER = Path(__file__).parent / "migrations"
#: Key of the advisory lock that lets one migration run at a time in a database.
LOCK = 0x5155_4145_5354_4F52
MAINTENANCE_DATABASE = "postgres"
STATEMENT_SECONDS = 300.0
BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS quaestor;
CREATE TABLE IF NOT EXISTS quaestor.schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""
IS_MIGRATED = "SELECT to_regclass('quaestor.schema_migrations') IS NOT NULL"
APPLIED = "SELECT version, name, checksum FROM quaestor.schema_migrations"
RECORD = "INSERT INTO quaestor.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)"


@dataclass(frozen=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """All migrations in order; raises IntegrityError when two share a number."""
    found = [_read(path) for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))]
    if len({migration.version for migration in found}) != len(found):
        raise IntegrityError("two migrations share a number")
    return found


def _read(path: Path) -> Migration:
    return Migration(int(path.stem[:4]), path.stem, path.read_text(encoding="utf-8"))


async def migrate(dsn: str, folder: Path = FOLDER) -> list[str]:
    """Apply what is missing and answer the names of what was applied; creates the database when there is none.

    Several may run at once: one does the work, the others wait. Raises StoreUnavailableError when Postgres can't be
    reached, and IntegrityError when a migration applied earlier is not the one in the folder.
    """
    connection = await _connect_or_create(dsn)
    try:
        return await _apply(connection, migrations(folder))
    finally:
        await connection.close()


async def pending(dsn: str, folder: Path = FOLDER) -> list[str]:
    """Names of migrations that are not applied yet; raises as migrate does."""
    connection = await _connect_or_create(dsn)
    try:
        return [migration.name for migration in await _missing(connection, migrations(folder))]
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection, known: list[Migration]) -> list[str]:
    if not await _missing(connection, known):
        return []
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    try:
        await connection.execute(BOOTSTRAP)
        missing = await _missing(connection, known)
        for migration in missing:
            async with connection.transaction():
                await connection.execute("SET LOCAL search_path = quaestor, quaestor_v1")
                await connection.execute(migration.sql)
                await connection.execute(RECORD, migration.version, migration.name, migration.checksum)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)
    return [migration.name for migration in missing]


async def _missing(connection: asyncpg.Connection, known: list[Migration]) -> list[Migration]:
    if not await connection.fetchval(IS_MIGRATED):
        return known
    applied = {row["version"]: row for row in await connection.fetch(APPLIED)}
    for migration in known:
        row = applied.get(migration.version)
        if row is not None and row["checksum"] != migration.checksum:
            raise IntegrityError(f"migration {migration.name} was changed after it was applied as {row['name']}")
    return [migration for migration in known if migration.version not in applied]


async def _connect_or_create(dsn: str) -> asyncpg.Connection:
    try:
        return await connect(dsn, role=None, statement_seconds=STATEMENT_SECONDS)
    except asyncpg.InvalidCatalogNameError:
        await _create_database(dsn)
        return await connect(dsn, role=None, statement_seconds=STATEMENT_SECONDS)


async def _create_database(dsn: str) -> None:
    parts = urlsplit(dsn)
    name = parts.path.lstrip("/")
    maintenance = await connect(
        urlunsplit(parts._replace(path=f"/{MAINTENANCE_DATABASE}")), role=None, statement_seconds=STATEMENT_SECONDS
    )
    try:
        quoted = '"' + name.replace('"', '""') + '"'
        await maintenance.execute(f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'UTF8'")
    except asyncpg.DuplicateDatabaseError:
        pass  # another migration was faster
    except asyncpg.UniqueViolationError:
        pass  # likewise, in the same instant
    finally:
        await maintenance.close()
