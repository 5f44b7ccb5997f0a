"""Who wraps the data keys of the subject vault: the seam to a key ring of ours or to a key management service.

A data key (32 bytes, one per subject) leaves a process only wrapped under its tenant's key-encryption key. `RingKeys`
has those keys from a ring (a file, a variable). A service keeps them to itself: its adapter is one class of three
methods (docs/guides/erasure.md shows one), `MemoryKms` is the fake of such a service.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.postgres.vault_keys import KEY_BYTES, KeyRing, wrapping_key

NONCE_BYTES = 12
CIPHERS_CACHED_MAX = 1_000
#: The longest wrapped key that a row takes; AWS KMS answers up to 6,144 bytes.
WRAPPED_BYTES_MAX = 8_192
VERSION_CHARACTERS_MAX = 256


class WrappedKey(NamedTuple):
    """A data key as it is stored."""

    #: Names the version of the key-encryption key, so that it can be replaced and the old one destroyed.
    key_version: str
    #: What only that version opens.
    wrapped: bytes


class KeyEncryption(Protocol):
    """Wraps and unwraps. Safe for many callers at once.

    Every call raises StoreUnavailableError when the keys can't be reached for now, and ConfigurationError when they are
    unusable.
    """

    async def wrap(self, tenant_id: str, handle: str, data_key: bytes) -> WrappedKey:
        """The data key under the tenant's newest key, bound to the tenant and the handle."""

    async def unwrap(self, tenant_id: str, handle: str, wrapped: WrappedKey) -> bytes:
        """The data key.

        Raises IntegrityError for another tenant or handle, altered bytes, and a version that there is no longer.
        """

    async def close(self) -> None:
        """Let go of connections."""


class RingKeys:
    """KeyEncryption by a key ring: AES-256-GCM under keys derived per tenant."""

    def __init__(self, ring: Callable[[], KeyRing], random: Callable[[int], bytes] = os.urandom) -> None:
        """`ring` is asked at each call, so that a new version is seen at once."""
        self._ring, self._random = ring, random
        self._cipher = lru_cache(maxsize=CIPHERS_CACHED_MAX)(
            lambda secret, tenant_id: AESGCM(wrapping_key(secret, tenant_id))
        )

    async def wrap(self, tenant_id: str, handle: str, data_key: bytes) -> WrappedKey:
        """As the seam says: nonce, ciphertext, tag."""
        ring, nonce = self._ring(), self._random(NONCE_BYTES)
        cipher = self._cipher(ring.versions[ring.newest], tenant_id)
        return WrappedKey(str(ring.newest), nonce + cipher.encrypt(nonce, data_key, handle.encode()))

    async def unwrap(self, tenant_id: str, handle: str, wrapped: WrappedKey) -> bytes:
        """As the seam says."""
        secret = self._ring().key(wrapped.key_version)
        if secret is None:
            raise IntegrityError(f"there is no key-encryption key of version {wrapped.key_version!r} (any more)")
        return _decrypted(self._cipher(secret, tenant_id), wrapped.wrapped, handle.encode())

    async def close(self) -> None:
        """As the seam says."""


class MemoryKms:
    """KeyEncryption as a key management service does it, in memory, for tests: a key per tenant stays inside."""

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        """No tenant has a key yet."""
        self._random = random
        self._keys: dict[tuple[str, str], AESGCM] = {}
        self._newest: dict[str, int] = {}
        #: Whether it can't be reached.
        self.away = False

    def rotate(self, tenant_id: str) -> None:
        """A new version of a tenant's key wraps from now on."""
        version = self._newest[tenant_id] = self._newest.get(tenant_id, 0) + 1
        self._keys[tenant_id, f"{tenant_id}/{version}"] = AESGCM(self._random(KEY_BYTES))

    def destroy(self, tenant_id: str, key_version: str) -> None:
        """What was wrapped under this version opens no more."""
        del self._keys[tenant_id, key_version]

    async def wrap(self, tenant_id: str, handle: str, data_key: bytes) -> WrappedKey:
        """As the seam says."""
        self._answer()
        if tenant_id not in self._newest:
            self.rotate(tenant_id)
        version, nonce = f"{tenant_id}/{self._newest[tenant_id]}", self._random(NONCE_BYTES)
        boxed = self._keys[tenant_id, version].encrypt(nonce, data_key, _context(tenant_id, handle))
        return WrappedKey(version, nonce + boxed)

    async def unwrap(self, tenant_id: str, handle: str, wrapped: WrappedKey) -> bytes:
        """As the seam says."""
        self._answer()
        cipher = self._keys.get((tenant_id, wrapped.key_version))
        if cipher is None:
            raise IntegrityError(f"the service knows no key {wrapped.key_version!r} (any more)")
        return _decrypted(cipher, wrapped.wrapped, _context(tenant_id, handle))

    async def close(self) -> None:
        """As the seam says."""

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailableError("the key management service did not answer")


def _context(tenant_id: str, handle: str) -> bytes:
    return f"{tenant_id}/{handle}".encode()


def _decrypted(cipher: AESGCM, wrapped: bytes, bound: bytes) -> bytes:
    try:
        return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise IntegrityError("a subject's key does not open: altered, or made under another key") from None
