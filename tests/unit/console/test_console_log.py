"""The audit log's files over HTTP: exactly the published ones, with the right types, for ever or for a second."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from processors.audit.kept import EVERYTHING
from processors.audit.tiles import BUNDLE_LEVEL, TileId, tile_set
from sinks.audit.key_ring import KeyRing
from sinks.audit.lock import FileLockStore
from sinks.audit.rotation import Rotation
from tests.support.console import ConsoleWorld


@pytest.fixture
async def world(tmp_path: Path) -> ConsoleWorld:
    """A log of 300 records and some, published in two steps."""
    made = ConsoleWorld(tmp_path)
    await made.audit.claim()
    await made.audit.grow(120, 30)
    return made


async def test_the_checkpoint_is_text_and_kept_for_a_second(world: ConsoleWorld) -> None:
    """Its bytes are the file's."""
    answer = await world.ask("/audit/main/checkpoint", token=None)

    assert (200, "text/plain; charset=utf-8", "public, max-age=1") == (
        answer.status,
        answer.headers["content-type"],
        answer.headers["cache-control"],
    )
    assert (world.audit.layout.directory / "checkpoint").read_bytes() == answer.body


async def test_every_file_of_the_published_size_is_served(world: ConsoleWorld) -> None:
    """Tiles and bundles, full and partial, byte by byte, to be kept for ever."""
    for tile in tile_set(world.audit.publisher.signed_size):
        answer = await world.ask(f"/audit/main/{tile.path}", token=None)

        assert (200, "application/octet-stream") == (answer.status, answer.headers["content-type"])
        assert "immutable" in answer.headers["cache-control"]
        assert (world.audit.layout.directory / tile.path).read_bytes() == answer.body


async def test_a_partial_tile_that_is_gone_is_cut_from_the_full_one(world: ConsoleWorld) -> None:
    """Partial files are deleted once the tile is full; whoever holds an older checkpoint may still ask."""
    for level in (BUNDLE_LEVEL, 0):
        whole, part = TileId(level, 0, 256), TileId(level, 0, 100)
        assert not (world.audit.layout.directory / part.path).exists()

        answer = await world.ask(f"/audit/main/{part.path}", token=None)

        assert 200 == answer.status
        assert (world.audit.layout.directory / whole.path).read_bytes().startswith(answer.body)


async def test_nothing_beyond_the_checkpoint_is_served(world: ConsoleWorld) -> None:
    """Tiles that are written before they are signed for stay unseen."""
    await world.audit.feed(120)
    while await world.audit.publisher.integrate():
        pass
    beyond = TileId(0, 1, 256)
    assert (world.audit.layout.directory / beyond.path).exists()

    assert 404 == (await world.ask(f"/audit/main/{beyond.path}", token=None)).status
    await world.audit.publish()
    assert 200 == (await world.ask(f"/audit/main/{beyond.path}", token=None)).status


async def test_before_the_first_checkpoint_there_is_nothing(tmp_path: Path) -> None:
    """No file, and no fault."""
    world = ConsoleWorld(tmp_path)

    for path in ("checkpoint", "tile/0/000.p/1"):
        assert 404 == (await world.ask(f"/audit/main/{path}", token=None)).status


async def test_head_has_the_headers_and_no_body(world: ConsoleWorld) -> None:
    """As GET would answer, length included."""
    got = await world.ask("/audit/main/tile/0/000", token=None)
    head = await world.ask("/audit/main/tile/0/000", method="HEAD", token=None)

    assert (200, b"", str(len(got.body))) == (head.status, head.body, head.headers["content-length"])


async def test_bundles_shrink_for_whoever_takes_gzip(world: ConsoleWorld) -> None:
    """Bundles only, and caches are told that the answer depends on it."""
    bundle, tile = TileId(BUNDLE_LEVEL, 0, 256).path, TileId(0, 0, 256).path
    plain = await world.ask(f"/audit/main/{bundle}")
    packed = await world.ask(f"/audit/main/{bundle}", headers={"accept-encoding": "br, gzip;q=0.5"})
    hashes = await world.ask(f"/audit/main/{tile}", headers={"accept-encoding": "gzip"})
    refused = await world.ask(f"/audit/main/{bundle}", headers={"accept-encoding": "gzip;q=0"})

    assert "gzip" == packed.headers["content-encoding"]
    assert "accept-encoding" == packed.headers["vary"] == plain.headers["vary"]
    assert plain.body == gzip.decompress(packed.body) == refused.body
    assert len(packed.body) < len(plain.body)
    assert "content-encoding" not in hashes.headers


@pytest.mark.parametrize(
    "path",
    [
        "/audit/main/",
        "/audit/main/../secrets/audit.key",
        "/audit/main/%2e%2e/%2e%2e/secrets/audit.key",
        "/audit/main/tile/../checkpoint",
        "/audit/main/tile/0/../0/000",
        "/audit/main//checkpoint",
        "/audit/main/checkpoint/",
        "/audit/main/.checkpoint.tmp",
        "/audit/main/tile/0/0",
        "/audit/main/tile/0/000/",
        "/audit/main/tile/0/x000/000",
        "/audit/main/tile/00/000",
        "/audit/main/tile/64/000",
        "/audit/main/tile/-1/000",
        "/audit/main/tile/0/000.p/0",
        "/audit/main/tile/0/000.p/256",
        "/audit/main/tile/0/000.p/01",
        "/audit/main/tile/0/000.p/257",
        "/audit/main/tile/entries/000%00",
        "/audit/main/tile/0/000%0a",
        "/audit/main/tile/0/" + "x001/" * 2_000 + "000",
        "/audit/main/tile/63/000.p/1",
        "/audit/main/tile/0/999",
        "/audit/other/checkpoint",
        "/audit/..%2fmain/checkpoint",
        "/audit",
    ],
)
async def test_any_other_path_is_not_found(world: ConsoleWorld, path: str) -> None:
    """No traversal, no other spelling of a tile, no number that is too long."""
    answer = await world.ask(path, token=None)

    assert (404, "not_found") == (answer.status, answer.json()["code"])


async def test_a_closed_log_needs_the_token(tmp_path: Path) -> None:
    """The setting closes it."""
    world = ConsoleWorld(tmp_path, log_is_public=False)
    await world.audit.claim()
    await world.audit.grow(3)

    assert 401 == (await world.ask("/audit/main/checkpoint", token=None)).status
    assert 200 == (await world.ask("/audit/main/checkpoint")).status


async def test_a_damaged_checkpoint_is_a_fault_that_is_told(world: ConsoleWorld) -> None:
    """500 with the correlation id, and nothing of the reason."""
    world.audit.files.publish("not a note\n")

    answer = await world.ask("/audit/main/tile/0/000", token=None)

    assert (500, "internal") == (answer.status, answer.json()["code"])
    assert answer.headers["x-correlation-id"] == answer.json()["correlation_id"]


async def test_where_a_cut_log_begins_is_public(world: ConsoleWorld) -> None:
    """The file as it lies there; a log that was never cut has none."""
    assert 404 == (await world.ask("/audit/main/minimum-index", token=None)).status

    world.audit.files.publish_kept(EVERYTHING._replace(minimum_index=256))
    answer = await world.ask("/audit/main/minimum-index", token=None)
    assert (200, "application/json", 256) == (
        answer.status,
        answer.headers["content-type"],
        answer.json()["minimum_index"],
    )


async def test_hand_overs_of_the_key_are_served(world: ConsoleWorld) -> None:
    """By their numbers, to be kept for ever; what is no number, or none yet, is not found."""
    layout = world.audit.layout
    note = Rotation(KeyRing(layout), FileLockStore(layout.lock_file)).rotate(1, 0).note
    answer = await world.ask("/audit/main/keys/1", token=None)

    assert (200, note.encode(), "text/plain; charset=utf-8") == (
        answer.status,
        answer.body,
        answer.headers["content-type"],
    )
    assert "immutable" in answer.headers["cache-control"]
    for path in ("keys", "keys/", "keys/0", "keys/2", "keys/01", "keys/x", "keys/1/1", "keys/../checkpoint"):
        assert 404 == (await world.ask(f"/audit/main/{path}", token=None)).status
