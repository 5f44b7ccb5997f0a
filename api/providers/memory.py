"""MemoryUpstream: a provider in this process, for tests: every seam ships its fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from api.providers.errors import UpstreamError, UpstreamGarbageError
from api.providers.upstream import Call
from schemas import limits

Piece = bytes | UpstreamError


class MemoryAnswer:
    """An Answer made of pieces; a fault among them is raised when its turn comes."""

    def __init__(self, status: int, pieces: Sequence[Piece], headers: Mapping[str, str] | None = None) -> None:
        """Answer these pieces in order."""
        self.status = status
        self.headers: Mapping[str, str] = dict(headers or {})
        self.aborted = False
        self._pieces = list(pieces)

    async def body(self, bytes_max: int = limits.RESPONSE_BYTES_MAX) -> bytes:
        """As the seam says."""
        whole = b""
        while piece := await self.some():
            whole += piece
            if len(whole) > bytes_max:
                self.abort()
                raise UpstreamGarbageError(f"the answer is over {bytes_max} bytes")
        return whole

    async def some(self) -> bytes:
        """As the seam says."""
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if isinstance(piece, UpstreamError):
            raise piece
        return piece

    def abort(self) -> None:
        """As the seam says."""
        self.aborted = True
        self._pieces.clear()


class MemoryUpstream:
    """An Upstream whose answers a function makes; keeps the calls it got."""

    def __init__(self, answer: Callable[[Call], MemoryAnswer | UpstreamError]) -> None:
        """`answer` may also give a fault, to be raised."""
        self.answer = answer
        self.calls: list[Call] = []

    async def send(self, call: Call) -> MemoryAnswer:
        """As the seam says."""
        self.calls.append(call)
        answer = self.answer(call)
        if isinstance(answer, UpstreamError):
            raise answer
        return answer

    async def close(self) -> None:
        """Nothing to let go of."""
