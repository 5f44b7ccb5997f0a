"""The subject vault: who an end user's random handle stands for, until someone asks to be forgotten.

The one store that is not a projection (protocols.md, "Personal data"). A row holds a lookup hash under the tenant's
key, the random handle that stands in events, and the subject's data key wrapped by the tenant's key. Deleting the row
unlinks the handle and shreds whatever was sealed under that data key.

What was erased stands in the control topic. A row that is there all the same came back with a backup: it is never
served, and deleted by whoever meets it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import NamedTuple

import structlog

from sinks.postgres.key_encryption import KeyEncryption
from sinks.postgres.vault_keys import KEY_BYTES, SUBJECT_RANDOM_BYTES, lookup_hash
from sinks.postgres.vault_rows import SubjectRow, SubjectRows

log = structlog.get_logger(__name__)

REWRAP_ROWS = 500


class Subject(NamedTuple):
    """An end user as events know them; the data key never leaves the process."""

    #: Random handle, 32 lower-case hex digits.
    handle: str
    #: 32 bytes; seals what belongs to this subject (schemas/events.py, `sealed`).
    data_key: bytes

    def __repr__(self) -> str:
        """Never the key."""
        return f"Subject({self.handle})"


class VaultSecrets(NamedTuple):
    """What a vault needs to know and never stores."""

    #: Hashes user ids for look-up.
    lookup: bytes
    #: Wraps data keys.
    keys: KeyEncryption

    def __repr__(self) -> str:
        """Never the secret."""
        return "VaultSecrets()"


class SubjectVault:
    """Finds or makes the subject of a user id. Safe for many callers at once.

    Keeps no subject in memory, so that an erasure acts at once; who asks often (the gateway) caches for a short while.
    Every call raises StoreUnavailableError when the rows or the keys can't be reached.
    """

    def __init__(
        self,
        rows: SubjectRows,
        secrets: VaultSecrets,
        erased: Callable[[str], bool],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`erased` says of a handle whether the control topic has its erasure."""
        self._rows, self._secrets, self._erased, self._random = rows, secrets, erased, random

    async def subject(self, tenant_id: str, user_id: str) -> Subject:
        """The subject of this user of this tenant, made on first sight; every gateway gets the same one.

        Of two callers that meet a user first at once, one makes the row and both read it. Raises IntegrityError for a
        row that its keys don't open.
        """
        found = lookup_hash(self._secrets.lookup, tenant_id, user_id)
        while (row := await self._rows.find(tenant_id, found)) is None or await self._came_back(row):
            random_bytes = self._random(SUBJECT_RANDOM_BYTES)
            handle = random_bytes[KEY_BYTES:].hex()
            wrapped = await self._secrets.keys.wrap(tenant_id, handle, random_bytes[:KEY_BYTES])
            await self._rows.make(SubjectRow(tenant_id, found, handle, wrapped))
        return await self.open(row)

    async def find(self, tenant_id: str, user_id: str) -> SubjectRow | None:
        """The row of a user id, erased or not; makes none and opens none."""
        return await self._rows.find(tenant_id, lookup_hash(self._secrets.lookup, tenant_id, user_id))

    async def find_handle(self, handle: str) -> SubjectRow | None:
        """The row of a handle, erased or not; opens none."""
        return await self._rows.find_handle(handle)

    async def open(self, row: SubjectRow) -> Subject:
        """The subject of a row; raises IntegrityError when the keys don't open it."""
        return Subject(row.handle, await self._secrets.keys.unwrap(row.tenant_id, row.handle, row.wrapped))

    async def destroy(self, handles: Collection[str]) -> int:
        """Delete the rows of these handles: unlinks them and shreds their data keys. How many there were."""
        return await self._rows.destroy(handles)

    async def rewrap(self, on_progress: Callable[[int], None]) -> dict[str, int]:
        """Wrap every data key anew under its tenant's newest key; how many rows each version has at the end.

        Told how many are done. A row that is erased meanwhile stays away; one that is made meanwhile has the newest.
        """
        counts: dict[str, int] = {}
        after, done = "", 0
        while page := await self._rows.page(after, REWRAP_ROWS):
            for row in page:
                version = await self._rewrapped(row)
                counts[version] = counts.get(version, 0) + 1
            after, done = page[-1].handle, done + len(page)
            on_progress(done)
        return counts

    async def _rewrapped(self, row: SubjectRow) -> str:
        data_key = await self._secrets.keys.unwrap(row.tenant_id, row.handle, row.wrapped)
        wrapped = await self._secrets.keys.wrap(row.tenant_id, row.handle, data_key)
        if wrapped.key_version != row.wrapped.key_version:
            await self._rows.replace(row.handle, row.wrapped, wrapped)
        return wrapped.key_version

    async def _came_back(self, row: SubjectRow) -> bool:
        """Whether a row is one that was erased; then it is deleted."""
        if not self._erased(row.handle):
            return False
        await self._rows.destroy([row.handle])
        log.warning("erased_subject_came_back", tenant_id=row.tenant_id, handle=row.handle)
        return True

    async def close(self) -> None:
        """Let go of connections."""
        await self._rows.close()
        await self._secrets.keys.close()
