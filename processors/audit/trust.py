"""Whose signatures a verifier asks for under a checkpoint, and what a checkpoint accepted by it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from processors.audit.checkpoint import Checkpoint, parse_checkpoint
from processors.audit.key_chain import HandOver, key_chain, refuse_ended
from processors.audit.note import NoteError, Verifier, parse_note, signatures_of
from processors.audit.policy import Policy


class Witnessed(NamedTuple):
    """That a witness of the policy cosigned."""

    name: str
    #: When, as it says: seconds since the epoch.
    time_seconds: int


class Signed(NamedTuple):
    """A checkpoint whose signatures were verified."""

    checkpoint: Checkpoint
    #: Names of the log's keys that signed it.
    signers: tuple[str, ...]
    witnesses: tuple[Witnessed, ...] = ()
    #: Names in signature lines of keys that were not given: they say nothing.
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trust:
    """Keys of one log, any of which suffices, and the witnesses that are asked for beside it."""

    keys: tuple[Verifier, ...]
    policy: Policy | None = None
    #: How the keys came after one another, as far as that is known.
    hand_overs: tuple[HandOver, ...] = ()

    def __post_init__(self) -> None:
        """Raises NoteError for no key, keys of several logs, or a witness's."""
        if len({verifier.name for verifier in self.keys}) != 1:
            raise NoteError("the keys are not of one log")
        if any(verifier.is_witness for verifier in self.keys):
            raise NoteError("this is a witness's key, not a log's")

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.keys[0].name

    def following(self, hand_over_notes: Iterable[str]) -> Trust:
        """The keys that hand-overs lead to from these are trusted too; raises NoteError as `key_chain` does."""
        chain = key_chain((verifier.vkey for verifier in self.keys), hand_over_notes)
        return replace(self, keys=chain.keys, hand_overs=chain.hand_overs)

    def open(self, note: str) -> Signed:
        """The checkpoint of a note; raises NoteError.

        When it is malformed, not signed by a key, signed only by one that had handed over, of another log, or without
        the policy's quorum of witnesses. Stricter than the format in one thing: idle bits of base64 are 0, so that no
        file can be changed and still be accepted.
        """
        witnesses = () if self.policy is None else self.policy.witnesses
        lines = parse_note(note)[1]
        text, signed = signatures_of(note, [*self.keys, *(each.verifier for each in witnesses)])
        if note != text + "\n" + "".join(line.text for line in lines):
            raise NoteError("a signature is not written as base64 is")
        signers = [verifier for verifier in self.keys if verifier in signed]
        if not signers:
            raise NoteError("no known key signed the note")
        checkpoint = parse_checkpoint(text)
        if checkpoint.origin != self.origin:
            raise NoteError(f"the checkpoint is of {checkpoint.origin!r}, not of {self.origin!r}")
        refuse_ended(checkpoint, signers, self.hand_overs)
        missing = None if self.policy is None else self.policy.missing(signed)
        if missing is not None:
            raise NoteError(f"too few witnesses signed, missing {missing}")
        found = tuple(
            Witnessed(each.name, signed[each.verifier].time_seconds) for each in witnesses if each.verifier in signed
        )
        known = {(verifier.name, verifier.key_id) for verifier in signed}
        unknown = tuple(line.name for line in lines if (line.name, line.key_id) not in known)
        names = tuple(dict.fromkeys(verifier.name for verifier in signers))
        return Signed(checkpoint, names, found, unknown)
