"""The log's public files: written to a temporary name, synced, renamed, and the folder synced; never half there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from processors.audit.edge import TileFile
from processors.audit.kept import EVERYTHING, Kept, encode_kept, parse_kept
from processors.audit.key_chain import HAND_OVERS_MAX
from processors.audit.merkle import HASH_BYTES, NodeReader
from processors.audit.note import NOTE_BYTES_MAX
from processors.audit.tiles import (
    BUNDLE_LEVEL,
    ENTRY_BYTES_MAX,
    TILE_WIDTH,
    TileId,
    cut_tile,
    level_size,
    levels_of,
    subtree_hash,
    tile_of_node,
)
from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.audit.layout import Probe, no_probe

CHECKPOINT = "checkpoint"
#: The folder of the hand-overs of the log's keys.
HAND_OVERS = "keys"
#: What a pruned log has instead of its first entries (processors/audit/kept.py).
MINIMUM_INDEX = "minimum-index"
#: No file of a log is larger; one that is was not written by a log, and is not read.
KEPT_BYTES_MAX = 64 * 1024 * 1024
TILE_BYTES_MAX = TILE_WIDTH * HASH_BYTES
BUNDLE_BYTES_MAX = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Tell a disk that fails (full, read-only, gone) as StoreUnavailableError: nothing is lost, it is tried again."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreUnavailableError(f"{path}: {error.strerror or error}") from error


def write_durable(path: Path, data: bytes, probe: Probe = no_probe, mode: int = 0o666) -> None:
    """Put a file in place, whole and durable, but for its folder's own entry (`sync_folders`).

    `mode` is what the process's own mask leaves of it.
    """
    # A sequencer that was replaced without knowing it may be writing the same file: each has a draft of its own.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    probe(f"write {path.name}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    probe(f"rename {path.name}")
    temporary.replace(path)
    probe(f"renamed {path.name}")


def sync_folders(folders: Iterable[Path]) -> None:
    """Make renames and new files in these folders durable."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class LogFiles:
    """Checkpoint, tiles and bundles of one log under its directory. Every call blocks on the disk."""

    def __init__(self, directory: Path, probe: Probe = no_probe) -> None:
        """Nothing is touched before it is needed."""
        self.directory = directory
        self._probe = probe

    def read(self, tile: TileId) -> bytes:
        """A tile's or bundle's bytes, cut from the full one when the partial one is gone; raises IntegrityError."""
        try:
            with disk(self.directory):
                return read_bounded(self.directory / tile.path, tile_bytes_max(tile), tile.path)
        except FileNotFoundError:
            if tile.width == TILE_WIDTH:
                raise IntegrityError(f"{tile.path} is missing") from None
        return cut_tile(tile, self.read(tile._replace(width=TILE_WIDTH)))

    def nodes(self, size: int) -> NodeReader:
        """Reads the complete subtrees of the first `size` entries; the reader raises as `read` does."""

        def node(level: int, index: int) -> bytes:
            tile, first, height = tile_of_node(level, index, size)
            return subtree_hash(self.read(tile), first, height)

        return node

    def write(self, files: Sequence[TileFile], signed_size: int) -> None:
        """Make these files durable. What is there already with the same bytes stays.

        Raises StoreUnavailableError, and IntegrityError when other bytes lie where a signed checkpoint covers them;
        what no checkpoint covers is a leftover and is replaced.
        """
        folders: dict[Path, None] = {}
        with disk(self.directory):
            for tile, data in files:
                path = self.directory / tile.path
                if self._is_there(tile, path, data, signed_size):
                    continue
                self._make_folder(path.parent, folders)
                write_durable(path, data, self._probe)
                folders[path.parent] = None
            sync_folders(reversed(folders))
        self._probe("tiles durable")

    def _is_there(self, tile: TileId, path: Path, data: bytes, signed_size: int) -> bool:
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            return False
        if found != data and tile.end_index <= signed_size:
            raise IntegrityError(f"{tile.path} differs from the entries it covers, and a signed checkpoint covers it")
        return found == data

    def _make_folder(self, folder: Path, folders: dict[Path, None]) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent, folders)
        folder.mkdir(exist_ok=True)
        folders[folder.parent] = None

    def checkpoint(self) -> str | None:
        """The published checkpoint, or None before the first; raises StoreUnavailableError."""
        return read_note(self.directory / CHECKPOINT)

    def hand_over(self, number: int) -> str | None:
        """A hand-over of the log's key, or None when there is none of this number; raises StoreUnavailableError."""
        return read_note(self.directory / HAND_OVERS / str(number))

    def hand_overs(self) -> list[str]:
        """Every hand-over of the log's keys, in order; raises StoreUnavailableError."""
        notes = takewhile(bool, map(self.hand_over, range(1, HAND_OVERS_MAX + 1)))
        return [note for note in notes if note]

    def publish(self, note: str) -> None:
        """Replace the published checkpoint; raises StoreUnavailableError."""
        with disk(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            write_durable(self.directory / CHECKPOINT, note.encode("utf-8"), self._probe)
            sync_folders([self.directory, self.directory.parent])

    def kept(self) -> Kept:
        """What the log still has; raises IntegrityError for a file that can't be read, StoreUnavailableError."""
        data = self.minimum_index()
        return EVERYTHING if data is None else parse_kept(data)

    def minimum_index(self) -> bytes | None:
        """What the log says that it still has, as it lies there; None for a log that was never cut.

        Raises IntegrityError when it is too large, StoreUnavailableError.
        """
        path = self.directory / MINIMUM_INDEX
        try:
            with disk(path):
                return read_bounded(path, KEPT_BYTES_MAX, path.name)
        except FileNotFoundError:
            return None

    def publish_kept(self, kept: Kept) -> None:
        """Replace what the log says that it still has; raises StoreUnavailableError."""
        with disk(self.directory):
            write_durable(self.directory / MINIMUM_INDEX, encode_kept(kept), self._probe)
            sync_folders([self.directory])
        self._probe("minimum index published")

    def bundle_bytes(self, number: int) -> int:
        """Size of a full bundle's file; 0 when it is not there. Raises StoreUnavailableError."""
        path = self.directory / TileId(BUNDLE_LEVEL, number, TILE_WIDTH).path
        try:
            with disk(path):
                return path.stat().st_size
        except FileNotFoundError:
            return 0

    def drop_bundle(self, number: int) -> None:
        """Delete a full bundle, if it is there; raises StoreUnavailableError."""
        path = self.directory / TileId(BUNDLE_LEVEL, number, TILE_WIDTH).path
        self._probe("drop bundle")
        with disk(path):
            path.unlink(missing_ok=True)
        self._probe("dropped bundle")

    def collect(self, old_size: int, new_size: int) -> None:
        """Delete the partial files of tiles that became full between two sizes; a failure only leaves them."""
        for level in (BUNDLE_LEVEL, *levels_of(new_size)):
            for number in range(level_size(level, old_size) // TILE_WIDTH, level_size(level, new_size) // TILE_WIDTH):
                partial = self.directory / f"{TileId(level, number, TILE_WIDTH).path}.p"
                shutil.rmtree(partial, ignore_errors=True)


def tile_bytes_max(tile: TileId) -> int:
    """How many bytes a tile or bundle may have."""
    return BUNDLE_BYTES_MAX if tile.level == BUNDLE_LEVEL else TILE_BYTES_MAX


def read_bounded(path: Path, bytes_max: int, name: str) -> bytes:
    """A file's bytes; raises IntegrityError, and reads nothing, when it has more than it may. Raises OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > bytes_max:
            raise IntegrityError(f"{name} has more than {bytes_max} bytes")
        return file.read(size)


def read_note(path: Path) -> str | None:
    """A signed note from a file, None when there is none; raises StoreUnavailableError and IntegrityError."""
    try:
        with disk(path):
            data = read_bounded(path, NOTE_BYTES_MAX, path.name)
    except FileNotFoundError:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise IntegrityError(f"{path.name} is not text") from None
