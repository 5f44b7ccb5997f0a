"""What the audit log proves of a record: every way in which it may fall short has its own mark."""

from __future__ import annotations

from pathlib import Path

import pytest

from processors.audit.checkpoint import Checkpoint
from processors.audit.entry import MAGIC_UNSALTED, decode_entry, encode_entry
from processors.audit.kept import Kept
from processors.audit.marks import Included, Mark, MarkState, mark_of
from processors.audit.merkle import leaf_hash
from processors.audit.tiles import TileId
from sinks.audit.marks import Marker
from tests.support.audit import SALTS
from tests.support.told import Told


@pytest.fixture
async def told(tmp_path: Path) -> Told:
    """Records that are entered and published."""
    made = Told(tmp_path)
    await made.enter()
    await made.world.publish()
    return made


async def test_what_is_published_and_unchanged_is_verified(told: Told) -> None:
    """Every record is verified, each at an index of its own."""
    marks = await told.marks()

    assert {MarkState.VERIFIED} == {mark.state for mark in marks}
    assert len(marks) == len({mark.index for mark in marks})


async def test_without_the_bytes_a_record_is_only_included(told: Told) -> None:
    """The entry is under the root, but nobody compared what it commits to."""
    assert {MarkState.INCLUDED} == await told.states(without_bytes=True)


async def test_without_the_salt_secret_a_record_is_only_included(told: Told) -> None:
    """A commitment that can't be opened proves nothing of the bytes."""
    marker = Marker(told.world.store, told.world.files, told.world.ring.load().chain)

    assert {MarkState.INCLUDED} == await told.states(marker)


async def test_without_the_key_nothing_is_checked(told: Told) -> None:
    """The index is known, the mark says that it was not checked."""
    marks = await told.marks(Marker(told.world.store, told.world.files, None, SALTS))

    assert {MarkState.UNCHECKED} == {mark.state for mark in marks}
    assert None not in {mark.index for mark in marks}


async def test_what_is_sequenced_and_not_published_is_pending(tmp_path: Path) -> None:
    """An index that no published checkpoint covers proves nothing yet."""
    told = Told(tmp_path)
    await told.enter()

    marks = await told.marks()
    assert {MarkState.PENDING} == {mark.state for mark in marks}
    assert None not in {mark.index for mark in marks}


async def test_what_is_not_sequenced_is_pending_without_an_index(tmp_path: Path) -> None:
    """The log has not come to it yet."""
    assert {Mark(MarkState.PENDING, None, "not sequenced yet")} == set(await Told(tmp_path).marks())


async def test_a_record_that_was_passed_over_differs(told: Told) -> None:
    """The cursor is past it and there is no entry: it was left out, or its row was taken away."""
    told.world.store.stored = [row for row in told.world.store.stored if row.topic != "quaestor.costs"]  # type: ignore[attr-defined]  # the fake's

    marks = dict(zip([claim.topic for claim in told.claims], await told.marks(), strict=True))
    assert MarkState.MISMATCH is marks["quaestor.costs"].state
    assert MarkState.VERIFIED is marks["quaestor.attempts"].state


@pytest.mark.parametrize("change", ["value", "fields"])
async def test_a_record_changed_in_kafka_differs(told: Told, change: str) -> None:
    """Other bytes, or other public fields, than were entered."""
    at, seen = next(iter(told.seen.items()))
    other = seen._replace(value=seen.value + b"x") if change == "value" else seen._replace(fields=None)  # type: ignore[operator]  # it has one
    told.seen[at] = other

    mark, *others = await told.marks()
    assert (MarkState.MISMATCH, {MarkState.VERIFIED}) == (mark.state, {each.state for each in others})


@pytest.mark.parametrize(
    ("change", "words"), [({"event_id": "other"}, "of event"), ({"request_id": "other"}, "of request")]
)
async def test_an_entry_of_something_else_differs(told: Told, change: dict[str, str], words: str) -> None:
    """The entry at the index names another event or request than what is told."""
    standing = await told.marker.standing(told.claims[0].request_id)

    (mark,) = await told.marker.marks([told.claims[0]._replace(**change)], standing, told.seen)

    assert MarkState.MISMATCH is mark.state
    assert words in mark.detail


@pytest.mark.parametrize("level", [-1, 0], ids=["entries", "hashes"])
async def test_a_changed_file_differs(told: Told, level: int) -> None:
    """A flipped byte in an entry bundle or in a tile: the proof no longer leads to the signed root."""
    size = told.world.publisher.signed_size
    last = TileId(level, size // 256, size % 256)
    path = told.world.layout.directory / last.path
    data = bytearray(path.read_bytes())
    # In the tile any hash; in the bundle a byte of the chain before an entry of ours.
    data[40 if level == 0 else data.index(told.claims[-1].event_id.encode()) - 150] ^= 1
    path.write_bytes(bytes(data))

    assert MarkState.MISMATCH in await told.states()


async def test_a_checkpoint_that_is_not_signed_by_the_key_differs(told: Told) -> None:
    """Without a signed root nothing is proven, and all is suspect."""
    note = told.world.files.checkpoint() or ""
    size = told.world.publisher.signed_size
    told.world.files.publish(note.replace(f"\n{size}\n", f"\n{size + 1}\n"))

    assert {MarkState.MISMATCH} == await told.states()


async def test_an_entry_of_version_one_is_only_included(told: Told) -> None:
    """Its commitment had no salt and is not opened any more."""
    row = next(row for row in told.world.store.stored if row.event_id == told.claims[0].event_id)  # type: ignore[attr-defined]  # the fake's
    entry = encode_entry(decode_entry(row.entry)._replace(magic=MAGIC_UNSALTED, seq=0))
    checkpoint = Checkpoint("log", 1, leaf_hash(entry))
    seen = next(iter(told.seen.values()))

    mark = mark_of(told.claims[0], 0, Included(entry, []), checkpoint, seen, SALTS)

    assert (MarkState.INCLUDED, 0) == (mark.state, mark.index)


@pytest.mark.parametrize("has_rows", [True, False])
async def test_what_retention_gave_up_is_gone(told: Told, has_rows: bool) -> None:
    """Neither proven nor different, whether its row is still there or went with its table partition."""
    ends = {(claim.topic, "id", claim.partition): claim.offset + 1 for claim in sorted(told.claims)}
    told.world.files.publish_kept(Kept(65_536, 400, {}, ends))
    if not has_rows:
        told.world.store.stored = []  # type: ignore[attr-defined]  # the fake's

    marks = await told.marks()
    assert {(MarkState.GONE, "retention gave up the entries below 65536")} == {
        (each.state, each.detail) for each in marks
    }
    assert has_rows is (None not in {mark.index for mark in marks})


async def test_a_position_below_the_cut_makes_nothing_gone(told: Told) -> None:
    """Whoever changes a row can't have a record that is left taken for one that retention gave up."""
    told.world.files.publish_kept(Kept(65_536, 400, {}, {}))

    assert MarkState.GONE not in {mark.state for mark in await told.marks()}
