"""Brings a ClickHouse server forward: numbered files in migrations/, each kept with its checksum in a table.

The files hold no literal engine or cluster: `{database}`, `{engine_prefix}` (empty, or Replicated), `{on_cluster}` and
`{dedup_window}` are filled in. Statements say IF NOT EXISTS, since ClickHouse has no transaction to take a half-done
file back: running one again completes it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError, IntegrityError
from schemas.ids import is_name
from sinks.clickhouse.client import DATABASE, ClickHouse
from sinks.projections import clickhouse_database

FOLDER = Path(__file__).parent / "migrations"
#: Inserts a table remembers, in memory too. One server has a count only: at two inserts a second it is 80 minutes, and
#: a plan older than that is checked by counting before it is inserted again (sink.py).
WINDOW_INSERTS = 10_000
#: A replicated table forgets by time too; this outlives any outage we plan for (the server's default is one hour).
WINDOW_SECONDS = 7 * 24 * 3600
MAKE_DATABASE = "CREATE DATABASE IF NOT EXISTS {database} {on_cluster}"
MAKE_TABLE = """
CREATE TABLE IF NOT EXISTS {database}.migrations {on_cluster} (
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime('UTC') DEFAULT now('UTC')
) ENGINE = {engine_prefix}ReplacingMergeTree
ORDER BY version
"""


@dataclass(frozen=True)
class Target:
    """Where migrations go: a database, on one server or on a cluster."""

    database: str = DATABASE
    #: Name of the cluster in the server's configuration; None for one server.
    cluster: str | None = None

    @classmethod
    def of(cls, projection: str, cluster: str | None = None) -> Target:
        """Where a version of the projection is kept; raises ConfigurationError when it is none."""
        return cls(clickhouse_database(projection), cluster)

    def fill(self, template: str) -> str:
        """The statement for this target; raises ConfigurationError for names that need quotes."""
        for name in (self.database, self.cluster or "x"):
            if not is_name(name) or not re.fullmatch(r"\w+", name):
                raise ConfigurationError(f"{name!r} can't name a database or cluster")
        values = {
            "{database}": self.database,
            "{engine_prefix}": "Replicated" if self.cluster else "",
            "{on_cluster}": f"ON CLUSTER {self.cluster}" if self.cluster else "",
            "{dedup_window}": self._window(),
        }
        for name, value in values.items():
            template = template.replace(name, value)
        return template

    def _window(self) -> str:
        if not self.cluster:
            return f"non_replicated_deduplication_window = {WINDOW_INSERTS}"
        return (
            f"replicated_deduplication_window = {WINDOW_INSERTS}, "
            f"replicated_deduplication_window_seconds = {WINDOW_SECONDS}"
        )


@dataclass(frozen=True)
class Migration:
    """One file."""

    version: int
    name: str
    template: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the template, hex."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def statements(self, target: Target) -> list[str]:
        """Its statements for a target, without comments."""
        text = re.sub(r"^\s*--.*$", "", self.template, flags=re.MULTILINE)
        return [target.fill(part).strip() for part in text.split(";") if part.strip()]


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """All migrations in order; raises IntegrityError when two share a number."""
    found = [
        Migration(int(path.stem[:4]), path.stem, path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]
    if len({migration.version for migration in found}) != len(found):
        raise IntegrityError("two migrations share a number")
    return found


async def migrate(url: str, target: Target | None = None, folder: Path = FOLDER) -> list[str]:
    """Apply what is missing and answer the names of what was applied; idempotent.

    Raises StoreUnavailableError when ClickHouse can't be reached, IntegrityError when a migration applied earlier is
    not the one in the folder.
    """
    target = target or Target()
    clickhouse = ClickHouse(url, target.database)
    try:
        for statement in (MAKE_DATABASE, MAKE_TABLE):
            await clickhouse.command(target.fill(statement))
        applied = await _applied(clickhouse, target)
        missing = _checked(migrations(folder), applied)
        for migration in missing:
            for statement in migration.statements(target):
                await clickhouse.command(statement)
            row = f"({migration.version}, '{migration.name}', '{migration.checksum}')"
            into = f"INSERT INTO {target.database}.migrations (version, name, checksum) VALUES {row}"  # noqa: S608 - ours
            await clickhouse.command(into)
    finally:
        await clickhouse.close()
    return [migration.name for migration in missing]


async def _applied(clickhouse: ClickHouse, target: Target) -> dict[int, str]:
    rows = await clickhouse.query(target.fill("SELECT version, checksum FROM {database}.migrations FINAL"))
    return {int(version): str(checksum) for version, checksum in rows}


def _checked(known: list[Migration], applied: dict[int, str]) -> list[Migration]:
    for migration in known:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise IntegrityError(f"migration {migration.name} was changed after it was applied")
    return [migration for migration in known if migration.version not in applied]
