"""The secrets of the subject vault that are ours to keep, as one text: a key ring. Pure.

    lookup <64 hex digits>      hashes user ids for look-up; opens nothing
    1 <64 hex digits>           a key-encryption key by its version; the highest wraps, every one unwraps
    2 <64 hex digits>

One line of 64 hex digits alone is the form of before: both the look-up secret and version 1. Of each secret every
tenant has a key of its own, by HKDF-SHA-256: a copy of the table tells nothing without the ring, and one tenant's key
opens nothing of another's.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from schemas.errors import ConfigurationError

KEY_BYTES = 32
HANDLE_BYTES = 16
#: Random bytes one new subject needs: data key, handle.
SUBJECT_RANDOM_BYTES = KEY_BYTES + HANDLE_BYTES
LOOKUP = "lookup"
VERSIONS_MAX = 1_000
_LINE = re.compile(r"(?:(lookup|[1-9][0-9]{0,5}) )?([0-9A-Fa-f]{64})")


@dataclass(frozen=True, repr=False)
class KeyRing:
    """The look-up secret and the key-encryption keys."""

    lookup: bytes
    versions: Mapping[int, bytes]

    @property
    def newest(self) -> int:
        """The version that wraps."""
        return max(self.versions)

    def key(self, version: str) -> bytes | None:
        """The key of a version by its name; None when there is none (any more)."""
        return self.versions.get(int(version)) if version.isdecimal() else None

    def with_new(self, key: bytes) -> KeyRing:
        """The ring with one more version, which wraps from now on."""
        return KeyRing(self.lookup, {**self.versions, self.newest + 1: key})

    def text(self) -> str:
        """As it is kept."""
        lines = [f"{LOOKUP} {self.lookup.hex()}", *(f"{version} {key.hex()}" for version, key in self.versions.items())]
        return "\n".join(lines) + "\n"


def new_ring(random_bytes: bytes) -> KeyRing:
    """A ring of 64 random bytes, whose two secrets have nothing to do with each other."""
    return KeyRing(random_bytes[:KEY_BYTES], {1: random_bytes[KEY_BYTES : 2 * KEY_BYTES]})


def parse_ring(text: str, place: str) -> KeyRing:
    """A ring from its text, lines parted by newlines, commas or semicolons.

    Raises ConfigurationError naming `place`.
    """
    found: dict[str, bytes] = {}
    for line in filter(None, map(str.strip, re.split(r"[\n,;]", text))):
        match = _LINE.fullmatch(line)
        if match is None or (match[1] or LOOKUP) in found:
            raise _damaged(place)
        found[match[1] or LOOKUP] = bytes.fromhex(match[2])
        if match[1] is None:
            found["1"] = found[LOOKUP]
    lookup, versions = found.pop(LOOKUP, None), {int(name): key for name, key in found.items()}
    if lookup is None or not 0 < len(versions) <= VERSIONS_MAX:
        raise _damaged(place)
    return KeyRing(lookup, versions)


def _damaged(place: str) -> ConfigurationError:
    return ConfigurationError(
        f"the vault's keys in {place} are damaged: lines of 'lookup' or a version, and 64 hex digits; restore them "
        "from their backup"
    )


def lookup_hash(secret: bytes, tenant_id: str, user_id: str) -> bytes:
    """What stands for a user id in the table, 32 bytes."""
    key = derived(secret, b"quaestor/vault/v1/lookup\0" + tenant_id.encode())
    return hmac.digest(key, user_id.encode(), hashlib.sha256)


def wrapping_key(secret: bytes, tenant_id: str) -> bytes:
    """A tenant's key-encryption key, 32 bytes."""
    return derived(secret, b"quaestor/vault/v1/wrap\0" + tenant_id.encode())


def derived(secret: bytes, info: bytes) -> bytes:
    """A key of 32 bytes for one use."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)
