"""A log's keys through time: each hands over to the next in a note that both sign (docs/reference/audit-format.md).

Who trusts one key of a log and has the hand-overs can follow them to every other key, before and after it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from processors.audit.checkpoint import Checkpoint, parse_checkpoint
from processors.audit.merkle import HASH_BYTES
from processors.audit.note import NoteError, Signer, Verifier, open_note, parse_note, parse_vkey

#: No checkpoint begins so: what signs the one can't be taken for the other.
HAND_OVER_HEADER = "quaestor/audit/hand-over/v1"
HAND_OVERS_MAX = 1_000
_LINES = 8
_NUMBER = re.compile(r"0|[1-9]\d{0,18}")


@dataclass(frozen=True)
class HandOver:
    """One key of a log hands over to the next."""

    origin: str
    old: Verifier
    new: Verifier
    #: Size and root of the last checkpoint that the old key signed without the new one.
    size: int
    root: bytes
    #: When, microseconds since the epoch.
    made_micros: int
    #: Both keys sign until then at least, microseconds since the epoch.
    overlap_until_micros: int

    @property
    def text(self) -> str:
        """The signed text."""
        root = base64.b64encode(self.root).decode("ascii")
        lines = (HAND_OVER_HEADER, self.origin, self.old.vkey, self.new.vkey, str(self.size), root)
        return "\n".join((*lines, str(self.made_micros), str(self.overlap_until_micros))) + "\n"

    def __str__(self) -> str:
        """The hand-over, for people."""
        return f"{self.old.key_id.hex()} to {self.new.key_id.hex()} at {self.size} entries"


@dataclass(frozen=True)
class KeyChain:
    """The keys of one log that are trusted, oldest first."""

    name: str
    keys: tuple[Verifier, ...]
    hand_overs: tuple[HandOver, ...] = ()

    def open_checkpoint(self, note: str) -> Checkpoint:
        """The checkpoint of a note that a key of this log signed while it was its to sign.

        Raises NoteError: malformed, signed by no trusted key, of another log, or above the size at which its only
        signer had handed over.
        """
        text, signed = open_note(note, self.keys)
        checkpoint = parse_checkpoint(text)
        if checkpoint.origin != self.name:
            raise NoteError(f"the checkpoint is of {checkpoint.origin!r}, not of {self.name!r}")
        refuse_ended(checkpoint, signed, self.hand_overs)
        return checkpoint


def refuse_ended(checkpoint: Checkpoint, signed: Sequence[Verifier], hand_overs: Sequence[HandOver]) -> None:
    """Raise NoteError for a checkpoint that its log's hand-overs speak against.

    It has another root than one of them at its size, or more entries than there were when each of its signers, these,
    had handed over.
    """
    for each in hand_overs:
        if each.size == checkpoint.size and each.root != checkpoint.root:
            raise NoteError(
                f"two histories: the hand-over from {each} has another root than the checkpoint over "
                f"{checkpoint.size} entries"
            )
    ended = {each.old: each for each in hand_overs if each.size < checkpoint.size}
    if all(verifier in ended for verifier in signed):
        raise NoteError(
            f"the checkpoint over {checkpoint.size} entries is signed by {signed[0].key_id.hex()} alone, which "
            f"handed over before ({ended[signed[0]]}): whoever signed it should not have that key"
        )


@dataclass(frozen=True)
class KeyState:
    """Where one key of a log stands."""

    verifier: Verifier
    #: signs; overlap: signs beside its successor; due: likewise, for longer than was promised; retired: signs no more;
    #: retiring: likewise, but its seed is still here; unfinished: made, and not handed over to yet.
    state: str
    #: When it was handed over to, microseconds since the epoch; None for the first key.
    since_micros: int | None
    #: Size of the log when it was handed over to.
    from_size: int
    #: Until when it signs beside its successor, microseconds since the epoch; None while it has none.
    until_micros: int | None


def key_states(chain: KeyChain, here: Iterable[bytes], signing: Iterable[bytes], now_micros: int) -> list[KeyState]:
    """Where every key of a log stands, given the ids of those whose seed is here and of those that sign."""
    came = {each.new: each for each in chain.hand_overs}
    went = {each.old: each for each in chain.hand_overs}
    seeds, signs = set(here), set(signing)
    states: list[KeyState] = []
    for key in chain.keys:
        begun, ended = came.get(key), went.get(key)
        state = _state(ended, now_micros, seed=key.key_id in seeds, signs=key.key_id in signs)
        since = None if begun is None else begun.made_micros
        until = None if ended is None else ended.overlap_until_micros
        states.append(KeyState(key, state, since, 0 if begun is None else begun.size, until))
    return states


def _state(ended: HandOver | None, now_micros: int, *, seed: bool, signs: bool) -> str:
    if ended is None:
        return "signs" if signs else "unfinished"
    if signs:
        return "overlap" if now_micros < ended.overlap_until_micros else "due"
    return "retiring" if seed else "retired"


def sign_hand_over(hand_over: HandOver, old: Signer, new: Signer) -> str:
    """The hand-over as a note signed by both keys."""
    return with_signature(old.sign(hand_over.text), new)


def open_hand_over(note: str) -> HandOver:
    """The hand-over of a note that both of its keys signed; whether one is trusted is another question.

    Raises NoteError naming what is wrong.
    """
    hand_over = _parse_hand_over(parse_note(note)[0])
    _, signed = open_note(note, (hand_over.old, hand_over.new))
    for verifier in (hand_over.old, hand_over.new):
        if verifier not in signed:
            raise NoteError(f"the hand-over from {hand_over} is not signed by {verifier.key_id.hex()}")
    return hand_over


def _parse_hand_over(text: str) -> HandOver:
    lines = text.removesuffix("\n").split("\n")
    if len(lines) != _LINES or lines[0] != HAND_OVER_HEADER:
        raise NoteError(f"the note is no hand-over: it does not begin with {HAND_OVER_HEADER}, or has other lines")
    numbers = (lines[4], lines[6], lines[7])
    try:
        root = base64.b64decode(lines[5], validate=True)
    except binascii.Error:
        root = b""
    if any(_NUMBER.fullmatch(number) is None for number in numbers) or len(root) != HASH_BYTES:
        raise NoteError("the hand-over's size, root or times can't be read")
    size, made, until = map(int, numbers)
    hand_over = HandOver(lines[1], _log_key(lines[2]), _log_key(lines[3]), size, root, made, until)
    if hand_over.text != text or {hand_over.old.name, hand_over.new.name} != {hand_over.origin}:
        raise NoteError(f"the hand-over from {hand_over} names a key of another log, or is written another way")
    if hand_over.old == hand_over.new:
        raise NoteError(f"the hand-over from {hand_over} is from a key to itself")
    return hand_over


def trusted_keys(vkeys: Iterable[str], hand_over_notes: Iterable[str]) -> list[Verifier]:
    """Every key that follows from the trusted ones, oldest first; raises NoteError as `key_chain` does."""
    return list(key_chain(vkeys, hand_over_notes).keys)


def key_chain(vkeys: Iterable[str], hand_over_notes: Iterable[str] = ()) -> KeyChain:
    """The chain of keys around the trusted ones; the order of the notes does not matter, nor does one twice.

    A hand-over leads from its old key to its new one and back: the new key signed that the old one was the log's.
    Raises NoteError naming what is wrong: a key or note that is malformed or not signed by both keys, keys of two logs,
    two hand-overs from or to one key (somebody else has it), one that is connected with no trusted key, a circle.
    """
    trusted = dict.fromkeys(map(_log_key, vkeys))
    names = sorted({verifier.name for verifier in trusted})
    if len(names) != 1:
        raise NoteError(f"the trusted keys are of {len(names)} logs instead of one: {', '.join(names) or 'none'}")
    notes = list(hand_over_notes)
    if len(notes) > HAND_OVERS_MAX:
        raise NoteError(f"there are {len(notes)} hand-overs, at most {HAND_OVERS_MAX} are read")
    hand_overs = _in_order(dict.fromkeys(map(open_hand_over, notes)))
    _require_connected(trusted, hand_overs)
    follows = (key for each in hand_overs for key in (each.old, each.new))
    return KeyChain(names[0], tuple(dict.fromkeys((*follows, *trusted))), tuple(hand_overs))


def _log_key(vkey: str) -> Verifier:
    verifier = parse_vkey(vkey)
    if verifier.is_witness:
        raise NoteError(f"the key {verifier.name!r} is a witness's, not a log's")
    return verifier


def _in_order(hand_overs: Iterable[HandOver]) -> list[HandOver]:
    """The hand-overs, each after the one that led to its old key."""
    by_old: dict[Verifier, HandOver] = {}
    by_new: dict[Verifier, HandOver] = {}
    for each in hand_overs:
        for known, key, words in ((by_old, each.old, "from"), (by_new, each.new, "to")):
            if known.setdefault(key, each) != each:
                raise NoteError(
                    f"two different hand-overs {words} the key {key.key_id.hex()}: {known[key]}, and {each}: "
                    "somebody else has that key"
                )
    ordered: list[HandOver] = []
    for first in by_old.values():
        step = None if first.old in by_new else first
        while step is not None:
            ordered.append(step)
            step = by_old.get(step.new)
    if len(ordered) < len(by_old):
        raise NoteError("the hand-overs go in a circle")
    for each in ordered:
        before = by_new.get(each.old)
        if before is not None and before.size > each.size:
            raise NoteError(f"the hand-over from {each} is before the one that led to its key: from {before}")
    return ordered


def _require_connected(trusted: Iterable[Verifier], hand_overs: Sequence[HandOver]) -> None:
    reached = set(trusted)
    # Once along the chain and once back reaches all that is connected, as they stand in order.
    for each in (*hand_overs, *reversed(hand_overs)):
        if each.old in reached or each.new in reached:
            reached |= {each.old, each.new}
    lost = next((each for each in hand_overs if each.old not in reached), None)
    if lost is not None:
        raise NoteError(
            f"the hand-over from {lost} is not connected with a trusted key: one between is missing, or it is not of "
            "this log"
        )


def signing_ids(note: str, name: str) -> list[bytes]:
    """Which keys of this name signed a note, by the ids in it, nothing verified; raises NoteError."""
    return list(dict.fromkeys(line.key_id for line in parse_note(note)[1] if line.name == name))


def with_signature(note: str, signer: Signer) -> str:
    """The note with one more signature, as it is when this key's stands there; raises NoteError and ValueError."""
    text, _ = parse_note(note)
    if signer.verifier.key_id in signing_ids(note, signer.name):
        return note
    return note + signer.sign(text).removeprefix(f"{text}\n")


def without_signature(note: str, verifier: Verifier) -> str:
    """The note without this key's signature; raises NoteError when no other of its name is left."""
    text, lines = parse_note(note)
    kept = [line.text for line in lines if (line.name, line.key_id) != (verifier.name, verifier.key_id)]
    if not set(signing_ids(note, verifier.name)) - {verifier.key_id}:
        raise NoteError(f"no other key than {verifier.key_id.hex()} signed the note")
    return f"{text}\n{''.join(kept)}"
