"""Checkpoints (c2sp.org/tlog-checkpoint): origin, size and root of a log, signed as a note."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from processors.audit.merkle import HASH_BYTES
from processors.audit.note import NoteError, Signer, Verifier, open_note

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_LINES_MIN = 3


class Checkpoint(NamedTuple):
    """What a log commits to at one size."""

    origin: str
    size: int
    root: bytes
    #: Further lines, not recommended by the specification; we write none and keep those we read.
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The signed text."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode("ascii"), *self.extensions)
        return "\n".join(lines) + "\n"


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> str:
    """The checkpoint as signed note; raises ValueError when the signer's name is not the origin."""
    if signer.name != checkpoint.origin:
        raise ValueError(f"the key is named {signer.name!r}, the log {checkpoint.origin!r}")
    return signer.sign(checkpoint.text)


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint of a note's text; raises NoteError when it is malformed."""
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < _LINES_MIN or not all(lines) or _SIZE.fullmatch(lines[1]) is None:
        raise NoteError("the checkpoint is not origin, size and root on a line each")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("the checkpoint's root can't be read") from None
    if len(root) != HASH_BYTES:
        raise NoteError(f"the checkpoint's root has {len(root)} bytes")
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:]))


def open_checkpoint(note: str, verifier: Verifier) -> Checkpoint:
    """The checkpoint of a note signed by this key for the log of its name; raises NoteError."""
    if verifier.is_witness:
        raise NoteError(f"the key {verifier.name!r} is a witness's, not a log's")
    text, _ = open_note(note, [verifier])
    checkpoint = parse_checkpoint(text)
    if checkpoint.origin != verifier.name:
        raise NoteError(f"the checkpoint is of {checkpoint.origin!r}, not of {verifier.name!r}")
    return checkpoint
