"""Signed notes (c2sp.org/signed-note): text, a blank line, one line per signature.

Two kinds of keys sign: a log's (Ed25519 over the text) and a witness's (Ed25519 over the text and a time,
c2sp.org/tlog-cosignature).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.errors import IntegrityError

ALGORITHM_ED25519 = 0x01
ALGORITHM_COSIGNATURE = 0x04
ALGORITHMS = (ALGORITHM_ED25519, ALGORITHM_COSIGNATURE)
KEY_ID_BYTES = 4
#: What a cosignature has before the signature itself: seconds since the epoch, big-endian.
TIME_BYTES = 8
TIME_SECONDS_MAX = 2**63 - 1
SIGNATURES_MAX = 100
NOTE_BYTES_MAX = 1_000_000
_DASH = "\u2014 "
#: Control characters but the newline; and what no key name has: control characters, white space and plus signs.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NO_NAME = re.compile(r"[\x00-\x1f\s+]")
#: Points of an order of 8 and below as Ed25519 keys, without the bit of their sign: anybody can sign under them.
_SMALL_ORDER = frozenset(
    map(
        bytes.fromhex,
        (
            "00" * 32,
            "01" + "00" * 31,
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            *(f"{first}{'ff' * 30}7f" for first in ("ec", "ed", "ee")),
        ),
    )
)


class NoteError(IntegrityError):
    """The signed note is malformed, or no known key signed it."""


class SignatureLine(NamedTuple):
    """One signature as it stands in a note, not yet verified."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def text(self) -> str:
        """The line as it stands in a note, its end included."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode('ascii')}\n"

    @property
    def time_seconds(self) -> int:
        """Of a cosignature: when the witness signed, seconds since the epoch; of other signatures a number."""
        return int.from_bytes(self.signature[:TIME_BYTES], "big")


@dataclass(frozen=True)
class Verifier:
    """A public key that may have signed a note."""

    name: str
    public_key: bytes
    #: How it signs: as a log, or as a witness (ALGORITHM_COSIGNATURE).
    algorithm: int = ALGORITHM_ED25519

    @property
    def key_id(self) -> bytes:
        """The four bytes that name this key in a signature line."""
        return key_id(self.name, self.algorithm, self.public_key)

    @property
    def vkey(self) -> str:
        """The key as text: name+hash+base64."""
        body = base64.b64encode(bytes([self.algorithm]) + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{body}"

    @property
    def is_witness(self) -> bool:
        """Whether its signatures are cosignatures: they carry a time."""
        return self.algorithm == ALGORITHM_COSIGNATURE

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether the signature (of a witness: with its time) is this key's over the text."""
        if self.is_witness:
            time_seconds = int.from_bytes(signature[:TIME_BYTES], "big")
            if time_seconds > TIME_SECONDS_MAX:
                return False
            text, signature = cosigned_bytes(text, time_seconds), signature[TIME_BYTES:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """A private key that signs notes under its name."""

    name: str
    #: 32 bytes; never shown.
    seed: bytes

    def __repr__(self) -> str:
        """Name the key without showing it."""
        return f"Signer(name={self.name!r})"

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """The whole signed note; raises ValueError when the text does not end a line or the name is no key name."""
        if not text.endswith("\n") or not is_key_name(self.name):
            raise ValueError("a note's text ends with a newline, and its key has a name without spaces and plus signs")
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode("utf-8"))
        return f"{text}\n{SignatureLine(self.name, self.verifier.key_id, signature).text}"


def cosigned_bytes(text: bytes, time_seconds: int) -> bytes:
    """What a witness signs of a checkpoint's text at a time."""
    return b"cosignature/v1\ntime %d\n" % time_seconds + text


def key_id(name: str, algorithm: int, public_key: bytes) -> bytes:
    """The key id: the first four bytes of SHA-256 over name, newline, algorithm and key."""
    return sha256(name.encode("utf-8") + b"\n" + bytes([algorithm]) + public_key).digest()[:KEY_ID_BYTES]


def is_key_name(name: str) -> bool:
    """Whether a text may name a key: not empty, no white space, no plus sign, no control character."""
    return bool(name) and _NO_NAME.search(name) is None


def parse_vkey(vkey: str) -> Verifier:
    """The verifier of a log's or a witness's vkey.

    Raises NoteError when it is malformed, of another algorithm, or its hash is wrong.
    """
    name, _, rest = vkey.partition("+")
    digest, _, body = rest.partition("+")
    try:
        key = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):  # the latter for what is not even ASCII
        raise NoteError("the key's base64 can't be read") from None
    if not is_key_name(name) or len(key) != 33 or key[0] not in ALGORITHMS:  # noqa: PLR2004 - algorithm and key
        raise NoteError("the key is not name+hash+base64 of an Ed25519 key")
    if key[1:-1] + bytes([key[-1] & 0x7F]) in _SMALL_ORDER:
        raise NoteError("the key is one under which anybody can sign")
    verifier = Verifier(name, key[1:], key[0])
    if verifier.key_id.hex() != digest:
        raise NoteError("the key's hash does not fit its name and bytes")
    return verifier


def parse_note(note: str) -> tuple[str, list[SignatureLine]]:
    """Text and signature lines of a note, nothing verified; raises NoteError when it is malformed."""
    if len(note) > NOTE_BYTES_MAX or _CONTROL.search(note) is not None:
        raise NoteError("the note is too large or has control characters")
    split = note.rfind("\n\n")
    if split < 0 or not note.endswith("\n"):
        raise NoteError("the note has no signatures after a blank line")
    lines = note[split + 2 : -1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NoteError("the note has too many signatures")
    return note[: split + 1], [_signature(line) for line in lines]


def _signature(line: str) -> SignatureLine:
    name, _, body = line.removeprefix(_DASH).partition(" ")
    try:
        payload = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        payload = b""
    if not line.startswith(_DASH) or not is_key_name(name) or len(payload) <= KEY_ID_BYTES:
        raise NoteError(f"malformed signature line {line[:80]!r}")
    return SignatureLine(name, payload[:KEY_ID_BYTES], payload[KEY_ID_BYTES:])


def open_note(note: str, verifiers: Iterable[Verifier]) -> tuple[str, list[Verifier]]:
    """The text of a note and which of the known keys, logs' and witnesses', signed it.

    Raises NoteError when the note is malformed, a known key's signature is wrong, or none is known.
    """
    text, signed = signatures_of(note, verifiers)
    if not signed:
        raise NoteError("no known key signed the note")
    return text, list(signed)


def signatures_of(note: str, verifiers: Iterable[Verifier]) -> tuple[str, dict[Verifier, SignatureLine]]:
    """The text of a note and the verified line of each known key that signed it, maybe of none.

    Raises NoteError when the note is malformed or a known key's signature is wrong.
    """
    text, lines = parse_note(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signed: dict[Verifier, SignatureLine] = {}
    for line in lines:
        verifier = known.get((line.name, line.key_id))
        if verifier is None or verifier in signed:
            continue
        if not verifier.verify(text.encode("utf-8"), line.signature):
            raise NoteError(f"the signature of {line.name} is wrong")
        signed[verifier] = line
    return text, signed
