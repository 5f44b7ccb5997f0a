"""Whose signatures a verifier accepts under a checkpoint, and what a checkpoint accepted by it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from processors.audit.checkpoint import Checkpoint, parse_checkpoint
from processors.audit.note import NoteError, Verifier, open_note


class Signed(NamedTuple):
    """A checkpoint whose signatures were verified."""

    checkpoint: Checkpoint
    #: Names of the keys that signed it, in the order of the note.
    signers: tuple[str, ...]


@dataclass(frozen=True)
class Trust:
    """Keys of one log; any of them suffices."""

    keys: tuple[Verifier, ...]

    def __post_init__(self) -> None:
        """Raises NoteError for no key, or keys of several logs."""
        if len({verifier.name for verifier in self.keys}) != 1:
            raise NoteError("the keys are not of one log")

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.keys[0].name

    def open(self, note: str) -> Signed:
        """The checkpoint of a note; raises NoteError when it is malformed, not signed by a key, or of another log."""
        text, signed = open_note(note, self.keys)
        checkpoint = parse_checkpoint(text)
        if checkpoint.origin != self.origin:
            raise NoteError(f"the checkpoint is of {checkpoint.origin!r}, not of {self.origin!r}")
        return Signed(checkpoint, tuple(verifier.name for verifier in signed))
