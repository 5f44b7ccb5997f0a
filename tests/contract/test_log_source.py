"""What verification asks of a log's public files, from a directory and over HTTP."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from api.audit.http_reader import HttpLog
from processors.audit.tiles import BUNDLE_LEVEL, TILE_WIDTH, TileId, decode_bundle, tile_set
from processors.audit.trust import Trust
from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.audit.reader import DirectoryLog, LogSource, read_sound
from sinks.audit.verify_public import verify_public
from tests.support.anchors import serving
from tests.support.audit import AuditWorld

SIZE = 342
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A published log."""
    made = AuditWorld(tmp_path)
    await made.claim()
    await made.grow(150, 20)
    return made


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[HttpLog]:
    """A reader of what this handler answers."""
    async with serving(handler, "/audit/main/{path:.*}") as url:
        reader = HttpLog(f"{url}/audit/main/")
        try:
            yield reader
        finally:
            await reader.close()


def files_of(folder: Path) -> Handler:
    """Serves a folder as any static server would; bundles are compressed."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = folder / request.match_info["path"]
        if not path.is_file():
            return web.Response(status=404)
        data = path.read_bytes()
        if "entries" not in path.parts:
            return web.Response(body=data)
        return web.Response(body=gzip.compress(data), headers={"content-encoding": "gzip"})

    return answer


@pytest.fixture(params=["directory", "http"])
async def log(request: pytest.FixtureRequest, world: AuditWorld) -> AsyncIterator[LogSource]:
    """Each source in turn."""
    if request.param == "directory":
        yield DirectoryLog(world.files)
        return
    async with served(files_of(world.layout.directory)) as reader:
        yield reader


async def test_every_file_is_read(log: LogSource, world: AuditWorld) -> None:
    """Checkpoint, tiles and bundles are the bytes that lie there."""
    tiles = list(tile_set(SIZE))

    assert world.files.checkpoint() == await log.checkpoint()
    assert {tile: world.files.read(tile) for tile in tiles} == await read_sound(log, tiles)


async def test_a_partial_file_that_became_full_is_cut(log: LogSource) -> None:
    """A reader whose checkpoint is older than the files gets what it asked for."""
    bundle, hashes = await log.read([TileId(BUNDLE_LEVEL, 0, 7), TileId(0, 0, 7)])
    whole_bundle, whole_hashes = await log.read([TileId(BUNDLE_LEVEL, 0, TILE_WIDTH), TileId(0, 0, TILE_WIDTH)])

    assert isinstance(bundle, bytes)
    assert isinstance(whole_bundle, bytes)
    assert decode_bundle(whole_bundle)[:7] == decode_bundle(bundle)
    assert isinstance(whole_hashes, bytes)
    assert whole_hashes[: 7 * 32] == hashes


async def test_a_file_that_is_not_there_is_named(log: LogSource) -> None:
    """Beside those that are; whoever needs all of them is refused."""
    there, missing = await log.read([TileId(0, 0, TILE_WIDTH), TileId(0, 9, TILE_WIDTH)])

    assert isinstance(there, bytes)
    assert isinstance(missing, IntegrityError)
    assert "tile/0/009 is missing" in str(missing)
    with pytest.raises(IntegrityError, match="tile/0/009 is missing"):
        await read_sound(log, [TileId(0, 9, TILE_WIDTH)])


async def test_a_whole_log_is_verified(log: LogSource, world: AuditWorld) -> None:
    """Wherever it lies."""
    report, note = await verify_public(log, Trust((world.signer.verifier,)))

    assert (True, SIZE, world.files.checkpoint()) == (report.ok, report.size, note), report.first_difference


async def test_before_the_first_checkpoint(tmp_path: Path) -> None:
    """There is none, here or there."""
    assert await DirectoryLog(AuditWorld(tmp_path).files).checkpoint() is None
    async with served(files_of(tmp_path / "empty")) as reader:
        assert await reader.checkpoint() is None


async def test_a_server_that_sends_too_much_is_not_read_to_its_end(world: AuditWorld) -> None:
    """A tile has a size; what is larger is refused, also when it is small on the wire."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = gzip.compress(bytes(20_000_000))
        return web.Response(body=body, headers={"content-encoding": "gzip"})

    async with served(answer) as reader:
        (tile,) = await reader.read([TileId(0, 0, TILE_WIDTH)])
        assert "has more than 8192 bytes" in str(tile)
        with pytest.raises(IntegrityError, match="has more than 1000000 bytes"):
            await reader.checkpoint()


@pytest.mark.parametrize("status", [302, 403, 500, 503])
async def test_a_server_that_fails_is_told_as_such(status: int) -> None:
    """That is no finding about the log; redirects are not followed."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"location": "/audit/main/checkpoint"})

    async with served(answer) as reader:
        with pytest.raises(StoreUnavailableError, match=f"HTTP {status}"):
            await reader.checkpoint()
        with pytest.raises(StoreUnavailableError, match=f"HTTP {status}"):
            await reader.read([TileId(0, 0, TILE_WIDTH)])


async def test_nobody_there() -> None:
    """A connection that is refused is told as such."""
    reader = HttpLog("http://127.0.0.1:9/audit/main")
    try:
        with pytest.raises(StoreUnavailableError, match="no answer"):
            await reader.checkpoint()
    finally:
        await reader.close()
