"""The keys of one log on this machine: which there are, which of them sign, and how they came after one another.

`secrets/audit.key` is today's key. `secrets/audit-keys/` has every other key that signs or is about to, each under its
id, and the hand-overs that were made, numbered from 1; `keys/<N>` below the log's own directory are copies for
outsiders. Which keys sign is nowhere written: those that signed the checkpoint in the lock store sign the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from processors.audit.checkpoint import Checkpoint, sign_checkpoint
from processors.audit.key_chain import HandOver, KeyChain, key_chain, open_hand_over, signing_ids, with_signature
from processors.audit.note import NoteError, Signer
from schemas.errors import ConfigurationError
from sinks.audit.files import HAND_OVERS, disk, read_note, sync_folders, write_durable
from sinks.audit.keys import OWNER_ONLY, load_or_make_signer, load_signer
from sinks.audit.layout import AuditLayout, Probe, no_probe

#: A listing that loses a file to a rotation under way is taken again.
TRIES = 5
_HAND_OVER = re.compile(r"([1-9]\d{0,3})\.hand-over")


@dataclass(frozen=True)
class Keys:
    """The keys of a log as they lay there at one moment."""

    #: Today's first.
    signers: tuple[Signer, ...]
    chain: KeyChain

    @property
    def today(self) -> Signer:
        """The newest key that signs."""
        return self.signers[0]

    def signer(self, key_id: bytes) -> Signer | None:
        """The key of this id, None when its seed is not here."""
        return next((signer for signer in self.signers if signer.verifier.key_id == key_id), None)

    def sign(self, checkpoint: Checkpoint, before: str | None) -> str:
        """The checkpoint, signed by the keys that signed the one before it; by today's when there is none.

        Raises ConfigurationError when one of those keys is not here.
        """
        signers = [self.today] if before is None else [*map(self._require, signing_ids(before, self.chain.name))]
        note = sign_checkpoint(checkpoint, signers[0])
        for signer in signers[1:]:
            note = with_signature(note, signer)
        return note

    def _require(self, key_id: bytes) -> Signer:
        signer = self.signer(key_id)
        if signer is None:
            raise ConfigurationError(
                f"the audit key {key_id.hex()} signed the last checkpoint and is not in secrets/audit-keys: restore "
                "the secrets folder of this log"
            )
        return signer


class KeyRing:
    """Reads the keys. Every call blocks on the disk."""

    def __init__(self, layout: AuditLayout, probe: Probe = no_probe) -> None:
        """Nothing is touched before it is needed."""
        self.layout = layout
        self.probe = probe

    def open(self) -> Keys:
        """The keys; the first is made for a log that has none. Raises ConfigurationError as `load` does."""
        if not self.layout.key_file.exists() and any(self.layout.key_directory.glob("*.key")):
            raise ConfigurationError(f"{self.layout.key_file} is missing: restore the secrets folder of this log")
        load_or_make_signer(self.layout.key_file, self.layout.origin)
        return self.load()

    def load(self) -> Keys:
        """The keys as they lie there now.

        Raises ConfigurationError when a file is missing, damaged or open to others, or the hand-overs disagree.
        """
        # Today's key first: a rotation puts both keys under their ids before it replaces today's.
        today = load_signer(self.layout.key_file, self.layout.origin)
        signers = dict.fromkeys((today, *self._by_id()))
        try:
            chain = key_chain((each.verifier.vkey for each in signers), map(_note, self.hand_over_files()))
        except NoteError as error:
            raise ConfigurationError(f"the hand-overs in {self.layout.key_directory} are damaged: {error}") from error
        return Keys(tuple(signers), chain)

    def _by_id(self) -> list[Signer]:
        for _ in range(TRIES):
            paths = sorted(self.layout.key_directory.glob("*.key"))
            try:
                return [load_signer(path, self.layout.origin) for path in paths]
            except ConfigurationError:
                if all(path.exists() for path in paths):
                    raise
        raise ConfigurationError(f"the keys in {self.layout.key_directory} change all the time")

    def seed_file(self, signer: Signer) -> Path:
        """Where a key lies under its id."""
        return self.layout.key_directory / f"{signer.verifier.key_id.hex()}.key"

    def hand_over_files(self) -> list[Path]:
        """The files of the hand-overs that were made, in order."""
        found = (_HAND_OVER.fullmatch(path.name) for path in self.layout.key_directory.glob("*.hand-over"))
        numbers = sorted(int(match[1]) for match in found if match)
        return [self.layout.key_directory / f"{number}.hand-over" for number in numbers]

    def hand_overs(self) -> Iterator[HandOver]:
        """The hand-overs that were made, in order; raises NoteError."""
        return (open_hand_over(_note(path)) for path in self.hand_over_files())

    def publish(self) -> None:
        """Put copies of the hand-overs where outsiders read them; what is there stays. Raises StoreUnavailableError."""
        for number, path in enumerate(self.hand_over_files(), 1):
            public = self.layout.directory / HAND_OVERS / str(number)
            if not public.exists():
                self.write(public, _note(path), 0o666)

    def write(self, path: Path, note: str, mode: int = OWNER_ONLY) -> None:
        """Put a note in place, durably; raises StoreUnavailableError."""
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durable(path, note.encode("utf-8"), self.probe, mode)
            sync_folders([path.parent, path.parent.parent])


def hand_over_difference(directory: Path, chain: KeyChain) -> str | None:
    """How the hand-overs that outsiders read differ from those that were made; None when they do not."""
    expected = dict(enumerate(chain.hand_overs, 1))
    found = {path.name for path in (directory / HAND_OVERS).glob("*") if not path.name.startswith(".")}
    for name in sorted(found | set(map(str, expected)), key=lambda name: (len(name), name)):
        hand_over = expected.get(int(name)) if name.isdecimal() else None
        try:
            if hand_over is None:
                return f"{HAND_OVERS}/{name}: no hand-over of this number was made here"
            if name not in found:
                return f"{HAND_OVERS}/{name} is missing: a log that starts puts it back"
            if open_hand_over(_note(directory / HAND_OVERS / name)) != hand_over:
                return f"{HAND_OVERS}/{name} is not the hand-over that was made, from {hand_over}"
        except NoteError as error:
            return f"{HAND_OVERS}/{name}: {error}"
    return None


def _note(path: Path) -> str:
    return read_note(path) or ""
