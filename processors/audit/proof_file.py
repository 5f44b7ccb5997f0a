"""Receipts: that an entry is in a signed log, in one file (c2sp.org/tlog-proof).

`extra` holds the entry's own bytes, so that the file and the log's public key are all that is needed. The format leaves
`extra` unauthenticated; here the proof begins at its hash, so a changed one is refused like anything else.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from processors.audit import verify_inner_border, verify_rfc9162
from processors.audit.entry import Entry, EntryError, decode_entry
from processors.audit.merkle import HASH_BYTES, leaf_hash
from processors.audit.note import NOTE_BYTES_MAX, NoteError
from processors.audit.tiles import ENTRY_BYTES_MAX
from processors.audit.trust import Signed, Trust
from schemas.errors import IntegrityError

MAGIC = "c2sp.org/tlog-proof@v1"
EXTENSION = ".tlog-proof"
PATH_HASHES_MAX = 63
#: An entry and a path as base64, the checkpoint, and their lines.
PROOF_BYTES_MAX = 2 * ENTRY_BYTES_MAX + 64 * PATH_HASHES_MAX + NOTE_BYTES_MAX
_EXTRA, _INDEX = "extra ", "index "
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class ProofError(IntegrityError):
    """A proof is malformed, or does not show what it should."""


class ProofFile(NamedTuple):
    """What a proof file holds, nothing of it verified."""

    position: int
    #: Inclusion path, leaf sibling first.
    path: tuple[bytes, ...]
    #: The signed note as the log published it.
    checkpoint: str
    #: None when the file has no such line; in ours, the entry's bytes.
    extra: bytes | None = None


class Receipt(NamedTuple):
    """A proof file of ours that was verified."""

    entry: Entry
    data: bytes
    signed: Signed


def write_proof(proof: ProofFile) -> bytes:
    """The bytes of the file."""
    lines = [MAGIC]
    if proof.extra is not None:
        lines.append(_EXTRA + _base64(proof.extra))
    lines += [f"{_INDEX}{proof.position}", *map(_base64, proof.path), ""]
    return ("\n".join(lines) + "\n" + proof.checkpoint).encode("utf-8")


def parse_proof(data: bytes) -> ProofFile:
    """What a file says; raises ProofError unless writing that again gives the very same bytes."""
    if len(data) > PROOF_BYTES_MAX:
        raise ProofError(f"a proof has at most {PROOF_BYTES_MAX} bytes")
    try:
        head, blank, checkpoint = data.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        raise ProofError("the proof is not text") from None
    magic, *lines = head.split("\n")
    if magic != MAGIC:
        raise ProofError(f"the first line is not {MAGIC}")
    extra = _bytes(lines.pop(0).removeprefix(_EXTRA)) if lines and lines[0].startswith(_EXTRA) else None
    if not lines or not lines[0].startswith(_INDEX) or _DECIMAL.fullmatch(lines[0].removeprefix(_INDEX)) is None:
        raise ProofError("there is no line with the entry's index")
    if not blank:
        raise ProofError("there is no checkpoint after a blank line")
    path = tuple(map(_bytes, lines[1:]))
    if len(path) > PATH_HASHES_MAX or any(len(each) != HASH_BYTES for each in path):
        raise ProofError(f"the path is not at most {PATH_HASHES_MAX} hashes of {HASH_BYTES} bytes")
    proof = ProofFile(int(lines[0].removeprefix(_INDEX)), path, checkpoint, extra)
    if write_proof(proof) != data:
        raise ProofError("the proof is not written as the format says")
    return proof


def verify_proof(proof: ProofFile, trust: Trust) -> Receipt:
    """The entry that a proof of ours shows to be in the log; raises ProofError saying what is wrong with it.

    Both implementations of the verification are asked; neither is believed alone.
    """
    if proof.extra is None:
        raise ProofError("the proof does not carry its entry (no extra line): it is not one of this product")
    try:
        signed = trust.open(proof.checkpoint)
    except NoteError as error:
        raise ProofError(f"checkpoint: {error}") from error
    size, root = signed.checkpoint.size, signed.checkpoint.root
    if proof.position >= size:
        raise ProofError(f"entry {proof.position} is not in a log of {size} entries")
    check_included(proof.position, size, leaf_hash(proof.extra), proof.path, root, f"entry {proof.position}")
    try:
        entry = decode_entry(proof.extra)
    except EntryError as error:
        raise ProofError(f"entry {proof.position}: {error}") from error
    if entry.seq != proof.position:
        raise ProofError(f"entry {proof.position} says that it is entry {entry.seq}")
    return Receipt(entry, proof.extra, signed)


def check_included(index: int, size: int, leaf: bytes, path: tuple[bytes, ...], root: bytes, what: str) -> None:
    """Raise ProofError unless both implementations find the leaf under the root."""
    claim = (index, size, leaf, path, root)
    verdicts = verify_inner_border.verify_inclusion(*claim), verify_rfc9162.verify_inclusion(*claim)
    if verdicts == (False, False):
        raise ProofError(f"{what}: the path does not lead to the signed root")
    if not all(verdicts):
        raise ProofError(f"{what}: the two verifiers disagree: {verdicts}; please report this")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProofError(f"{text[:40]!r} is not base64") from None
