"""A witness's decision (c2sp.org/tlog-witness): what it answers to a checkpoint, and what it remembers then.

It knows one thing per log: the last checkpoint that it cosigned, as the note that it also shows to monitors. It never
cosigns two trees of which one does not continue the other.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from processors.audit.checkpoint import Checkpoint, parse_checkpoint
from processors.audit.merkle import EMPTY_ROOT, HASH_BYTES
from processors.audit.note import (
    ALGORITHM_COSIGNATURE,
    TIME_BYTES,
    NoteError,
    SignatureLine,
    Signer,
    Verifier,
    cosigned_bytes,
    is_key_name,
    parse_note,
    signatures_of,
)
from processors.audit.verify_inner_border import verify_consistency

PROOF_LINES_MAX = 63
TEXT_TYPE = "text/plain; charset=utf-8"
#: The content type of a 409: its body is the size of the checkpoint that was cosigned last.
SIZE_TYPE = "text/x.tlog.size"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")
OK, BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 200, 400, 403, 404, 409, 422


class AddCheckpoint(NamedTuple):
    """A request to cosign: the size cosigned before, the proof from there, and the checkpoint as signed note."""

    old_size: int
    proof: tuple[bytes, ...]
    note: str

    def encode(self) -> bytes:
        """The request's body."""
        lines = [f"old {self.old_size}", *(base64.b64encode(each).decode("ascii") for each in self.proof)]
        return ("\n".join(lines) + "\n\n" + self.note).encode("utf-8")


class Answer(NamedTuple):
    """What a witness says."""

    status: int
    body: str
    content_type: str = TEXT_TYPE


@dataclass(frozen=True)
class Cosigner:
    """A witness's private key."""

    signer: Signer

    @property
    def verifier(self) -> Verifier:
        """The public half; another key id than the same key has as a log's."""
        return Verifier(self.signer.name, self.signer.verifier.public_key, ALGORITHM_COSIGNATURE)

    def cosign(self, text: str, time_seconds: int) -> SignatureLine:
        """The cosignature of a checkpoint's text; raises ValueError when the name is no key name."""
        if not is_key_name(self.signer.name):
            raise ValueError("a key's name has neither spaces nor plus signs")
        message = cosigned_bytes(text.encode("utf-8"), time_seconds)
        signature = Ed25519PrivateKey.from_private_bytes(self.signer.seed).sign(message)
        payload = time_seconds.to_bytes(TIME_BYTES, "big") + signature
        return SignatureLine(self.signer.name, self.verifier.key_id, payload)


#: The keys of every log that a witness follows, by origin.
FollowedLogs = Mapping[str, Sequence[Verifier]]


def origin_hash(origin: str) -> str:
    """How a log is named where its cosigned checkpoint is read."""
    return sha256(origin.encode("utf-8")).hexdigest()


def followed(verifiers: Iterable[Verifier]) -> dict[str, list[Verifier]]:
    """The keys of logs by origin: a log may have several, as while its key is changed.

    Raises NoteError for a witness's key.
    """
    found: dict[str, list[Verifier]] = {}
    for verifier in verifiers:
        if verifier.is_witness:
            raise NoteError(f"{verifier.vkey} is a witness's key, not a log's")
        found.setdefault(verifier.name, []).append(verifier)
    return found


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """A request's parts, nothing verified; raises NoteError when it is malformed."""
    try:
        head, split, note = body.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        raise NoteError("the request is not text") from None
    first, *lines = head.split("\n")
    old = _OLD.fullmatch(first)
    if not split or old is None:
        raise NoteError("the request is not an old size, a proof, a blank line and a checkpoint")
    if len(lines) > PROOF_LINES_MAX:
        raise NoteError(f"the proof has more than {PROOF_LINES_MAX} lines")
    return AddCheckpoint(int(old[1]), tuple(map(_hash, lines)), note)


def _hash(line: str) -> bytes:
    try:
        found = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != HASH_BYTES:
        raise NoteError("a line of the proof is not a hash")
    return found


def origin_of(body: bytes) -> str | None:
    """The origin that a request is about, nothing verified; None when it is malformed."""
    try:
        return parse_note(parse_add_checkpoint(body).note)[0].partition("\n")[0]
    except NoteError:
        return None


def decide(
    latest: str | None, body: bytes, logs: FollowedLogs, cosigner: Cosigner, now_seconds: int
) -> tuple[Answer, str | None]:
    """The answer to a request, and the note to remember before it is given (None: nothing changes).

    `latest` is what is remembered of the request's origin, None when nothing was cosigned yet.
    """
    try:
        request = parse_add_checkpoint(body)
        text, _ = parse_note(request.note)
    except NoteError as error:
        return _refused(BAD_REQUEST, str(error)), None
    keys = logs.get(text.partition("\n")[0])
    if keys is None:
        return _refused(NOT_FOUND, "this witness does not follow that log"), None
    try:
        text, signed = signatures_of(request.note, keys)
    except NoteError as error:
        return _refused(FORBIDDEN, str(error)), None
    if not signed:
        return _refused(FORBIDDEN, "no key of that log signed the checkpoint"), None
    try:
        checkpoint = parse_checkpoint(text)
    except NoteError as error:
        return _refused(BAD_REQUEST, str(error)), None
    refusal = _judged(latest, request, checkpoint)
    if refusal is not None:
        return refusal, None
    # A statement about a time never precedes an earlier one, whatever the clock does.
    line = cosigner.cosign(text, max(now_seconds, 1, last_time_seconds(latest, cosigner.verifier)))
    shown = [*signed.values(), line]
    return Answer(OK, line.text), text + "\n" + "".join(each.text for each in shown)


def _judged(latest: str | None, request: AddCheckpoint, checkpoint: Checkpoint) -> Answer | None:
    """Why a checkpoint is not cosigned; None when it continues what was cosigned before."""
    known = None if latest is None else parse_checkpoint(parse_note(latest)[0])
    known_size = 0 if known is None else known.size
    if request.old_size > checkpoint.size:
        return _refused(BAD_REQUEST, "the old size is above the checkpoint's")
    if request.old_size != known_size:
        return Answer(CONFLICT, f"{known_size}\n", SIZE_TYPE)
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        return _refused(UNPROCESSABLE, "the root of an empty log is another")
    if known is None or known.size == 0:
        return _refused(UNPROCESSABLE, "nothing is to be proven from size 0") if request.proof else None
    if known.size == checkpoint.size and known.root != checkpoint.root:
        return _refused(UNPROCESSABLE, f"two histories: another root was cosigned at {known.size} entries")
    if not verify_consistency(known.size, checkpoint.size, request.proof, known.root, checkpoint.root):
        words = f"the proof does not show that {checkpoint.size} entries continue the {known.size} cosigned before"
        return _refused(UNPROCESSABLE, words)
    return None


def last_time_seconds(note: str | None, verifier: Verifier) -> int:
    """When a witness signed a note that it remembers; 0 when it did not, as under an earlier key."""
    if note is None:
        return 0
    signed = signatures_of(note, [verifier])[1].get(verifier)
    return 0 if signed is None else signed.time_seconds


def _refused(status: int, words: str) -> Answer:
    return Answer(status, words + "\n")
