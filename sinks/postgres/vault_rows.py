"""The rows of the subject vault: the seam, the table `quaestor.subject`, and the fake."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

import asyncpg

from sinks.postgres import vault_queries as queries
from sinks.postgres.connect import VAULT_ROLE, create_pool, passing_errors
from sinks.postgres.key_encryption import WrappedKey

CONNECTIONS_MAX = 4
DESTROYED_AT_ONCE_MAX = 1_000


@dataclass(frozen=True, repr=False)
class SubjectRow:
    """A subject as it is stored."""

    tenant_id: str
    #: HMAC-SHA-256 of the user id, 32 bytes.
    lookup_hash: bytes
    #: 32 hex digits.
    handle: str
    wrapped: WrappedKey


class SubjectRows(Protocol):
    """Rows by (tenant, look-up hash) and by handle. Every call raises StoreUnavailableError when they are away."""

    async def find(self, tenant_id: str, lookup_hash: bytes) -> SubjectRow | None:
        """The row of a look-up hash."""

    async def find_handle(self, handle: str) -> SubjectRow | None:
        """The row of a handle."""

    async def make(self, row: SubjectRow) -> None:
        """Add a row; nothing happens where its look-up hash has one."""

    async def destroy(self, handles: Collection[str]) -> int:
        """Delete the rows of these handles; how many there were."""

    async def page(self, after: str, most: int) -> list[SubjectRow]:
        """The first rows whose handles come after this one, by handle."""

    async def replace(self, handle: str, old: WrappedKey, new: WrappedKey) -> None:
        """Store a data key wrapped anew; nothing happens where the row is gone or has another than `old`."""

    async def close(self) -> None:
        """Let go of connections."""


class PostgresRows:
    """SubjectRows in the table `quaestor.subject`, under a role that can touch nothing else."""

    def __init__(self, dsn: str) -> None:
        """Connects at first use."""
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None

    async def find(self, tenant_id: str, lookup_hash: bytes) -> SubjectRow | None:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            return _row(await pool.fetchrow(queries.FIND_SUBJECT, tenant_id, lookup_hash))

    async def find_handle(self, handle: str) -> SubjectRow | None:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            return _row(await pool.fetchrow(queries.FIND_HANDLE, handle))

    async def make(self, row: SubjectRow) -> None:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            await pool.execute(queries.MAKE_SUBJECT, row.tenant_id, row.lookup_hash, row.handle, *row.wrapped)

    async def destroy(self, handles: Collection[str]) -> int:
        """As the seam says; so many at once, each time durable."""
        pool, destroyed = await self._connected(), 0
        listed = list(handles)
        for first in range(0, len(listed), DESTROYED_AT_ONCE_MAX):
            with passing_errors():
                some = listed[first : first + DESTROYED_AT_ONCE_MAX]
                destroyed += len(await pool.fetch(queries.DESTROY_SUBJECTS, some))
        return destroyed

    async def page(self, after: str, most: int) -> list[SubjectRow]:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            found = await pool.fetch(queries.SUBJECTS_AFTER, after, most)
        return [row for row in map(_row, found) if row]

    async def replace(self, handle: str, old: WrappedKey, new: WrappedKey) -> None:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            await pool.execute(queries.REWRAP_SUBJECT, handle, *old, *new)

    async def close(self) -> None:
        """As the seam says."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def _connected(self) -> asyncpg.Pool:
        if self._pool is None:
            self._pool = await create_pool(self._dsn, VAULT_ROLE, CONNECTIONS_MAX)
        return self._pool


def _row(row: asyncpg.Record | None) -> SubjectRow | None:
    if row is None:
        return None
    tenant_id, lookup_hash, handle, key_version, wrapped = row
    return SubjectRow(tenant_id, lookup_hash, handle, WrappedKey(key_version, wrapped))


class MemoryRows:
    """SubjectRows in memory, for tests."""

    def __init__(self) -> None:
        """Nobody is known."""
        self.rows: dict[tuple[str, bytes], SubjectRow] = {}

    async def find(self, tenant_id: str, lookup_hash: bytes) -> SubjectRow | None:
        """As the seam says."""
        return self.rows.get((tenant_id, lookup_hash))

    async def find_handle(self, handle: str) -> SubjectRow | None:
        """As the seam says."""
        return next((row for row in self.rows.values() if row.handle == handle), None)

    async def make(self, row: SubjectRow) -> None:
        """As the seam says."""
        self.rows.setdefault((row.tenant_id, row.lookup_hash), row)

    async def destroy(self, handles: Collection[str]) -> int:
        """As the seam says."""
        gone = [key for key, row in self.rows.items() if row.handle in handles]
        for key in gone:
            del self.rows[key]
        return len(gone)

    async def page(self, after: str, most: int) -> list[SubjectRow]:
        """As the seam says."""
        later = [row for row in self.rows.values() if row.handle > after]
        return sorted(later, key=lambda row: row.handle)[:most]

    async def replace(self, handle: str, old: WrappedKey, new: WrappedKey) -> None:
        """As the seam says."""
        row = await self.find_handle(handle)
        if row is not None and row.wrapped == old:
            self.rows[row.tenant_id, row.lookup_hash] = replace(row, wrapped=new)

    async def close(self) -> None:
        """As the seam says."""
