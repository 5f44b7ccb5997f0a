"""An erasure step by step: the control event first, then the row of the vault, then the wait for keys that are kept.

Once the event is recorded nobody uses the key any more: gateways let go of it, and whoever meets its row deletes it. So
a command that dies on its way leaves nothing open, and the next one finishes.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from api.cli.times import MICROS_PER_SECOND, now_micros
from api.control.session import ControlSession
from api.gateway.eraser import LOOK_SECONDS
from api.gateway.subjects import KEPT_SECONDS
from processors.control import Erasure, erase_subject
from sinks.postgres.vault import SubjectVault
from sinks.postgres.vault_rows import SubjectRow

#: The longest that a gateway may go on with a key that it keeps, once its row is gone.
FORGOTTEN_SECONDS = KEPT_SECONDS + LOOK_SECONDS


class DataSubject(NamedTuple):
    """Whom to erase: by what the app calls them, or by their handle."""

    tenant_id: str
    user_id: str | None
    handle: str | None


class Destroyed(NamedTuple):
    """A subject whose key is no longer in the vault."""

    erasure: Erasure
    #: When its row was surely gone, microseconds since the epoch.
    at: int
    #: Whether the control topic had the erasure before.
    was_known: bool
    #: Whether the vault still had a row: keys of it may be kept in gateways.
    had_row: bool

    @property
    def forgotten_at(self) -> int:
        """When the last gateway has surely let go of the key, microseconds since the epoch, a whole second."""
        until = self.at + FORGOTTEN_SECONDS * MICROS_PER_SECOND
        return math.ceil(until / MICROS_PER_SECOND) * MICROS_PER_SECOND


#: How many events have something sealed for a subject: (tenant, handle).
CountSealed = Callable[[str, str], Awaitable[int | None]]


async def destroy(
    session: ControlSession, vault: SubjectVault, asked: DataSubject, count: CountSealed, reason: str | None
) -> Destroyed | None:
    """Record the erasure and delete the row; None when neither the vault nor the control topic knows the subject.

    Raises ControlRefusedError, LogError (nothing is destroyed then), StoreUnavailableError (ask again to finish).
    """
    row = await _row(vault, asked)
    known = session.state.erasures.get(row.handle if row else asked.handle or "")
    if known is not None and known.tenant_id != asked.tenant_id:
        return None
    if known is not None:
        erasure = known
    elif row is not None:
        erasure = await _record(session, row, count, reason)
    else:
        return None
    await vault.destroy([erasure.handle])
    return Destroyed(erasure, now_micros(), was_known=known is not None, had_row=row is not None)


async def _row(vault: SubjectVault, asked: DataSubject) -> SubjectRow | None:
    if asked.user_id is not None:
        return await vault.find(asked.tenant_id, asked.user_id)
    row = await vault.find_handle(asked.handle or "")
    return row if row is not None and row.tenant_id == asked.tenant_id else None


async def _record(session: ControlSession, row: SubjectRow, count: CountSealed, reason: str | None) -> Erasure:
    erasure = Erasure(
        handle=row.handle,
        tenant_id=row.tenant_id,
        key_version=row.wrapped.key_version,
        sealed_events=await count(row.tenant_id, row.handle),
    )
    session.settle(lambda state, origin: erase_subject(state, erasure, origin), reason)
    return session.refresh().erasures[row.handle]
