"""Signed notes (c2sp.org/signed-note) with Ed25519 keys: text, a blank line, one line per signature."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.errors import IntegrityError

ALGORITHM_ED25519 = 0x01
KEY_ID_BYTES = 4
SIGNATURES_MAX = 100
NOTE_BYTES_MAX = 1_000_000
_DASH = "\u2014 "
_CONTROL_END = 0x20


class NoteError(IntegrityError):
    """The signed note is malformed, or no known key signed it."""


class SignatureLine(NamedTuple):
    """One signature as it stands in a note, not yet verified."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class Verifier:
    """A public key that may have signed a note."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that name this key in a signature line."""
        return key_id(self.name, ALGORITHM_ED25519, self.public_key)

    @property
    def vkey(self) -> str:
        """The key as text: name+hash+base64."""
        body = base64.b64encode(bytes([ALGORITHM_ED25519]) + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{body}"

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's over the text."""
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
        body = base64.b64encode(self.verifier.key_id + signature).decode("ascii")
        return f"{text}\n{_DASH}{self.name} {body}\n"


def key_id(name: str, algorithm: int, public_key: bytes) -> bytes:
    """The key id: the first four bytes of SHA-256 over name, newline, algorithm and key."""
    return sha256(name.encode("utf-8") + b"\n" + bytes([algorithm]) + public_key).digest()[:KEY_ID_BYTES]


def is_key_name(name: str) -> bool:
    """Whether a text may name a key: not empty, no white space, no plus sign, no control character."""
    return (
        bool(name)
        and "+" not in name
        and not any(character.isspace() or ord(character) < _CONTROL_END for character in name)
    )


def parse_vkey(vkey: str) -> Verifier:
    """The verifier of a vkey; raises NoteError when it is malformed, of another algorithm, or its hash is wrong."""
    name, _, rest = vkey.partition("+")
    digest, _, body = rest.partition("+")
    try:
        key = base64.b64decode(body, validate=True)
    except binascii.Error:
        raise NoteError("the key's base64 can't be read") from None
    if not is_key_name(name) or len(key) != 33 or key[0] != ALGORITHM_ED25519:  # noqa: PLR2004 - algorithm and key
        raise NoteError("the key is not name+hash+base64 of an Ed25519 key")
    verifier = Verifier(name, key[1:])
    if verifier.key_id.hex() != digest:
        raise NoteError("the key's hash does not fit its name and bytes")
    return verifier


def parse_note(note: str) -> tuple[str, list[SignatureLine]]:
    """Text and signature lines of a note, nothing verified; raises NoteError when it is malformed."""
    if len(note) > NOTE_BYTES_MAX or any(ord(character) < _CONTROL_END and character != "\n" for character in note):
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
    except binascii.Error:
        payload = b""
    # Written in one way only, so that no file can be changed and still be accepted.
    is_canonical = base64.b64encode(payload).decode("ascii") == body
    if not is_canonical or not line.startswith(_DASH) or not is_key_name(name) or len(payload) <= KEY_ID_BYTES:
        raise NoteError(f"malformed signature line {line[:80]!r}")
    return SignatureLine(name, payload[:KEY_ID_BYTES], payload[KEY_ID_BYTES:])


def open_note(note: str, verifiers: Iterable[Verifier]) -> tuple[str, list[Verifier]]:
    """The text of a note and which of the known keys signed it.

    Raises NoteError when the note is malformed, a known key's signature is wrong, or none is known.
    """
    text, signatures = parse_note(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signed: list[Verifier] = []
    for line in signatures:
        verifier = known.get((line.name, line.key_id))
        if verifier is None or verifier in signed:
            continue
        if not verifier.verify(text.encode("utf-8"), line.signature):
            raise NoteError(f"the signature of {line.name} is wrong")
        signed.append(verifier)
    if not signed:
        raise NoteError("no known key signed the note")
    return text, signed
