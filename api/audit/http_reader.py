"""HttpLog: reads a log's public files over HTTP, as c2sp.org/tlog-tiles lays them out below one prefix."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp

from processors.audit.kept import EVERYTHING, Kept, parse_kept
from processors.audit.key_chain import HAND_OVERS_MAX
from processors.audit.note import NOTE_BYTES_MAX
from processors.audit.tiles import TILE_WIDTH, TileId, cut_tile
from schemas.errors import IntegrityError, StoreUnavailableError
from schemas.limits import AUDIT_FILE_SECONDS, AUDIT_FILES_AT_ONCE_MAX, CONNECT_TIMEOUT_SECONDS
from sinks.audit.files import CHECKPOINT, HAND_OVERS, KEPT_BYTES_MAX, MINIMUM_INDEX, tile_bytes_max
from sinks.audit.reader import LogSource

USER_AGENT = "quaestor"
OK, NOT_FOUND = 200, 404


class HttpLog(LogSource):
    """A LogSource over aiohttp. Redirects are not followed; what is larger than it can be is not read to its end."""

    def __init__(self, prefix: str) -> None:
        """Make it inside the loop that will use it; connects nothing yet."""
        self._prefix = prefix.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AUDIT_FILES_AT_ONCE_MAX),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT},
            trust_env=False,
        )
        self._room = asyncio.Semaphore(AUDIT_FILES_AT_ONCE_MAX)

    async def checkpoint(self) -> str | None:
        """As the seam says."""
        return await self._note(CHECKPOINT)

    async def hand_overs(self) -> list[str]:
        """As the seam says."""
        found: list[str] = []
        while len(found) < HAND_OVERS_MAX and (note := await self._note(f"{HAND_OVERS}/{len(found) + 1}")):
            found.append(note)
        return found

    async def _note(self, path: str) -> str | None:
        data = await self._get(path, NOTE_BYTES_MAX)
        try:
            return None if data is None else data.decode("utf-8")
        except UnicodeDecodeError:
            raise IntegrityError(f"{self._prefix}/{path} is not text") from None

    async def kept(self) -> Kept:
        """As the seam says."""
        data = await self._get(MINIMUM_INDEX, KEPT_BYTES_MAX)
        return EVERYTHING if data is None else parse_kept(data)

    async def read(self, tiles: Sequence[TileId]) -> list[bytes | IntegrityError]:
        """As the seam says."""
        return await asyncio.gather(*map(self._read, tiles))

    async def _read(self, tile: TileId) -> bytes | IntegrityError:
        bytes_max = tile_bytes_max(tile)
        try:
            data = await self._get(tile.path, bytes_max)
            if data is None and tile.width < TILE_WIDTH:
                whole = await self._get(tile._replace(width=TILE_WIDTH).path, bytes_max)
                data = None if whole is None else cut_tile(tile, whole)
        except (IntegrityError, ValueError) as error:
            return IntegrityError(f"{tile.path}: {error}")
        return IntegrityError(f"{tile.path} is missing") if data is None else data

    async def _get(self, path: str, bytes_max: int) -> bytes | None:
        """A file's bytes; None when there is none. Raises StoreUnavailableError, IntegrityError for too large a one."""
        url = f"{self._prefix}/{path}"
        try:
            async with (
                self._room,
                asyncio.timeout(AUDIT_FILE_SECONDS),
                self._session.get(url, allow_redirects=False) as answer,
            ):
                if answer.status == NOT_FOUND:
                    return None
                if answer.status != OK:
                    raise StoreUnavailableError(f"{url}: HTTP {answer.status}")
                found = bytearray()
                async for piece in answer.content.iter_any():
                    found += piece
                    if len(found) > bytes_max:
                        raise IntegrityError(f"{url} has more than {bytes_max} bytes")
                return bytes(found)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise StoreUnavailableError(f"{url}: no answer: {type(error).__name__}") from error

    async def close(self) -> None:
        """Let go."""
        await self._session.close()
