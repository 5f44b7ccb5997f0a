"""The audit log as static files over HTTP, in the layout of c2sp.org/tlog-tiles; public by design.

A tile is served only as far as the published checkpoint covers it, so that nobody sees what is not yet signed; what was
served once never changes and may be kept for ever.
"""

from __future__ import annotations

import asyncio
import gzip
import re

from starlette.requests import Request
from starlette.responses import Response

from api.console.problems import NOT_FOUND, Problem, not_found
from processors.audit.checkpoint import parse_checkpoint
from processors.audit.note import parse_note
from processors.audit.tiles import BUNDLE_LEVEL, TILE_WIDTH, TileId, level_size, parse_path
from schemas.errors import IntegrityError
from sinks.audit.files import CHECKPOINT, HAND_OVERS, MINIMUM_INDEX, LogFiles

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
JSON = "application/json"
#: The checkpoint is replaced up to four times a second.
SOON = {"cache-control": "public, max-age=1"}
FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}
#: Half of an entry is hashes, which don't shrink: more effort gains nothing.
GZIP_LEVEL = 1
_HAND_OVER = re.compile(rf"{HAND_OVERS}/([1-9][0-9]{{0,3}})")


class PublicLog:
    """The files of one log."""

    def __init__(self, name: str, files: LogFiles) -> None:
        """Nothing is read before it is asked for."""
        self.name = name
        self._files = files

    async def answer(self, name: str, path: str, request: Request) -> Response | Problem:
        """The file at a path below the log's prefix; raises StoreUnavailableError."""
        if name != self.name:
            return NOT_FOUND
        if path == CHECKPOINT:
            note = await asyncio.to_thread(self._files.checkpoint)
            return not_found("Nothing is published yet.") if note is None else Response(note, 200, SOON, TEXT)
        if path == MINIMUM_INDEX:
            kept = await asyncio.to_thread(self._files.minimum_index)
            return not_found("This log was never cut.") if kept is None else Response(kept, 200, SOON, JSON)
        hand_over = _HAND_OVER.fullmatch(path)
        if hand_over is not None:
            note = await asyncio.to_thread(self._files.hand_over, int(hand_over[1]))
            return NOT_FOUND if note is None else Response(note, 200, FOR_EVER, TEXT)
        tile = parse_path(path)
        if tile is None:
            return NOT_FOUND
        return await asyncio.to_thread(self._tile, tile, takes_gzip(request.headers.get("accept-encoding", "")))

    def _tile(self, tile: TileId, may_compress: bool) -> Response | Problem:
        if tile.number * TILE_WIDTH + tile.width > level_size(tile.level, self._published_size()):
            return not_found("The published checkpoint does not cover this tile.")
        try:
            data = self._files.read(tile)
        except IntegrityError as error:
            return not_found(str(error))
        if tile.level != BUNDLE_LEVEL:
            return Response(data, 200, FOR_EVER, BYTES)
        if not may_compress:
            return Response(data, 200, FOR_EVER | {"vary": "accept-encoding"}, BYTES)
        headers = FOR_EVER | {"vary": "accept-encoding", "content-encoding": "gzip"}
        return Response(gzip.compress(data, GZIP_LEVEL, mtime=0), 200, headers, BYTES)

    def _published_size(self) -> int:
        """Entries under the published checkpoint, as it says itself: whoever wrote the files wrote it too."""
        note = self._files.checkpoint()
        return 0 if note is None else parse_checkpoint(parse_note(note)[0]).size


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip and does not rule it out."""
    found = re.search(r"(?:^|,)\s*gzip\s*(?:;\s*q=([0-9.]+)\s*)?(?:,|$)", accepted.lower())
    return found is not None and (found[1] is None or found[1].strip("0.") != "")
