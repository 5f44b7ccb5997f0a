"""The subject vault: who an end user's random handle stands for, until someone asks to be forgotten.

The one store that is not a projection (protocols.md, "Personal data"). A row holds a lookup hash under the tenant's
key, the random handle that stands in events, and the subject's data key wrapped by the tenant's key. Deleting the row
unlinks the handle and shreds whatever was sealed under that data key.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import asyncpg

from sinks.postgres import vault_queries
from sinks.postgres.connect import VAULT_ROLE, create_pool, passing_errors
from sinks.postgres.vault_keys import (
    HANDLE_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    SUBJECT_RANDOM_BYTES,
    TenantKeys,
    tenant_keys,
)

CONNECTIONS_MAX = 4
TENANTS_CACHED_MAX = 1_000


@dataclass(frozen=True, repr=False)
class Subject:
    """An end user as events know them; the data key never leaves the process."""

    #: Random handle, 32 lower-case hex digits.
    handle: str
    #: 32 bytes; seals what belongs to this subject (schemas/events.py, `sealed`).
    data_key: bytes


class SubjectVault(Protocol):
    """Finds or makes the subject of a user id. Safe for many callers at once."""

    async def subject(self, tenant_id: str, user_id: str) -> Subject:
        """The subject of this user of this tenant, made on first sight; every gateway gets the same one.

        Raises StoreUnavailableError when the vault can't be reached: the event then says UNAVAILABLE.
        """

    async def forget(self, tenant_id: str, user_id: str) -> bool:
        """Erase: unlink the handle and shred the data key. False when there was none. Raises StoreUnavailableError."""

    async def close(self) -> None:
        """Let go of connections."""


class PostgresVault:
    """SubjectVault in the table `quaestor.subject`, under a role that can touch nothing else.

    Keeps no subject in memory, so that an erasure acts at once; who asks often (the gateway) caches for a short while.
    """

    def __init__(self, dsn: str, master_key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        """Connects at first use; raises ConfigurationError for a master key that is too short."""
        tenant_keys(master_key, "")
        self._dsn = dsn
        self._random = random
        self._pool: asyncpg.Pool | None = None
        self._keys = lru_cache(maxsize=TENANTS_CACHED_MAX)(lambda tenant_id: tenant_keys(master_key, tenant_id))

    async def subject(self, tenant_id: str, user_id: str) -> Subject:
        """As the seam says; of two callers that meet a user first at once, one makes the row and both read it."""
        keys = self._keys(tenant_id)
        lookup_hash = keys.lookup_hash(user_id)
        pool = await self._connected()
        with passing_errors():
            row = await pool.fetchrow(vault_queries.FIND_SUBJECT, tenant_id, lookup_hash)
            while row is None:
                handle, wrapped = _new_subject(keys, self._random(SUBJECT_RANDOM_BYTES))
                await pool.execute(vault_queries.MAKE_SUBJECT, tenant_id, lookup_hash, handle, wrapped)
                # Absent again only when it was erased in between: then another is made.
                row = await pool.fetchrow(vault_queries.FIND_SUBJECT, tenant_id, lookup_hash)
        return Subject(row["handle"], keys.unwrap(row["handle"], row["wrapped_key"]))

    async def forget(self, tenant_id: str, user_id: str) -> bool:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            lookup_hash = self._keys(tenant_id).lookup_hash(user_id)
            status = await pool.execute(vault_queries.FORGET_SUBJECT, tenant_id, lookup_hash)
        return bool(status == "DELETE 1")

    async def close(self) -> None:
        """As the seam says."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def _connected(self) -> asyncpg.Pool:
        if self._pool is None:
            self._pool = await create_pool(self._dsn, VAULT_ROLE, CONNECTIONS_MAX)
        return self._pool


class MemoryVault:
    """SubjectVault in memory, for tests: the same derivations, no database."""

    def __init__(self, master_key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        """Nobody is known."""
        self._master_key = master_key
        self._random = random
        self._rows: dict[tuple[str, bytes], tuple[str, bytes]] = {}

    async def subject(self, tenant_id: str, user_id: str) -> Subject:
        """As the seam says."""
        keys = tenant_keys(self._master_key, tenant_id)
        key = (tenant_id, keys.lookup_hash(user_id))
        if key not in self._rows:
            self._rows[key] = _new_subject(keys, self._random(SUBJECT_RANDOM_BYTES))
        handle, wrapped = self._rows[key]
        return Subject(handle, keys.unwrap(handle, wrapped))

    async def forget(self, tenant_id: str, user_id: str) -> bool:
        """As the seam says."""
        lookup_hash = tenant_keys(self._master_key, tenant_id).lookup_hash(user_id)
        return self._rows.pop((tenant_id, lookup_hash), None) is not None

    async def close(self) -> None:
        """As the seam says."""


def _new_subject(keys: TenantKeys, random_bytes: bytes) -> tuple[str, bytes]:
    """A handle and a wrapped data key."""
    data_key, nonce = random_bytes[:KEY_BYTES], random_bytes[KEY_BYTES : KEY_BYTES + NONCE_BYTES]
    handle = random_bytes[-HANDLE_BYTES:].hex()
    return handle, keys.wrap(handle, data_key, nonce)
