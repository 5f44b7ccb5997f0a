"""The seam to a place that keeps checkpoints.

`FileAnchor` (file.py), `S3Anchor` and `TimestampAnchor` (api/anchors) and `MemoryAnchor` fill it;
tests/contract/test_anchors.py is their suite.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from processors.audit.checkpoint import Checkpoint, parse_checkpoint
from processors.audit.note import parse_note
from schemas.errors import IntegrityError, StoreUnavailableError


class Anchored(NamedTuple):
    """A checkpoint that an anchor keeps."""

    #: The signed note, as it was given.
    note: str
    #: When, by the anchor's own clock where it has one, microseconds since the epoch.
    at_micros: int

    @property
    def checkpoint(self) -> Checkpoint:
        """What the note says, its signatures not verified; raises NoteError."""
        return parse_checkpoint(parse_note(self.note)[0])


class Anchor(Protocol):
    """Keeps checkpoints of one log for ever. One call at a time; of one that is cancelled the outcome is unknown."""

    #: What people know it by: its URI without options, never a credential.
    name: str

    async def put(self, note: str, now_micros: int) -> None:
        """Keep a checkpoint, durably on return; nothing happens when one of its size and root is kept already.

        Raises StoreUnavailableError when it can't now, and IntegrityError, keeping nothing, when a larger one is kept,
        or another root at its size, or what it kept was changed.
        """

    async def kept(self) -> list[Anchored]:
        """Everything it keeps, the smallest first; raises StoreUnavailableError, and IntegrityError as `put` does."""

    async def close(self) -> None:
        """Let go of connections."""


def is_new(note: str, kept: Anchored | None) -> bool:
    """Whether a checkpoint goes beyond what is kept; raises IntegrityError when it contradicts it."""
    if kept is None:
        return True
    given, newest = Anchored(note, 0).checkpoint, kept.checkpoint
    if given.origin != newest.origin or given.size < newest.size:
        raise IntegrityError(
            f"a checkpoint over {newest.size} entries of {newest.origin} is kept already: one over {given.size} of "
            f"{given.origin} does not follow it"
        )
    if given.size == newest.size and given.root != newest.root:
        raise IntegrityError(f"another root at {given.size} entries is kept already: the log was rewritten")
    return given.size > newest.size


class MemoryAnchor:
    """An Anchor in this process, for tests."""

    def __init__(self, name: str = "memory:") -> None:
        """Nothing is kept; `away` makes it unreachable."""
        self.name = name
        self.notes: list[Anchored] = []
        self.away = False

    async def put(self, note: str, now_micros: int) -> None:
        """As the seam says."""
        self._reach()
        if is_new(note, self.notes[-1] if self.notes else None):
            self.notes.append(Anchored(note, now_micros))

    async def kept(self) -> list[Anchored]:
        """As the seam says."""
        self._reach()
        return list(self.notes)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailableError("the anchor in memory is away")
