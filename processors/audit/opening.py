"""Openings: what shows that an entry commits to a record; for those who may see the record, apart from receipts.

JSON with the entry's position, the record's salt (hex) and its value bytes as Kafka has them (base64; null for a record
without a value). Without the salt nobody can test guesses of the record against its entry.
"""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

from processors.audit.commitment import SALT_BYTES, commitment
from processors.audit.entry import MAGIC, Entry
from schemas.errors import IntegrityError

FORMAT = "quaestor/audit-opening/v1"
EXTENSION = ".opening.json"
OPENING_BYTES_MAX = 16 * 1024 * 1024


class OpeningError(IntegrityError):
    """An opening is malformed, or the record is not the one that the entry commits to."""


class Opening(NamedTuple):
    """What a commitment is made of."""

    position: int
    salt: bytes
    value: bytes | None


def write_opening(opening: Opening) -> bytes:
    """The bytes of the file."""
    value = None if opening.value is None else base64.b64encode(opening.value).decode("ascii")
    fields = {"format": FORMAT, "index": opening.position, "salt": opening.salt.hex(), "value": value}
    return (json.dumps(fields, indent=2) + "\n").encode("utf-8")


def parse_opening(data: bytes) -> Opening:
    """What a file says; raises OpeningError."""
    if len(data) > OPENING_BYTES_MAX:
        raise OpeningError(f"an opening has at most {OPENING_BYTES_MAX} bytes")
    try:
        fields = json.loads(data)
        value = None if fields["value"] is None else base64.b64decode(fields["value"], validate=True)
        salt, position, known = bytes.fromhex(fields["salt"]), fields["index"], fields["format"] == FORMAT
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OpeningError(f"the opening is not one of {FORMAT}") from None
    if not known or not isinstance(position, int) or len(salt) != SALT_BYTES:
        raise OpeningError(f"the opening is not one of {FORMAT}")
    return Opening(position, salt, value)


def check_opening(opening: Opening, entry: Entry) -> None:
    """Raise OpeningError unless the entry commits to this record under this salt."""
    if entry.magic != MAGIC:
        raise OpeningError(f"entry {entry.seq} is of a version whose commitments have no salt")
    if opening.position != entry.seq:
        raise OpeningError(f"the opening is of entry {opening.position}, not of entry {entry.seq}")
    if commitment(opening.value, opening.salt) != entry.source.commitment:
        raise OpeningError(f"entry {entry.seq} commits to another record than the opening has")
