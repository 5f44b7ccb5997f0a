"""FileAnchor: a file that is only ever appended to, for a disk or mount that forbids anything else (WORM)."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from processors.audit.anchor_lines import START, AnchorLine, decode_lines, encode_line, line_after
from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.audit.anchors.seam import Anchored, is_new
from sinks.audit.files import disk, sync_folders

FILE_BYTES_MAX = 1 << 30
Result = TypeVar("Result")


class FileAnchor:
    """An Anchor in a file of JSON lines. The file's own folder must be there."""

    def __init__(self, path: Path) -> None:
        """Nothing is touched before it is needed."""
        self.name = f"file:{path}"
        self._path = path
        # A thread of its own: a mount that hangs must not take those that write the log.
        self._thread = ThreadPoolExecutor(1, "audit-anchor")
        self._pending: Future[object] | None = None

    async def put(self, note: str, now_micros: int) -> None:
        """As the seam says."""
        await self._run(lambda: self._put(note, now_micros))

    async def kept(self) -> list[Anchored]:
        """As the seam says."""
        return await self._run(lambda: [Anchored(line.note, line.at_micros) for line in self._read()])

    async def close(self) -> None:
        """Leave the thread to itself: it may hang."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._pending is not None and not self._pending.done():
            raise StoreUnavailableError(f"{self._path}: an earlier call still hangs")
        future: Future[Result] = self._thread.submit(work)
        self._pending = future  # type: ignore[assignment]
        return await asyncio.wrap_future(future)

    def _put(self, note: str, now_micros: int) -> None:
        try:
            with disk(self._path), self._opened() as descriptor:
                lines = self._read()
                last = lines[-1] if lines else None
                if is_new(note, None if last is None else Anchored(last.note, last.at_micros)):
                    line = line_after(START if last is None else last.chain, now_micros, note)
                    self._append(descriptor, encode_line(line).encode("ascii"))
        except FileNotFoundError:
            raise StoreUnavailableError(f"{self._path.parent} is not there") from None

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The file, to be read and appended to by nobody else meanwhile."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreUnavailableError(f"{self._path}: another process writes it") from None
            yield descriptor
        finally:
            os.close(descriptor)

    def _append(self, descriptor: int, data: bytes) -> None:
        size = os.fstat(descriptor).st_size
        # A line that broke off stays: nothing here is ever taken back.
        broken = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if broken else b"") + data
        if os.write(descriptor, data) != len(data):
            raise StoreUnavailableError(f"{self._path}: the disk is full")
        os.fsync(descriptor)
        if size == 0:
            sync_folders([self._path.parent])

    def _read(self) -> list[AnchorLine]:
        try:
            with disk(self._path):
                if self._path.stat().st_size > FILE_BYTES_MAX:
                    raise IntegrityError(f"{self._path} has more than {FILE_BYTES_MAX} bytes: begin another file")
                lines = self._path.read_text("utf-8", "replace").split("\n")
        except FileNotFoundError:
            return []
        try:
            return decode_lines(lines)
        except IntegrityError as error:
            raise IntegrityError(f"{self._path}: {error}") from None
