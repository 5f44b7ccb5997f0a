"""Whoever serves a log, or holds its key, tries to have something false accepted: each attempt is found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from processors.audit.anchor_lines import decode_lines
from processors.audit.checkpoint import Checkpoint
from processors.audit.entry import MAGIC_UNSALTED, NO_HEAD, Entry, Head, decode_entry, encode_entry
from processors.audit.kept import Kept, encode_kept, parse_kept
from processors.audit.key_chain import key_chain
from processors.audit.note import NoteError
from processors.audit.opening import OpeningError, parse_opening
from processors.audit.segment import read_entries
from processors.audit.tiles import TileId, tile_set
from processors.audit.trust import Trust
from processors.audit.walk import Differences, EntryWalk
from schemas.errors import IntegrityError
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.reader import DirectoryLog
from sinks.audit.verify_public import verify_public
from tests.support.audit import AuditWorld
from tests.unit.audit.test_audit_retention import cut
from tests.unit.audit.test_key_chain import NOTES, SIGNERS, VKEYS, checkpoint
from tests.unit.audit.test_key_rotation import rotate
from tests.unit.audit.test_public_log import check, differing, entries_of, serve

#: 2 partitions of 100 and 300 records, heads after each; the entry of the cut, and its heads.
SIZE = 804


class TwoFaced(DirectoryLog):
    """Answers as one log, and with another one's tile to whoever asks for that a second time."""

    def __init__(self, files: LogFiles, other: LogFiles) -> None:
        """The one log's files, and the other's."""
        super().__init__(files)
        self._other = DirectoryLog(other)
        self._asked: set[TileId] = set()

    async def read(self, tiles: Sequence[TileId]) -> list[bytes | IntegrityError]:
        """Each tile's bytes, of the one or the other."""
        found: list[bytes | IntegrityError] = []
        for tile in tiles:
            found += await (self._other.read([tile]) if tile in self._asked else super().read([tile]))
            self._asked.add(tile)
        return found


async def log_of(folder: Path, tenants: int) -> tuple[AuditWorld, str]:
    """A log that was cut, and the checkpoint that it published before any other."""
    world = AuditWorld(folder)
    world.tenants = tenants
    await world.claim()
    await world.grow(100)
    first = world.files.checkpoint() or ""
    await world.grow(300)
    await cut(world)
    return world, first


async def test_a_server_that_answers_a_second_time_otherwise(tmp_path: Path) -> None:
    """An earlier checkpoint is compared with what leads to the signed root, not with what is served afterwards."""
    honest, seen = await log_of(tmp_path / "honest", 3)
    shutil.copytree(tmp_path / "honest/secrets", tmp_path / "forged/secrets")
    forged, _ = await log_of(tmp_path / "forged", 4)

    log = TwoFaced(forged.files, honest.files)
    report, _ = await verify_public(log, Trust((honest.signer.verifier,)), [("seen", seen)])

    assert differing(report)["history"].startswith("two histories: the log's hashes do not give the root that seen")


async def test_tiles_of_other_lengths_below_a_cut(tmp_path: Path) -> None:
    """A tile that ends too early, or too late, is named, wherever it stands: nothing is read out of step."""
    world, _ = await log_of(tmp_path, 3)
    for name in [tile.path for tile in tile_set(SIZE) if tile.level >= 0]:
        path = world.layout.directory / name
        sound = path.read_bytes()
        path.write_bytes(sound + bytes(32))
        report, _ = await verify_public(DirectoryLog(world.files), Trust((world.signer.verifier,)))
        path.write_bytes(sound)

        assert name in str(differing(report))
        assert "bytes" in str(differing(report))


async def test_a_history_that_the_hand_over_speaks_against(tmp_path: Path) -> None:
    """Today's key alone can't rewrite what stood there when the key before it, gone since, handed over."""
    world, other = AuditWorld(tmp_path / "honest"), AuditWorld(tmp_path / "forged")
    other.tenants = 4
    for each in (world, other):
        await each.claim()
        await each.grow(20)
    rotate(world)
    await other.grow(20)
    today = KeyRing(world.layout).load().today
    serve(world, entries_of(other), today)

    report, _ = await verify_public(DirectoryLog(world.files), Trust((today.verifier,)))

    assert "the root that the hand-over from" in differing(report)["history"]


def test_a_retired_key_signs_no_other_root_at_the_size_of_its_hand_over() -> None:
    """The hand-over says, under both keys, which root there was."""
    chain = key_chain([VKEYS[0]], NOTES)
    forged = SIGNERS[0].sign(Checkpoint(chain.name, 10, bytes(32)).text)

    chain.open_checkpoint(checkpoint(10, SIGNERS[0]))
    for opened in (chain.open_checkpoint, Trust(chain.keys, hand_overs=chain.hand_overs).open):
        with pytest.raises(NoteError, match="two histories: the hand-over from"):
            opened(forged)


def resealed(entries: Sequence[bytes], tail: Sequence[Entry]) -> list[bytes]:
    """The log with other entries at its end, each in its chain."""
    walk = EntryWalk(Differences())
    walk.join(read_entries(0, entries, str))
    made = list(entries)
    for entry in tail:
        tseq, chain = walk.heads.get(entry.source.tenant_id, NO_HEAD)
        made.append(encode_entry(entry._replace(seq=len(made), tseq=tseq + 1, prev_chain=chain)))
        walk.join(read_entries(len(made) - 1, made[-1:], str))
    return made


@pytest.mark.parametrize("counts", [(5,), (1, 4094)], ids=["one run", "two runs"])
async def test_a_log_that_falls_back_to_entries_without_heads(tmp_path: Path, counts: Sequence[int]) -> None:
    """Behind entries of version 2 one of version 1 would need no heads entry; in one run of reading or in two."""
    world = AuditWorld(tmp_path)
    await world.claim()
    await world.grow(*counts)
    entries = entries_of(world)
    old = decode_entry(entries[-2])
    next_one = old.source._replace(offset=old.source.offset + 1)
    serve(world, resealed(entries, [old._replace(magic=MAGIC_UNSALTED, source=next_one)]))

    found = differing(await check(world))

    assert {"entries": f"entry {len(entries)}: is of an earlier version than one before it"} == found


async def test_a_heads_entry_that_passes_for_a_record(tmp_path: Path) -> None:
    """What the log says of itself names no record, request or amount: a second entry of a record can't hide there."""
    world = AuditWorld(tmp_path)
    await world.claim()
    await world.grow(5)
    entries = entries_of(world)
    last = decode_entry(entries[-1])
    for change in ({"offset": 3}, {"topic": "quaestor.costs"}, {"request_id": "r"}, {"amount_nano": 0}):
        serve(world, resealed(entries[:-1], [last._replace(source=last.source._replace(**change))]))

        assert "is one of the log's own and says more" in differing(await check(world))["entries"]


@pytest.mark.parametrize("name", ["checkpoint", "keys/1", "minimum-index", "tile/entries/000.p/11", "tile/0/000.p/11"])
async def test_a_file_that_is_larger_than_it_can_be_is_not_read(tmp_path: Path, name: str) -> None:
    """A folder from somebody else may hold anything; a terabyte of it does not get into memory."""
    world = AuditWorld(tmp_path)
    await world.claim()
    await world.grow(5)
    path = world.layout.directory / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, 1 << 40)

    try:
        found = str(differing(await check(world)))
    except IntegrityError as error:
        found = str(error)
    assert f"{path.name} has more than " in found


@pytest.mark.parametrize("tseq", [-1, 0, 1 << 64])
def test_a_chain_that_no_entry_can_have_is_refused(tseq: int) -> None:
    """The file that says where a cut log begins is nobody's word: what can't be is told, not stumbled over."""
    with pytest.raises(IntegrityError, match="not of this format"):
        parse_kept(encode_kept(Kept(256, 1, {"tenant": Head(tseq, bytes(32))}, {})))


def test_deep_nesting_is_no_opening() -> None:
    """It is refused in words like any other file that is none."""
    with pytest.raises(OpeningError, match="is not one of"):
        parse_opening(b"[" * 1_000_000)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000 + "}",
        '{"at_micros":18446744073709551616,"chain":"00","note":"x"}',
        '{"at_micros":true,"chain":"00","note":"x"}',
        '{"at_micros":1,"chain":"00","note":"\\ud800"}',
        '{"at_micros":1,"chain":"00","note":5}',
    ],
    ids=["deep", "number", "bool", "surrogate", "note"],
)
def test_an_anchor_line_that_nobody_writes_is_refused(line: str) -> None:
    """Whatever stands in the file, it is told as a change of it."""
    with pytest.raises(IntegrityError, match="line 1 "):
        decode_lines([line])
