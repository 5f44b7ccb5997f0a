"""Salted commitments to records: who has the record and its salt can check one, nobody else can test guesses.

The salt of a record is derived, never stored: keyed BLAKE2b (RFC 7693) over its place in Kafka, under a key per tenant
that comes from the log's salt secret by HKDF-SHA-256 (RFC 5869). A rebuild finds the same; a tenant can get its own.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b, sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SALT_BYTES = 32
VALUE_TAG = b"quaestor/audit/value/v2\0"
NULL_TAG = b"quaestor/audit/null/v2\0"
_KEY_INFO = b"quaestor/audit/salt/v1\0"
_PLACE = struct.Struct(">IQ")
TENANT_KEYS_CACHED_MAX = 10_000


class Salts:
    """The salts of one log's records."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 random bytes; raises ValueError for another length."""
        if len(secret) != SALT_BYTES:
            raise ValueError(f"a salt secret has {SALT_BYTES} bytes, not {len(secret)}")
        self._key = lru_cache(maxsize=TENANT_KEYS_CACHED_MAX)(lambda tenant_id: _tenant_key(secret, tenant_id))

    def salt(self, tenant_id: str, topic_id: str, partition: int, offset: int) -> bytes:
        """The 32 bytes of salt of the record at this place."""
        place = topic_id.encode() + _PLACE.pack(partition, offset)
        return blake2b(place, key=self._key(tenant_id), digest_size=SALT_BYTES).digest()

    def commitment(self, value: bytes | None, tenant_id: str, topic_id: str, partition: int, offset: int) -> bytes:
        """The commitment to a record's value bytes as Kafka has them; a null value has a tag of its own."""
        salt = self.salt(tenant_id, topic_id, partition, offset)
        return commitment(value, salt)


def commitment(value: bytes | None, salt: bytes) -> bytes:
    """SHA-256 over tag, salt and value."""
    return sha256(NULL_TAG + salt if value is None else VALUE_TAG + salt + value).digest()


def _tenant_key(secret: bytes, tenant_id: str) -> bytes:
    info = _KEY_INFO + tenant_id.encode("utf-8")
    return HKDF(algorithm=SHA256(), length=SALT_BYTES, salt=None, info=info).derive(secret)
