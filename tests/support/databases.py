"""Databases of a test's own on servers that all tests share; a server of a test's own is for those that hurt it.

Making a server and migrating a database cost more than most tests: a Postgres database is emptied, or copied from one
that was migrated once, and a ClickHouse database is made while the test before it runs.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import count

import asyncpg

from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.migrations import Target
from sinks.clickhouse.migrations import migrate as migrate_clickhouse
from sinks.postgres.migrations import FOLDER, migrate
from tests.support.clickhouse_server import external_url
from tests.support.shared_servers import address_of

TEMPLATE = "migrated"
#: No test has more databases of ClickHouse at a time.
IN_USE_MAX = 4
#: What stands in a database's own row, which a copy does not get: the block of the first migration that sets it.
OWN_ROW = re.compile(r"DO \$database\$.*?\$database\$;", re.DOTALL)
#: Nobody crashes this server, so nobody waits for its disk.
HURRY = "ALTER DATABASE {name} SET synchronous_commit = off"
#: Ends what a cancelled test left behind, then deletes all rows, past the triggers that would refuse it.
EMPTY = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
DO $empty$
DECLARE
    wanted record;
    is_filled boolean;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR wanted IN
        SELECT c.oid::regclass AS name, ARRAY(
            SELECT quote_ident(t.tgname) FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND t.tgenabled = 'A'
        ) AS guards
        FROM pg_class AS c
        WHERE c.relnamespace IN ('quaestor'::regnamespace, 'quaestor_v1'::regnamespace) AND c.relkind IN ('r', 'p')
            AND NOT c.relispartition AND c.relname <> 'schema_migrations'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', wanted.name) INTO is_filled;
        CONTINUE WHEN NOT is_filled;
        FOR i IN 1 .. cardinality(wanted.guards) LOOP
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %s', wanted.name, wanted.guards[i]);
        END LOOP;
        EXECUTE format('DELETE FROM %s', wanted.name);
        FOR i IN 1 .. cardinality(wanted.guards) LOOP
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %s', wanted.name, wanted.guards[i]);
        END LOOP;
    END LOOP;
END
$empty$;
"""


class PostgresDatabases:
    """Databases on one server."""

    def __init__(self) -> None:
        """Start the server."""
        self._server = address_of("postgres").rpartition("/")[0]
        self._made: set[str] = set()
        self._numbers = count()

    def dsn(self, purpose: str) -> str:
        """Of a database that does not exist yet."""
        return self._dsn(f"{purpose}_{next(self._numbers)}")

    async def copied(self, purpose: str) -> str:
        """A new database with everything migrated, for tests that change more than rows; answers its DSN."""
        dsn = self.dsn(purpose)
        await self._copy(dsn.rpartition("/")[2])
        return dsn

    async def backed_up(self, dsn: str, purpose: str) -> str:
        """A copy of a database that nobody is connected to, as it is now; answers its DSN."""
        copy = self.dsn(purpose)
        await self._copy(copy.rpartition("/")[2], dsn.rpartition("/")[2])
        return copy

    async def emptied(self, purpose: str) -> str:
        """The database of this purpose, migrated and without rows, for one test at a time; answers its DSN."""
        dsn = self._dsn(purpose)
        if purpose in self._made:
            await self._execute(purpose, EMPTY)
        else:
            await self._copy(purpose)
        return dsn

    def _dsn(self, database: str) -> str:
        return f"{self._server}/{database}"

    async def _copy(self, name: str, template: str = TEMPLATE) -> None:
        if TEMPLATE not in self._made:
            await migrate(self._dsn(TEMPLATE))
            self._made.add(TEMPLATE)
        await self._execute("postgres", f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        (block,) = OWN_ROW.findall((FOLDER / "0001_core.sql").read_text(encoding="utf-8"))
        await self._execute(name, block + HURRY.format(name=name))
        self._made.add(name)

    async def _execute(self, database: str, sql: str) -> None:
        connection = await asyncpg.connect(self._dsn(database))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


class ClickHouseDatabases:
    """Databases on one server, the next of which is made ahead. Old ones go: each table takes memory."""

    def __init__(self) -> None:
        """Start the server, unless CLICKHOUSE_URL names one."""
        self.url = external_url() or address_of("clickhouse")
        self._numbers = count()
        self._in_use: deque[str] = deque()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="databases")
        self._next: Future[str] | None = None

    def name(self) -> str:
        """A migrated database without rows that nobody else uses."""
        made = self._next or self._maker.submit(self._make)
        name = made.result()
        self._in_use.append(name)
        self._next = self._maker.submit(self._make)
        return name

    def settle(self) -> None:
        """Wait until nothing is being made: the next test may be one without sockets."""
        if self._next is not None:
            self._next.exception()

    def _make(self) -> str:
        name = f"test_{next(self._numbers)}"
        asyncio.run(migrate_clickhouse(self.url, Target(name)))
        while len(self._in_use) > IN_USE_MAX:
            asyncio.run(self._drop(self._in_use.popleft()))
        return name

    async def _drop(self, name: str) -> None:
        clickhouse = ClickHouse(self.url, name)
        try:
            await clickhouse.command(f"DROP DATABASE {name} SYNC")
        finally:
            await clickhouse.close()


@cache
def postgres_databases() -> PostgresDatabases:
    """Those of this run."""
    return PostgresDatabases()


@cache
def clickhouse_databases() -> ClickHouseDatabases:
    """Those of this run."""
    return ClickHouseDatabases()
