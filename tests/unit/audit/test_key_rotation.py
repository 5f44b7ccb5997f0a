"""A log that changes its key: step by step, while it runs, interrupted at every step, and as outsiders see it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from processors.audit.key_chain import key_chain, signing_ids
from processors.audit.note import NoteError
from schemas.errors import ConfigurationError, StoreUnavailableError
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.layout import AuditLayout
from sinks.audit.lock import FileLockStore, MemoryLockStore
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.process import make_sink
from sinks.audit.rotation import Rotated, Rotation
from sinks.runner.seam import Batch
from tests.support.audit import ORIGIN, PARTITIONS, TOPIC, TOPIC_ID, AuditWorld, Failing, spans_of

NOW, OVERLAP = 1_700_000_000_000_000, 30_000_000


class CrashError(Exception):
    """The process dies here."""


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dying process loses nothing that was written; only a dying machine would need the sync."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A running log of 21 entries."""
    return await running(tmp_path)


async def running(folder: Path) -> AuditWorld:
    """A log of 21 entries whose sequencer goes on."""
    made = AuditWorld(folder)
    await made.claim()
    await made.grow(10)
    return made


def rotation_of(world: AuditWorld, probe: Callable[[str], None] = lambda _point: None) -> Rotation:
    """As a command makes it, beside the sequencer."""
    return Rotation(KeyRing(world.layout, probe), FileLockStore(world.layout.lock_file, probe))


def rotate(world: AuditWorld) -> Rotated:
    """Rotate once."""
    return rotation_of(world).rotate(NOW, OVERLAP)


def public_hand_overs(world: AuditWorld) -> list[str]:
    """What an outsider can read, in the order of the numbers."""
    folder = world.layout.directory / "keys"
    return [(folder / str(number)).read_text("utf-8") for number in range(1, 1 + len(list(folder.glob("[!.]*"))))]


def published(world: AuditWorld) -> str:
    """The published checkpoint."""
    note = LogFiles(world.layout.directory).checkpoint()
    assert note is not None
    return note


def files_with(world: AuditWorld, seed: bytes) -> list[Path]:
    """The files of the data directory that have these bytes."""
    return [path for path in world.layout.data.rglob("*") if path.is_file() and seed in path.read_bytes()]


def signers_of(world: AuditWorld) -> list[str]:
    """The ids of the keys that signed the published checkpoint."""
    return [key_id.hex() for key_id in signing_ids(published(world), world.layout.origin)]


async def test_a_running_sequencer_takes_the_new_key_up(world: AuditWorld) -> None:
    """Without a restart its next checkpoint has both signatures, after retirement the new one's alone."""
    made = rotate(world).hand_over
    await world.grow(5)
    both = signers_of(world)
    assert rotation_of(world).retire(made.old.key_id)
    await world.grow(5)

    assert [made.old.key_id.hex(), made.new.key_id.hex()] == both
    assert [made.new.key_id.hex()] == signers_of(world)
    assert (await world.verify()).ok


async def test_an_outsider_follows_the_keys(world: AuditWorld) -> None:
    """Who trusts the first key verifies every checkpoint with the hand-overs; who has today's alone, the new ones."""
    first, notes = world.signer.verifier.vkey, [published(world)]
    for _ in range(3):
        made = rotate(world).hand_over
        await world.grow(3)
        notes.append(published(world))
        rotation_of(world).retire(made.old.key_id)
        await world.grow(3)
        notes.append(published(world))
    today = KeyRing(world.layout).load().today.verifier.vkey
    sizes = [21, 28, 35, 42, 49, 56, 63]

    for vkey in (first, today):
        chain = key_chain([vkey], public_hand_overs(world))
        assert sizes == [chain.open_checkpoint(note).size for note in notes]
    assert [63] == [key_chain([today]).open_checkpoint(notes[-1]).size]
    assert [21, 28] == [key_chain([first]).open_checkpoint(note).size for note in notes[:2]]
    for vkey, note in ((first, notes[2]), (today, notes[0])):
        with pytest.raises(NoteError, match="no known key"):
            key_chain([vkey]).open_checkpoint(note)


async def test_a_restarted_log_goes_on_after_each_step(world: AuditWorld) -> None:
    """A last checkpoint of any key of the chain is accepted, an old signature on a published one included."""
    made = rotate(world).hand_over
    rotation_of(world).retire(made.old.key_id)
    world.begin()
    await world.claim()
    await world.grow(5)

    assert [made.new.key_id.hex()] == signers_of(world)
    assert (await world.verify()).ok


async def test_retirement_destroys_the_seed(world: AuditWorld) -> None:
    """No file of the data directory has the old seed any more, or the bytes of its file; today's is there."""
    for _ in range(3):
        old = KeyRing(world.layout).load().today.seed.hex().encode()
        with world.layout.key_file.open() as file:
            made = rotate(world).hand_over
            assert rotation_of(world).retire(made.old.key_id)
            left = file.read()

        assert set(left) == {"\0"}
        assert [] == files_with(world, old)
        assert KeyRing(world.layout).load().today.verifier == made.new


async def test_secrets_are_their_owners_alone(world: AuditWorld) -> None:
    """Every file with a seed has mode 0600."""
    rotate(world)

    modes = {path.stat().st_mode & 0o777 for path in (world.layout.data / "secrets").rglob("*.key")}
    assert {0o600} == modes


async def test_what_can_not_be_done_is_refused(world: AuditWorld) -> None:
    """Today's key is not retired, nor anything while a rotation is unfinished; a key that is gone is no fault."""
    made = rotate(world).hand_over
    rotation = rotation_of(world)
    with pytest.raises(ConfigurationError, match="today's key"):
        rotation.retire(made.new.key_id)
    assert rotation.retire(made.old.key_id)
    assert not rotation.retire(made.old.key_id)
    rotation._stage()
    with pytest.raises(ConfigurationError, match="interrupted"):
        rotation.retire(made.old.key_id)


def test_a_log_without_a_checkpoint_has_nothing_to_hand_over(tmp_path: Path) -> None:
    """The first checkpoint comes first; the key that was made meanwhile is used then."""
    world = AuditWorld(tmp_path)

    with pytest.raises(ConfigurationError, match="no published checkpoint"):
        rotate(world)


async def test_a_lost_seed_is_told(world: AuditWorld) -> None:
    """A key that signed the last checkpoint and is not here stops the log instead of changing who signs it."""
    made = rotate(world).hand_over
    (world.layout.key_directory / f"{made.old.key_id.hex()}.key").unlink()
    await world.feed(5)
    await world.publisher.integrate()

    with pytest.raises(ConfigurationError, match="restore the secrets folder"):
        await world.publisher.publish()


async def test_a_lost_key_of_today_is_told(world: AuditWorld) -> None:
    """A log that has other keys never gets a new first one."""
    rotate(world)
    world.layout.key_file.unlink()

    with pytest.raises(ConfigurationError, match=r"audit\.key is missing: restore"):
        world.begin()


async def test_lost_public_hand_overs_are_made_again(world: AuditWorld) -> None:
    """Verification misses them, and a starting log puts them back."""
    rotate(world)
    (world.layout.directory / "keys" / "1").unlink()
    report = await world.verify()
    assert {"keys"} == {check.name for check in report.checks if not check.ok}
    world.begin()
    await world.claim()

    assert (await world.verify()).ok


@pytest.mark.parametrize("case", ["another", "one more", "junk"])
async def test_changed_public_hand_overs_are_found(world: AuditWorld, tmp_path: Path, case: str) -> None:
    """One that is not the one that was made, one too many, or bytes that are none: `audit verify` names the file."""
    rotate(world)
    other = await running(tmp_path / "other")
    note = rotate(other).note
    name, text = {"another": ("1", note), "one more": ("2", note), "junk": ("1", "junk\n")}[case]
    (world.layout.directory / "keys" / name).write_text(text, "utf-8")

    words = {
        "another": "keys/1 is not the hand-over that was made",
        "one more": "keys/2: no hand-over of this number",
        "junk": "keys/1: the note has no signatures",
    }
    assert ((await world.verify()).first_difference or "").startswith(words[case])


async def rotated(folder: Path, probe: Failing, *, restarted: bool) -> tuple[AuditWorld, bytes]:
    """A rotation and a retirement, disturbed once; the log grows after the disturbance and verifies all the time.

    Returns the log and the seed that was retired, as its file had it.
    """
    world = await running(folder)
    rotation, first, seed = rotation_of(world, probe), world.signer.verifier.key_id, world.signer.seed
    for step in (lambda: rotation.rotate(NOW, OVERLAP), lambda: rotation.retire(first)):
        try:
            step()
        except (CrashError, StoreUnavailableError):
            if restarted:
                world.begin()
                await world.claim()
            await world.grow(2)
            report = await world.verify()
            # All but the copy for outsiders, which the next run, or the next start, puts there.
            assert {check.name for check in report.checks if not check.ok} <= {"keys"}
            step()
        await world.grow(2)
    return world, seed.hex().encode()


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("error", [CrashError, StoreUnavailableError], ids=["crash", "fault"])
async def test_a_fault_at_every_point(tmp_path: Path, error: type[Exception], *, restarted: bool) -> None:
    """Wherever it stops, running it again ends with one hand-over, one key that signs, and checkpoints that follow."""
    undisturbed = Failing(-1, error)
    await rotated(tmp_path / "points", undisturbed, restarted=restarted)
    assert {"swap", "swapped", "old key kept"} <= set(undisturbed.points)
    for at, point in enumerate(undisturbed.points):
        world, old = await rotated(tmp_path / str(at), Failing(at, error), restarted=restarted)
        report = await world.verify()
        assert report.ok, f"after a fault at {point}: {report.first_difference}"
        assert [] == files_with(world, old), f"after a fault at {point}"
        today = KeyRing(world.layout).load().today.verifier
        chain = key_chain([today.vkey], public_hand_overs(world))
        assert (2, 1) == (len(chain.keys), len(chain.hand_overs)), f"after a fault at {point}"
        assert (chain.keys[-1], [today.key_id.hex()]) == (today, signers_of(world)), f"after a fault at {point}"
        for note in (await world.store.checkpoints()).values():
            chain.open_checkpoint(note)


async def test_a_rotation_loses_its_swap_and_tries_again(world: AuditWorld) -> None:
    """A checkpoint signed between look and swap is found, and the hand-over made over that one."""
    latest, newest = published(world), []

    class Moving(MemoryLockStore):
        def swap(self, old: str | None, new: str) -> bool:
            if not newest:
                newest.append(world.ring.load().sign(chain.open_checkpoint(latest)._replace(size=22), latest))
                self.note = newest[0]
            return super().swap(old, new)

    chain, lock = world.ring.load().chain, Moving()
    lock.note = latest
    made = Rotation(KeyRing(world.layout), lock).rotate(NOW, OVERLAP)

    assert (22, False) == (made.hand_over.size, made.finished)


async def test_rotations_under_load(tmp_path: Path) -> None:
    """While a sink enters and publishes in the background, keys come and go: no checkpoint falls between two keys."""
    store, layout = MemoryAuditStore(), AuditLayout(tmp_path, "test", ORIGIN)
    sink = make_sink(layout, store, "test")
    await sink.open()
    await sink.claim(PARTITIONS, {TOPIC: TOPIC_ID})
    await sink.write(Batch(spans_of(0, 5), 1))
    await sink.drained()
    first = KeyRing(layout).load().today.verifier.vkey
    rotation = Rotation(KeyRing(layout), FileLockStore(layout.lock_file))
    for round_ in range(1, 5):
        changing = asyncio.create_task(asyncio.to_thread(come_and_go, rotation))
        await sink.write(Batch(spans_of(5 * round_, 5), 1))
        await sink.drained()
        await changing
    await sink.close()

    folder = layout.directory / "keys"
    chain = key_chain([first], [(folder / str(number)).read_text("utf-8") for number in range(1, 5)])
    assert 5 == len(chain.keys)
    for size, note in (await store.checkpoints()).items():
        assert size == chain.open_checkpoint(note).size


def come_and_go(rotation: Rotation) -> None:
    """A new key, and the old one's end at once."""
    rotation.retire(rotation.rotate(NOW, 0).hand_over.old.key_id)
