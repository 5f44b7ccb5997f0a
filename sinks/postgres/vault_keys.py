"""What the subject vault derives from the master key; pure.

Per tenant two keys come from the master key by HKDF-SHA-256: one hashes user ids for look-up, one wraps data keys. So a
copy of the table tells nothing without the master key, and one tenant's key opens nothing of another's.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from schemas.errors import ConfigurationError, IntegrityError

MASTER_KEY_BYTES_MIN = 32
KEY_BYTES = 32
NONCE_BYTES = 12
HANDLE_BYTES = 16
#: Random bytes one new subject needs: data key, nonce of its wrapping, handle.
SUBJECT_RANDOM_BYTES = KEY_BYTES + NONCE_BYTES + HANDLE_BYTES


@dataclass(frozen=True, repr=False)
class TenantKeys:
    """The two keys of one tenant."""

    lookup: bytes
    wrapping: AESGCM

    def lookup_hash(self, user_id: str) -> bytes:
        """What stands for a user id in the table."""
        return hmac.digest(self.lookup, user_id.encode(), hashlib.sha256)

    def wrap(self, handle: str, data_key: bytes, nonce: bytes) -> bytes:
        """The data key encrypted: nonce, ciphertext, tag; bound to its handle."""
        return nonce + self.wrapping.encrypt(nonce, data_key, handle.encode())

    def unwrap(self, handle: str, wrapped: bytes) -> bytes:
        """The data key of a row; raises IntegrityError under another master key or for an altered row."""
        try:
            return self.wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], handle.encode())
        except InvalidTag:
            raise IntegrityError("a subject's key does not open: altered, or made under another master key") from None


def tenant_keys(master_key: bytes, tenant_id: str) -> TenantKeys:
    """The keys of a tenant; raises ConfigurationError for a master key that is too short."""
    if len(master_key) < MASTER_KEY_BYTES_MIN:
        raise ConfigurationError(f"the vault's master key must have at least {MASTER_KEY_BYTES_MIN} bytes")
    lookup = _derived(master_key, b"quaestor/vault/v1/lookup\0" + tenant_id.encode())
    return TenantKeys(lookup, AESGCM(_derived(master_key, b"quaestor/vault/v1/wrap\0" + tenant_id.encode())))


def _derived(master_key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(master_key)
