"""Groups under way to Kafka, kept in a file so that a killed process can't leave half of one in the log.

A group that ends a request goes to several partitions; `kill -9` between them would leave a cost without its COMMITTED.
So the group is written here before it is published. A write without fsync outlives the process (not the machine: then
the lease ends the hold). The next process claims the file like any spool and publishes its groups again; ids make what
was recorded already harmless. A file whose groups are all acknowledged is emptied, or removed once it has grown. What
neither Kafka nor the spool took whole stands here alone: its file is left, for this process to publish again.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from api.gateway.spool import (
    AHEAD,
    SUFFIX,
    Group,
    SpoolUnwritableError,
    encode_group,
    make_folder,
    make_locked,
    write_whole,
)

FILE_BYTES_MAX = 1024 * 1024


@dataclass(eq=False)
class AheadFile:
    """One file and how many of its groups are still under way."""

    path: Path
    descriptor: int
    size_bytes: int = 0
    open_groups: int = 0
    #: Whether a group of it was recorded nowhere else.
    is_left: bool = False


class Ahead:
    """The files of one process; nothing exists on disk before the first group."""

    def __init__(self, directory: Path, owner: str, bytes_max: int = FILE_BYTES_MAX) -> None:
        """`owner` names the process, uniquely among those that live; a file is left behind at `bytes_max`."""
        self._directory, self._bytes_max = directory, bytes_max
        self._current: AheadFile | None = None
        self._left: list[AheadFile] = []
        self._paths = (directory / f"{owner}{AHEAD}{serial:06d}{SUFFIX}" for serial in itertools.count(1))

    @property
    def has_left(self) -> bool:
        """Whether groups wait here to be published again."""
        return bool(self._left)

    def left(self) -> list[Path]:
        """Left files of which no group is under way any more, oldest first: publish them, then call `drained`."""
        return [file.path for file in self._left if not file.open_groups]

    def drained(self, path: Path) -> None:
        """Forget a left file whose groups are all recorded."""
        for file in [file for file in self._left if file.path == path]:
            self._left.remove(file)
            self._remove(file)

    def write(self, group: Group) -> AheadFile:
        """Keep a group; hand the file to `done` when it is recorded, else to `leave`.

        Raises SpoolUnwritableError, CodecError.
        """
        frame = encode_group(group)
        try:
            file = self._opened()
            write_whole(file.descriptor, frame, file.size_bytes)
        except OSError as error:
            raise SpoolUnwritableError(error) from error
        file.size_bytes += len(frame)
        file.open_groups += 1
        return file

    def done(self, file: AheadFile) -> None:
        """A group of the file is recorded elsewhere."""
        file.open_groups -= 1
        if file.open_groups or file.is_left:
            return
        if file is self._current and file.size_bytes < self._bytes_max:
            os.ftruncate(file.descriptor, 0)
            file.size_bytes = 0
        else:
            self._remove(file)

    def leave(self, file: AheadFile) -> None:
        """A group of the file was recorded nowhere else; no further group goes into it."""
        file.open_groups -= 1
        if not file.is_left:
            file.is_left = True
            self._left.append(file)
        if file is self._current:
            self._current = None

    def close(self) -> None:
        """Let go; files that are left or have groups under way stay, and are claimed by the next process."""
        for left in self._left:
            os.close(left.descriptor)
        file, self._current, self._left = self._current, None, []
        if file is not None and not file.open_groups:
            self._remove(file)
        elif file is not None:
            os.close(file.descriptor)

    def _opened(self) -> AheadFile:
        if self._current is None or self._current.size_bytes >= self._bytes_max:
            make_folder(self._directory)
            self._current = AheadFile(*make_locked(self._paths))
        return self._current

    def _remove(self, file: AheadFile) -> None:
        file.path.unlink(missing_ok=True)
        os.close(file.descriptor)
        if file is self._current:
            self._current = None
