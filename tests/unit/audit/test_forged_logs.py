"""Whoever serves a log, or holds its key, tries to have something false accepted: each attempt is found."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from processors.audit.tiles import TileId, tile_set
from processors.audit.trust import Trust
from schemas.errors import IntegrityError
from sinks.audit.files import LogFiles
from sinks.audit.reader import DirectoryLog
from sinks.audit.verify_public import verify_public
from tests.support.audit import AuditWorld
from tests.unit.audit.test_audit_retention import cut
from tests.unit.audit.test_public_log import differing

#: 2 partitions of 100 and 300 records, heads after each; the entry of the cut, and its heads.
SIZE = 804


class TwoFaced(DirectoryLog):
    """Answers as one log, and with another one's tile to whoever asks for that a second time."""

    def __init__(self, files: LogFiles, other: LogFiles) -> None:
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
