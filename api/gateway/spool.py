"""The spool: terminal events of running requests, on disk, while Kafka is away.

One append-only file per process, locked for the process's life; a frame is a group of events that belong together.
Whoever gets the lock of a file without an owner drains it. Frame: length and CRC-32 of the payload (big-endian, four
bytes each), then the payload, MessagePack of [[topic, event], ...]. Events stand as values, not as records, so that
the schema registry is not needed to write them. A torn tail (the process died in mid-write; nobody was answered) ends
the reading; damage before the tail keeps the file aside under another name, never silently.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from schemas.errors import CodecError, QuaestorError
from schemas.events import EVENT_TYPES, Event
from schemas.limits import SPOOL_BYTES_MAX
from schemas.topics import TOPIC_BY_TYPE

log = structlog.get_logger(__name__)

FRAME = struct.Struct(">II")
SUFFIX = ".spool"
#: In the names of files that are written ahead of Kafka (ahead.py).
AHEAD = "-ahead-"
DAMAGED = ".damaged"
REFUSED = ".refused"
#: Groups that end holds which folds may have forgotten.
LATE = ".late"
FRAME_BYTES_MAX = 16 * 1024 * 1024
#: What there must be room for, so that a folder counts as writable: some dozens of groups.
TRIAL_BYTES = 256 * 1024
TRIAL = ".trial"
Group = Sequence[Event]


class SpoolFullError(QuaestorError):
    """The spool holds all it may; the event could not be kept."""


class SpoolUnwritableError(SpoolFullError):
    """The spool's folder can't be written; carries why, in the system's words."""

    def __init__(self, error: OSError) -> None:
        """For this fault."""
        self.reason = error.strerror or type(error).__name__
        super().__init__(f"the spool can't be written: {self.reason}")


def encode_group(group: Group) -> bytes:
    """A group as one frame; raises CodecError where a value is none that can be written."""
    try:
        payload = msgspec.msgpack.encode([(TOPIC_BY_TYPE[type(event)].name, event) for event in group])
    except (OverflowError, UnicodeEncodeError) as error:
        raise CodecError(f"an event can't be spooled: {type(error).__name__}") from error
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def decode_payload(payload: bytes) -> list[Event]:
    """The events of a frame's payload; raises msgspec.MsgspecError or KeyError on what is no group of events."""
    pairs = msgspec.msgpack.decode(payload, type=list[tuple[str, Any]])
    return [msgspec.convert(fields, EVENT_TYPES[topic]) for topic, fields in pairs]


@dataclass
class _File:
    path: Path
    descriptor: int
    size_bytes: int = 0


class Spool:
    """The files of one process. Nothing exists on disk before the first append."""

    def __init__(self, directory: Path, owner: str, bytes_max: int = SPOOL_BYTES_MAX) -> None:
        """`owner` names the process, uniquely among those that live."""
        self._directory, self._bytes_max = directory, bytes_max
        self._current: _File | None = None
        self._rotated: list[_File] = []
        self._paths = (directory / f"{owner}-{serial:06d}{SUFFIX}" for serial in itertools.count(1))
        self._unsynced: asyncio.Future[None] | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes waiting in the files of this process."""
        # Asked for by every request: with Kafka there, there is no file.
        waiting = self._current.size_bytes if self._current is not None else 0
        return waiting + sum([file.size_bytes for file in self._rotated]) if self._rotated else waiting

    async def append(self, group: Group) -> None:
        """Keep a group; returns when it is on disk. Raises SpoolFullError, SpoolUnwritableError, CodecError.

        Groups that come while the disk is busy share the next sync.
        """
        self._write(group)
        if self._unsynced is None:
            self._unsynced = asyncio.ensure_future(self._sync())
        await asyncio.shield(self._unsynced)

    def append_now(self, group: Group) -> None:
        """`append` without a loop, for a process that is being stopped; blocks. Raises SpoolFullError."""
        self._write(group)
        try:
            os.fsync(self._opened().descriptor)
        except OSError as error:
            raise SpoolUnwritableError(error) from error

    async def rotate(self) -> list[Path]:
        """The files to be drained now, oldest first; what is appended from here on goes to another file."""
        if self._unsynced is not None:
            await asyncio.wait([self._unsynced])
        if self._current is not None:
            self._rotated.append(self._current)
            self._current = None
        return [file.path for file in self._rotated]

    def drained(self, path: Path) -> None:
        """Forget a rotated file whose groups are all recorded."""
        for file in [file for file in self._rotated if file.path == path]:
            self._rotated.remove(file)
            path.unlink(missing_ok=True)
            os.close(file.descriptor)

    def close(self) -> None:
        """Let go of the locks; what is left is claimed by the next process."""
        for file in [*self._rotated, self._current] if self._current else self._rotated:
            os.close(file.descriptor)
        self._rotated, self._current = [], None

    async def _sync(self) -> None:
        await asyncio.sleep(0)
        # From here on a group needs the next sync; those before are in the file.
        self._unsynced = None
        descriptor = self._opened().descriptor
        try:
            await asyncio.get_running_loop().run_in_executor(None, os.fsync, descriptor)
        except OSError as error:
            raise SpoolUnwritableError(error) from error

    def _write(self, group: Group) -> None:
        frame = encode_group(group)
        if self.size_bytes + len(frame) > self._bytes_max:
            raise SpoolFullError(f"the spool holds its {self._bytes_max} bytes")
        try:
            file = self._opened()
            write_whole(file.descriptor, frame, file.size_bytes)
        except OSError as error:
            raise SpoolUnwritableError(error) from error
        file.size_bytes += len(frame)

    def _opened(self) -> _File:
        if self._current is None:
            make_folder(self._directory)
            file = _File(*make_locked(self._paths))
            _sync_directory(self._directory)
            self._current = file
        return self._current


def make_folder(directory: Path) -> None:
    """Make sure that it is there; raises OSError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # "File exists" would tell a person the opposite
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def make_locked(paths: Iterator[Path]) -> tuple[Path, int]:
    """Make and lock a file under the first of these names that can be ours alone; raises OSError.

    A process that looks for files without an owner may claim one between the two: what we wrote then would go with it.
    """
    while True:
        path = next(paths)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            if _is_ours(path, descriptor):
                return path, descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_ours(path: Path, descriptor: int) -> bool:
    """Lock a file; whether nobody else has claimed it, or drained it and taken it away."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def write_whole(descriptor: int, frame: bytes, size_bytes: int) -> None:
    """Append a frame to a file of this size, or leave the file as it is. Raises OSError."""
    if os.write(descriptor, frame) < len(frame):
        os.ftruncate(descriptor, size_bytes)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def try_folder(directory: Path, owner: str) -> None:
    """Whether groups can be kept there: write as much as some may need, and take it away. Raises SpoolUnwritableError.

    Blocks until the disk has it.
    """
    path = directory / f"{owner}{TRIAL}"
    try:
        make_folder(directory)
        with path.open("wb", buffering=0) as file:
            path.unlink()  # at once: whoever is killed here leaves nothing
            write_whole(file.fileno(), bytes(TRIAL_BYTES), 0)
            os.fsync(file.fileno())
    except OSError as error:
        raise SpoolUnwritableError(error) from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Claim:
    """A file whose owner is dead, now ours: drain it, then discard it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Made by `claims`."""
        self.path, self._descriptor = path, descriptor

    def groups(self) -> Iterator[list[Event]]:
        """Its groups, in order."""
        return read_groups(self.path)

    def discard(self) -> None:
        """All of it is recorded."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def release(self) -> None:
        """Give it back."""
        os.close(self._descriptor)


def claims(directory: Path) -> list[Claim]:
    """Every file that nobody holds, locked, oldest first."""
    found = []
    for path in sorted(directory.glob(f"*{SUFFIX}"), key=_age) if directory.is_dir() else ():
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        if path.exists():
            found.append(Claim(path, descriptor))
        else:
            os.close(descriptor)
    return found


def _age(path: Path) -> tuple[int, str]:
    try:
        return (path.stat().st_mtime_ns, path.name)
    except OSError:
        return (0, path.name)


def waiting_bytes(directory: Path) -> int:
    """Bytes that wait for Kafka in a directory, whoever owns them: of files that nobody owns, too.

    What a living process keeps ahead of Kafka while a group is under way does not wait.
    """
    return sum(_waiting(path) for path in directory.glob(f"*{SUFFIX}")) if directory.is_dir() else 0


def _waiting(path: Path) -> int:
    """Looked at, never claimed: a file gets its owner before its first byte, so an empty one is left alone."""
    try:
        size = path.stat().st_size
        if not size or AHEAD not in path.name:
            return size
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it has an owner, or it is gone
        return 0
    return size


def read_groups(path: Path) -> Iterator[list[Event]]:
    """The groups of a file up to its end or its torn tail; damage before the tail puts a copy aside and is logged."""
    with path.open("rb") as file:
        at = 0
        while True:
            head = file.read(FRAME.size)
            if len(head) < FRAME.size:
                return
            length, crc = FRAME.unpack(head)
            payload = file.read(length) if length <= FRAME_BYTES_MAX else b""
            if len(payload) < length or zlib.crc32(payload) != crc:
                _set_aside(path, at, torn=len(payload) < length <= FRAME_BYTES_MAX)
                return
            try:
                group = decode_payload(payload)
            except (msgspec.MsgspecError, KeyError):
                _set_aside(path, at, torn=False)
                return
            yield group
            at = file.tell()


def _set_aside(path: Path, offset: int, *, torn: bool) -> None:
    """A frame that can't be read: at the tail it was never answered for; elsewhere the rest is kept for a person."""
    size = path.stat().st_size
    log.warning("spool_torn" if torn else "spool_damaged", file=path.name, offset=offset, bytes=size - offset)
    if not torn:
        with path.open("rb") as file:
            file.seek(offset)
            path.with_suffix(DAMAGED).write_bytes(file.read())


def aside_files(directory: Path) -> list[Path]:
    """Files of groups that were put aside, for a person to look at."""
    return sorted(path for suffix in (DAMAGED, LATE, REFUSED) for path in directory.glob(f"*{suffix}"))


def keep_aside(directory: Path, owner: str, group: Group, suffix: str) -> None:
    """Put a group aside that may not enter the log, so that it does not block what follows it. Raises OSError."""
    with (directory / f"{owner}{suffix}").open("ab") as file:
        file.write(encode_group(group))
        file.flush()
        os.fsync(file.fileno())
