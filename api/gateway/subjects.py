"""What events may say of a caller: handles for end users, an allow-list of tags in the clear, everything else sealed.

protocols.md, "Personal data": nothing personal stands in the log in the clear, nor anything that stays linkable to a
person after erasure. Keys live for KEPT_SECONDS in this process at most; the key of a subject whose erasure the control
topic tells is not used from then on, and let go of by the next `forget_erased`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog

from processors.subjects.sealing import NONCE_BYTES, Sealer
from schemas.errors import ConfigurationError, IntegrityError, StoreUnavailableError
from schemas.events import SubjectState
from schemas.ids import is_name
from sinks.postgres.vault import SubjectVault

log = structlog.get_logger(__name__)

SUBJECTS_CACHED_MAX = 20_000
KEPT_SECONDS = 60.0
VAULT_SECONDS_MAX = 1.0
#: After a failure the vault is left alone for so long, or every request would wait for it.
VAULT_REST_SECONDS = 1.0
COMMITMENT_PREFIX = b"commit/v1\0"
SALT_BYTES = 32
#: The user id under which the vault keeps the tenant's own key: nobody's id is empty.
TENANT_ITSELF = ""


class Seal(NamedTuple):
    """The key of a subject, ready to seal, and the subject's handle."""

    handle: str
    sealer: Sealer


class Personal(NamedTuple):
    """What a RequestEvent says of the caller."""

    subject_handle: str | None
    subject_state: SubjectState
    tags: dict[str, str]
    sealed: bytes | None
    body_commitment: bytes | None


class Subjects:
    """Asks the vault, remembers for a short while, seals."""

    def __init__(
        self,
        vault: SubjectVault,
        tags_allowed: tuple[str, ...],
        erased: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tags_allowed` are the keys that stand in the clear; `erased` says of a handle whether it was erased."""
        self._vault, self._allowed, self._erased, self._clock = vault, frozenset(tags_allowed), erased, clock
        #: When each is let go of, and the seal; the oldest first.
        self._seals: OrderedDict[tuple[str, str], tuple[float, Seal]] = OrderedDict()
        self._rests_until = 0.0

    async def personal(
        self, tenant_id: str, user: str | None, tags: dict[str, str], body: bytes, event_id: str
    ) -> Personal:
        """What the event `event_id` says of this caller; never fails, the vault's absence is a state."""
        seal = self._kept(tenant_id, user or TENANT_ITSELF)
        if seal is None:
            seal = await self._ask(tenant_id, user or TENANT_ITSELF)
        clear = self._clear(tags) if tags else {}
        state, handle = SubjectState.NONE, None
        if user is not None:
            state = SubjectState.LINKED if seal else SubjectState.UNAVAILABLE
            handle = seal.handle if seal else None
        if seal is None:
            return Personal(handle, state, clear, None, None)
        hidden = {key: value for key, value in tags.items() if key not in clear} if len(clear) < len(tags) else None
        salt = os.urandom(SALT_BYTES + NONCE_BYTES)
        sealed = seal.sealer.seal(tenant_id, event_id, salt[SALT_BYTES:], _content(salt[:SALT_BYTES], hidden))
        commitment = hashlib.sha256(COMMITMENT_PREFIX + salt[:SALT_BYTES] + body).digest()
        return Personal(handle, state, clear, sealed, commitment)

    def _clear(self, tags: dict[str, str]) -> dict[str, str]:
        """What may be read: an allowed key with a value that looks like a name, so no sentence and no address."""
        allowed = self._allowed
        return {key: value for key, value in tags.items() if key in allowed and is_name(value)}

    def forget(self) -> None:
        """Let go of the keys that were kept for long enough."""
        now = self._clock()
        while self._seals and next(iter(self._seals.values()))[0] <= now:
            self._seals.popitem(last=False)

    def forget_erased(self) -> None:
        """Let go of the keys of subjects that were erased."""
        for place in [place for place, (_, seal) in self._seals.items() if self._erased(seal.handle)]:
            del self._seals[place]

    def _kept(self, tenant_id: str, user: str) -> Seal | None:
        until, seal = self._seals.get((tenant_id, user), (0.0, None))
        return seal if seal is not None and until > self._clock() and not self._erased(seal.handle) else None

    async def _ask(self, tenant_id: str, user: str) -> Seal | None:
        if self._clock() < self._rests_until:
            return None
        try:
            async with asyncio.timeout(VAULT_SECONDS_MAX):
                subject = await self._vault.subject(tenant_id, user)
        except (StoreUnavailableError, TimeoutError) as error:
            self._rests_until = self._clock() + VAULT_REST_SECONDS
            log.warning("vault_away", error=type(error).__name__)
            return None
        except (IntegrityError, ConfigurationError) as error:
            log.error("subject_key_does_not_open", tenant_id=tenant_id, error=str(error))  # noqa: TRY400 - said in full
            return None
        seal = Seal(subject.handle, Sealer(subject.data_key))
        self._seals.pop((tenant_id, user), None)
        self._seals[tenant_id, user] = (self._clock() + KEPT_SECONDS, seal)
        if len(self._seals) > SUBJECTS_CACHED_MAX:
            self._seals.popitem(last=False)
        return seal


def _content(salt: bytes, hidden: dict[str, str] | None) -> bytes:
    content: dict[str, object] = {"salt": salt.hex()}
    if hidden:
        content["tags"] = hidden
    return msgspec.json.encode(content)
