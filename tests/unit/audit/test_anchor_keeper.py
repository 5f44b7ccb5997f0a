"""Anchors served beside the log: in time, again after a fault, in nobody's way; and what they find out."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
from pathlib import Path

import pytest

from processors.audit.checkpoint import Checkpoint, sign_checkpoint
from processors.audit.note import Signer
from processors.parity.checks import Check
from schemas.errors import IntegrityError
from schemas.limits import ANCHOR_LOOK_SECONDS, ANCHOR_RETRY_SECONDS_MAX
from sinks.audit.anchors.check import check_anchor
from sinks.audit.anchors.file import FileAnchor
from sinks.audit.anchors.keeper import AnchorKeeper, AnchorPlan, retry_seconds
from sinks.audit.anchors.seam import Anchor, Anchored, MemoryAnchor
from sinks.audit.anchors.state import AnchorState, AnchorStates
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.process import published
from sinks.audit.rotation import Rotation
from tests.support.audit import AuditWorld

PERIOD, SECOND = 60, 1_000_000


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        """Some day."""
        self.micros = 1_700_000_000 * SECOND

    def __call__(self) -> int:
        """The moment it is."""
        return self.micros


class World:
    """A log, an anchor, and the keeper between."""

    def __init__(self, folder: Path, anchor: Anchor | None = None) -> None:
        """Nothing is published."""
        self.log = AuditWorld(folder)
        self.clock = Clock()
        self.memory = MemoryAnchor()
        self.anchor = anchor or self.memory
        self.plan = AnchorPlan(self.anchor, PERIOD, 0.05)
        self.states = AnchorStates(self.log.layout.anchor_directory)
        self.keeper = AnchorKeeper([self.plan], LogFiles(self.log.layout.directory), self.states, self.clock)

    async def step(self, later_seconds: int = 0) -> float:
        """One step, so much later; returns the pause after it."""
        self.clock.micros += later_seconds * SECOND
        return await self.keeper.step(self.plan)

    @property
    def state(self) -> AnchorState:
        """As another process sees it."""
        return self.states.load(self.anchor.name)

    async def check(self) -> Check:
        """What `audit anchors verify` finds."""
        layout = self.log.layout
        keys, _ = published(layout)
        files = LogFiles(layout.directory)
        return await check_anchor(self.anchor, self.state, files, keys.chain, lambda: published(layout)[1])


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A log of 21 entries whose anchor has nothing."""
    made = World(tmp_path)
    await made.log.claim()
    await made.log.grow(10)
    return made


async def test_an_anchor_is_served_once_in_its_period(world: World) -> None:
    """The newest checkpoint when it is due, and none in between."""
    pauses = [await world.step()]
    await world.log.grow(5)
    pauses += [await world.step(20), await world.step(40)]

    assert [60, 40, 60] == pauses
    assert [21, 32] == [each.checkpoint.size for each in world.memory.notes]
    assert (32, world.clock.micros, 0, None) == (
        world.state.size,
        world.state.at_micros,
        world.state.failures,
        world.state.error,
    )


async def test_a_log_that_stands_still_is_not_anchored_again(world: World) -> None:
    """It is looked at soon again instead."""
    await world.step()

    assert ANCHOR_LOOK_SECONDS == await world.step(PERIOD)
    assert [21] == [each.checkpoint.size for each in world.memory.notes]


async def test_before_the_first_checkpoint_it_waits(tmp_path: Path) -> None:
    """There is nothing to anchor yet."""
    world = World(tmp_path)

    assert ANCHOR_LOOK_SECONDS == await world.step()
    assert [] == world.memory.notes


async def test_one_that_is_away_is_asked_again_with_growing_pauses(world: World) -> None:
    """Its state says what went wrong, a restarted keeper goes on from it, and a success ends it."""
    world.memory.away = True
    pauses = [await world.step() for _ in range(3)]
    failed = world.state
    world.memory.away = False
    again = World(world.log.layout.data, world.memory)

    assert [1, 2, 4] == pauses
    assert (3, "the anchor in memory is away") == (failed.failures, failed.error)
    assert PERIOD == await again.step()
    assert (21, 0, None) == (again.state.size, again.state.failures, again.state.error)


def test_pauses_have_a_limit() -> None:
    """However often it failed."""
    assert [1, 256, 300, 300] == [retry_seconds(failures) for failures in (1, 9, 10, 10_000)]
    assert ANCHOR_RETRY_SECONDS_MAX == retry_seconds(10)


class Hanging(MemoryAnchor):
    """One that never answers."""

    def __init__(self) -> None:
        """Nobody has called."""
        super().__init__("hanging:")
        self.called = asyncio.Event()

    async def put(self, note: str, now_micros: int) -> None:
        """Never ends."""
        self.called.set()
        await asyncio.Event().wait()


async def test_one_that_hangs_is_given_up(tmp_path: Path) -> None:
    """After its time-out, as one that is away."""
    world = World(tmp_path, Hanging())
    await world.log.claim()
    await world.log.grow(10)

    assert 1 == await world.step()
    assert "no answer within 0.05 seconds" == world.state.error


class Broken(MemoryAnchor):
    """One whose client has a fault of its own."""

    def __init__(self) -> None:
        """Nobody has called."""
        super().__init__("broken:")
        self.called = asyncio.Event()

    async def put(self, note: str, now_micros: int) -> None:
        """Raises what nobody foresaw."""
        self.called.set()
        raise ZeroDivisionError


class Telling(MemoryAnchor):
    """A sound one that tells when it was called."""

    def __init__(self) -> None:
        """Nobody has called."""
        super().__init__("telling:")
        self.called = asyncio.Event()

    async def put(self, note: str, now_micros: int) -> None:
        """As the seam says."""
        await super().put(note, now_micros)
        self.called.set()


async def test_anchors_do_not_stand_in_each_others_way_nor_the_logs(world: World) -> None:
    """Beside one that hangs and one that breaks, another is served, the log publishes, and the end is in order."""
    hanging, broken, sound = Hanging(), Broken(), Telling()
    plans = [AnchorPlan(anchor, PERIOD, PERIOD) for anchor in (hanging, broken, sound)]
    keeper = AnchorKeeper(plans, LogFiles(world.log.layout.directory), world.states, world.clock)
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(30):
        await hanging.called.wait()
        await broken.called.wait()
        await sound.called.wait()
    await world.log.grow(5)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert [21] == [each.checkpoint.size for each in sound.notes]
    assert (await world.log.verify()).size == 32


async def grown(world: World) -> World:
    """Three anchored checkpoints: 21, 52 and 613 entries; the log goes on after them."""
    for count in (0, 15, 280):
        await world.log.grow(count)
        await world.step(PERIOD)
    await world.log.grow(7)
    return world


async def test_a_sound_log_fits_its_anchors(world: World) -> None:
    """Every anchored checkpoint leads to the published one, across a change of keys too."""
    await grown(world)
    made = Rotation(KeyRing(world.log.layout), world.log.lock).rotate(world.clock.micros, 0).hand_over
    Rotation(KeyRing(world.log.layout), world.log.lock).retire(made.old.key_id)
    await world.log.grow(3)

    found = await world.check()
    assert (True, 3, 3, None) == (found.ok, found.expected, found.actual, found.first_difference)


async def test_a_rewritten_log_is_found(world: World) -> None:
    """A log made anew with the same key, of other entries from some point on: the first checkpoint beyond is named."""
    await grown(world)
    folder = world.log.layout.data
    shutil.rmtree(folder / "audit")
    shutil.rmtree(folder / "audit-lock")
    forged = AuditWorld(folder)
    await forged.claim()
    await forged.grow(10)
    forged.offset += 1
    for partition, (topic_id, offset) in list(forged.store.positions.items()):  # type: ignore[attr-defined]
        forged.store.positions[partition] = (topic_id, offset + 1)  # type: ignore[attr-defined]
    forged.begin()
    await forged.claim()
    await forged.grow(14, 300)

    found = await world.check()
    assert (await forged.verify()).size > 613
    assert (False, 3, 1) == (found.ok, found.expected, found.actual)
    assert "at 52 entries the root" in (found.first_difference or "")


async def test_a_log_that_was_cut_is_found(world: World) -> None:
    """Fewer entries published than anchored."""
    await grown(world)
    older = world.memory.notes[1].note
    world.log.files.publish(older)

    found = await world.check()
    assert "613 entries were anchored, the log has 52" in (found.first_difference or "")


async def test_a_checkpoint_of_a_stranger_is_found(world: World) -> None:
    """What stands in an anchor must be signed by a key of this log."""
    await world.step()
    stranger = Signer(world.log.layout.origin, bytes(32))
    world.memory.notes.append(Anchored(sign_checkpoint(Checkpoint(stranger.name, 30, bytes(32)), stranger), 1))

    found = await world.check()
    assert "not this log's: no known key" in (found.first_difference or "")


async def test_an_anchor_that_forgot_is_found(world: World) -> None:
    """It must have what it took."""
    await grown(world)
    world.memory.notes.pop()

    found = await world.check()
    assert "it took 613 entries and has only 52" in (found.first_difference or "")


async def test_a_changed_file_is_found(tmp_path: Path) -> None:
    """By verification, and by the next checkpoint, which is not added to it."""
    path = tmp_path / "anchor.jsonl"
    world = await grown(await started(World(tmp_path, FileAnchor(path))))
    text = path.read_text("utf-8")
    path.write_text(text.replace("test\\n52\\n", "test\\n53\\n", 1), "utf-8")

    found = await world.check()
    assert "line 2 does not follow" in (found.first_difference or "")
    with pytest.raises(IntegrityError, match="line 2"):
        await world.anchor.put(world.log.files.checkpoint() or "", 1)
    await world.step(PERIOD)
    assert "line 2" in (world.state.error or "")


async def started(world: World) -> World:
    """Its log has 21 entries."""
    await world.log.claim()
    await world.log.grow(10)
    return world


async def test_a_line_that_broke_off_does_not_stop_a_file(tmp_path: Path) -> None:
    """A writer that died in the middle leaves half a line; the next one begins a line of its own."""
    path = tmp_path / "anchor.jsonl"
    world = await started(World(tmp_path, FileAnchor(path)))
    await world.step()
    with path.open("a") as file:
        file.write('{"at_micros":17')
    await world.log.grow(5)
    await world.step(PERIOD)

    assert [21, 32] == [each.checkpoint.size for each in await world.anchor.kept()]
    assert (await world.check()).ok


async def test_two_processes_do_not_write_a_file_at_once(tmp_path: Path) -> None:
    """Their lines would follow the same one: the second asks again later."""
    anchor, path = FileAnchor(tmp_path / "anchor.jsonl"), tmp_path / "anchor.jsonl"
    world = await started(World(tmp_path, anchor))
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        await world.step()
        refused = world.state
    await world.step()

    assert (1, f"{path}: another process writes it") == (refused.failures, refused.error)
    assert 1 == len(await anchor.kept())


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    """It says what to do; the anchor itself is not concerned."""
    states = AnchorStates(tmp_path)
    states.save(AnchorState("a", 5))
    assert AnchorState("a", 5) == states.load("a")
    next(tmp_path.glob("*.json")).write_text("junk")

    with pytest.raises(IntegrityError, match="remove it"):
        states.load("a")
