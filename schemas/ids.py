"""Ids: uuid7 (RFC 9562, 5.7) for original events, uuid5 (5.5) for derived ones. Clock and randomness come in."""

from __future__ import annotations

import re
from hashlib import sha1
from uuid import UUID

#: Namespace of every id we derive; fixed for ever, or derived events would change their ids.
NAMESPACE = UUID("6f6b3f0e-6d5c-5b7e-9f0a-0d8a4e9a7c11")
RANDOM_BYTES_PER_UUID7 = 10
MICROS_PER_MILLI = 1_000
#: The digit that holds the variant: its two low bits are random.
_VARIANT = {f"{digit:x}": "89ab"[digit & 3] for digit in range(16)}
#: The variant of RFC 9562 in the two high bits of a hexadecimal digit.
_VARIANTS = "89ab" * 4
#: A uuid in canonical lower-case form.
UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: What a caller may use as a tenant, team, project, key, provider or run id.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,127}")


def uuid7(now_micros: int, random_bytes: bytes) -> str:
    """A uuid7 of the given time (microseconds since the epoch) and ten random bytes, in canonical text."""
    (end,) = uuid7_ends(random_bytes)
    return uuid7_begin(now_micros // MICROS_PER_MILLI) + end


def uuid7_begin(now_millis: int) -> str:
    """What the uuid7s of a millisecond since the epoch begin with."""
    time = f"{now_millis & 0xFFFF_FFFF_FFFF:012x}"
    return f"{time[:8]}-{time[8:]}-"


def uuid7_ends(random_bytes: bytes) -> list[str]:
    """What uuid7s end with: one for every ten random bytes."""
    digits, variant = random_bytes.hex(), _VARIANT
    return [
        f"7{digits[at : at + 3]}-{variant[digits[at + 4]]}{digits[at + 5 : at + 8]}-{digits[at + 8 : at + 20]}"
        for at in range(0, len(digits), 2 * RANDOM_BYTES_PER_UUID7)
    ]


def uuid7_millis(value: str) -> int:
    """The time inside a uuid7, milliseconds since the epoch; raises ValueError when the text is not a uuid7."""
    if not is_uuid(value) or value[14] != "7":
        raise ValueError(f"{value!r} is not a uuid7")
    return int(value[:8] + value[9:13], 16)


def derived_id(processor: str, source_event_id: str, kind: str, leg: str) -> str:
    """The id of an event derived by `processor`; `leg` is semantic (an account, a meter), never a position.

    Written out, because uuid.uuid5 takes four times as long and the ledger makes two ids per event.
    """
    name = f"{processor}/{source_event_id}/{kind}/{leg}".encode()
    text = sha1(NAMESPACE.bytes + name, usedforsecurity=False).hexdigest()
    variant = _VARIANTS[int(text[16], 16)]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def is_uuid(value: str) -> bool:
    """Whether the text is a uuid in canonical lower-case form."""
    return UUID_TEXT.fullmatch(value) is not None


def is_name(value: str) -> bool:
    """Whether the text may name a tenant, team, project, key, provider or run."""
    return NAME.fullmatch(value) is not None
