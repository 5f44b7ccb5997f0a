"""The subject vault: who an end user's random handle stands for, until someone asks to be forgotten.

The one store that is not a projection (protocols.md, "Personal data"). A row holds a lookup hash under the tenant's
key, the random handle that stands in events, and the subject's data key wrapped by the tenant's key. Deleting the row
unlinks the handle and shreds whatever was sealed under that data key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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
