"""The seam to a log's public files, wherever they are: a directory here, and HTTP in `api.audit.http_reader`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from processors.audit.kept import Kept
from processors.audit.tiles import TileId
from schemas.errors import IntegrityError
from sinks.audit.files import LogFiles


class LogSource(Protocol):
    """Reads what everybody may read of one log. Every call raises StoreUnavailableError when it can't look."""

    async def checkpoint(self) -> str | None:
        """The published checkpoint, None before the first; raises IntegrityError when it is no text."""

    async def hand_overs(self) -> list[str]:
        """The notes in which its keys handed over, in order; raises IntegrityError for what is no text."""

    async def kept(self) -> Kept:
        """What the log still has; raises IntegrityError for a file that can't be read."""

    async def read(self, tiles: Sequence[TileId]) -> list[bytes | IntegrityError]:
        """Each tile's bytes, or why there are none, in order; a partial one may be cut from the full one."""


class DirectoryLog:
    """A LogSource in a directory."""

    def __init__(self, files: LogFiles) -> None:
        """Nothing is touched before it is needed."""
        self._files = files

    async def checkpoint(self) -> str | None:
        """As the seam says."""
        return await asyncio.to_thread(self._files.checkpoint)

    async def hand_overs(self) -> list[str]:
        """As the seam says."""
        return await asyncio.to_thread(self._files.hand_overs)

    async def kept(self) -> Kept:
        """As the seam says."""
        return await asyncio.to_thread(self._files.kept)

    async def read(self, tiles: Sequence[TileId]) -> list[bytes | IntegrityError]:
        """As the seam says."""
        return await asyncio.to_thread(lambda: [self._read(tile) for tile in tiles])

    def _read(self, tile: TileId) -> bytes | IntegrityError:
        try:
            return self._files.read(tile)
        except (IntegrityError, ValueError) as error:
            return IntegrityError(f"{tile.path}: {error}") if isinstance(error, ValueError) else error


async def read_sound(log: LogSource, tiles: Sequence[TileId]) -> Mapping[TileId, bytes]:
    """These tiles; raises IntegrityError for the first that is not there."""
    found: dict[TileId, bytes] = {}
    for tile, data in zip(tiles, await log.read(tiles), strict=True):
        if isinstance(data, IntegrityError):
            raise data
        found[tile] = data
    return found
