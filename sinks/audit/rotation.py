"""A log changes its key: made, handed over to, and from the same checkpoint on signing beside the old one.

What makes a key sign is its signature on the checkpoint in the lock store, put there by compare-and-set, so a sequencer
that runs meanwhile finds its own swap refused, reads the keys again and goes on with both. Every step may fail, or seem
to: the next call finds how far the last one came and finishes it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from processors.audit.key_chain import (
    HandOver,
    KeyState,
    key_states,
    open_hand_over,
    sign_hand_over,
    signing_ids,
    with_signature,
    without_signature,
)
from processors.audit.note import Signer
from schemas.errors import ConfigurationError, StoreUnavailableError
from sinks.audit.files import disk, read_note, sync_folders
from sinks.audit.key_ring import KeyRing, Keys
from sinks.audit.keys import SEED_BYTES, destroy_seed, load_signer, shred, write_seed
from sinks.audit.lock import LockStore, held

#: How often a swap may lose against a sequencer that signs a few checkpoints a second.
SWAPS = 100


@dataclass(frozen=True)
class Rotated:
    """What came of a rotation."""

    hand_over: HandOver
    note: str
    #: An earlier rotation was finished, and no new one begun.
    finished: bool


class Rotation:
    """Changes of one log's keys; one at a time, by a lock file. Every call blocks."""

    def __init__(self, ring: KeyRing, lock: LockStore) -> None:
        """Over the log's own lock store."""
        self._ring = ring
        self._lock = lock
        self._folder = ring.layout.key_directory
        self._draft = self._folder / "draft.hand-over"

    def rotate(self, now_micros: int, overlap_micros: int) -> Rotated:
        """Hand over from today's key to a new one; or finish a rotation that was interrupted.

        Raises ConfigurationError when the log has no checkpoint yet or its keys are unusable, StoreUnavailableError
        when the disk or the lock store fails: run it again then.
        """
        with self._alone():
            finished = self.unfinished
            keys = self._ring.load()
            new = self._staged(keys)
            if new is None and not finished:
                new = self._stage()
            if new is not None:
                self._make_it_sign(keys.today, new, now_micros, overlap_micros)
            return self._finish(finished=finished)

    @property
    def unfinished(self) -> bool:
        """Whether a rotation was interrupted."""
        return self._draft.exists() or self._staged(self._ring.load()) is not None

    def last(self) -> Rotated | None:
        """The last rotation that was made, None before the first."""
        files = self._ring.hand_over_files()
        note = read_note(files[-1]) if files else None
        return None if note is None else Rotated(open_hand_over(note), note, finished=True)

    def _staged(self, keys: Keys) -> Signer | None:
        """A key that was made and is not today's yet."""
        past = {each.old for each in keys.chain.hand_overs} | {keys.today.verifier}
        return next((signer for signer in keys.signers if signer.verifier not in past), None)

    def _stage(self) -> Signer:
        new = Signer(self._ring.layout.origin, secrets.token_bytes(SEED_BYTES))
        write_seed(self._ring.seed_file(new), new.seed, self._ring.probe)
        return new

    def _make_it_sign(self, old: Signer, new: Signer, now_micros: int, overlap_micros: int) -> None:
        """Put the new key's signature on the checkpoint in the lock store, the hand-over over the same one ready."""
        for _ in range(SWAPS):
            latest = self._lock.latest()
            if latest is None or read_note(self._ring.layout.directory / "checkpoint") is None:
                raise ConfigurationError("the log has no published checkpoint yet: there is nothing to hand over")
            if new.verifier.key_id in signing_ids(latest, old.name):
                return
            checkpoint = self._ring.load().chain.open_checkpoint(latest)
            until = now_micros + overlap_micros
            made = HandOver(old.name, old.verifier, new.verifier, checkpoint.size, checkpoint.root, now_micros, until)
            self._ring.write(self._draft, sign_hand_over(made, old, new))
            if self._swap(latest, with_signature(latest, new)):
                return
        raise StoreUnavailableError("the lock store changed at every try: run this again")

    def _swap(self, old: str, new: str) -> bool:
        self._ring.probe("swap")
        swapped = self._lock.swap(old, new)
        self._ring.probe("swapped")
        return swapped

    def _finish(self, *, finished: bool) -> Rotated:
        """Make the hand-over of the draft known, and its new key today's."""
        note = read_note(self._draft)
        if note is None:
            raise ConfigurationError(f"{self._draft} is missing: restore the secrets folder of this log")
        hand_over = open_hand_over(note)
        made = list(self._ring.hand_overs())
        if hand_over not in made:
            self._ring.write(self._folder / f"{len(made) + 1}.hand-over", note)
        self._ring.publish()
        self._replace_today(hand_over)
        with disk(self._draft):
            self._draft.unlink()
            sync_folders([self._folder])
        return Rotated(hand_over, note, finished)

    def _replace_today(self, hand_over: HandOver) -> None:
        layout = self._ring.layout
        today = load_signer(layout.key_file, layout.origin)
        if today.verifier == hand_over.new:
            return
        kept, step = self._ring.seed_file(today), layout.key_file.with_name(f"{layout.key_file.name}.next")
        with disk(kept):
            # Links, so that a seed stands on the disk once, to be overwritten in the end.
            if not kept.exists():
                kept.hardlink_to(layout.key_file)
                sync_folders([self._folder])
            self._ring.probe("old key kept")
            step.unlink(missing_ok=True)
            step.hardlink_to(self._folder / f"{hand_over.new.key_id.hex()}.key")
            self._ring.probe("new key linked")
            step.replace(layout.key_file)
            sync_folders([layout.key_file.parent])
            self._ring.probe("key replaced")

    def states(self, now_micros: int) -> list[KeyState]:
        """Where every key stands; raises ConfigurationError and StoreUnavailableError."""
        keys, latest = self._ring.load(), self._lock.latest()
        signing = [keys.today.verifier.key_id] if latest is None else signing_ids(latest, keys.chain.name)
        return key_states(keys.chain, (each.verifier.key_id for each in keys.signers), signing, now_micros)

    def retire(self, key_id: bytes) -> bool:
        """End a key that handed over: it signs no more, and its seed is destroyed; False when it is not here any more.

        Raises ConfigurationError when it is today's key, StoreUnavailableError as `rotate` does.
        """
        with self._alone():
            if self.unfinished:
                raise ConfigurationError("a rotation was interrupted: run `quaestor audit rotate` first")
            keys = self._ring.load()
            if key_id == keys.today.verifier.key_id:
                raise ConfigurationError(f"{key_id.hex()} is today's key: `quaestor audit rotate` makes the next one")
            signer = keys.signer(key_id)
            if signer is None:
                return False
            self._stop_signing(signer)
            destroy_seed(self._ring.seed_file(signer), self._ring.probe)
            return True

    def _stop_signing(self, signer: Signer) -> None:
        for _ in range(SWAPS):
            latest = self._lock.latest()
            if latest is None or signer.verifier.key_id not in signing_ids(latest, signer.name):
                return
            if self._swap(latest, without_signature(latest, signer.verifier)):
                return
        raise StoreUnavailableError("the lock store changed at every try: run this again")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with held(self._folder / "rotation.lock"):
            for folder, pattern in ((self._folder, ".*.tmp"), (self._folder.parent, ".audit.key.*.tmp")):
                for leftover in folder.glob(pattern):  # of a process that died: it may hold a seed
                    shred(leftover, self._ring.probe)
            yield
