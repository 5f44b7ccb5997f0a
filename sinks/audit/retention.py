"""Retention of the audit log: how far it may be cut, and the cut itself, each step of which may be done again.

The order is fixed: the cut is an entry of the log and published (api/retention), then the minimum index is public, then
bundles go, then rows. Hash tiles stay, so receipts and proofs of what is gone go on verifying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from processors.audit.cutting import CutPlan, Cutter
from processors.audit.entry import decode_entry
from processors.audit.kept import Kept
from processors.audit.segment import bundle_of, read_entries
from processors.audit.tiles import BUNDLE_LEVEL, TILE_WIDTH, TileId, decode_bundle
from processors.audit.walk import Differences, EntryWalk
from processors.control.kept import LegalHold
from schemas.errors import IntegrityError
from schemas.limits import RETENTION_BLOCK_ENTRIES
from sinks.audit.files import LogFiles

#: Called with (done, in all).
OnProgress = Callable[[int, int], None]


class EntryRows(Protocol):
    """Rows of entries, in table partitions."""

    async def drop_entries(self, below: int) -> int:
        """Drop every table partition whose entries are all below this position; returns how many went.

        What shares a partition with later entries, or with those of another log, stays. Raises IntegrityError when the
        log does not go beyond `below`, StoreUnavailableError; to be asked again then.
        """


class Gone(NamedTuple):
    """What a cut dropped."""

    bundles: int
    table_partitions: int


def plan_cut(
    files: LogFiles,
    size: int,
    before_micros: int,
    holds: Iterable[LegalHold],
    block_entries: int = RETENTION_BLOCK_ENTRIES,
) -> CutPlan:
    """How far a log of `size` published entries may be cut; reads its entries up to the first that must stay.

    Blocks. Raises IntegrityError when they can't be read, StoreUnavailableError.
    """
    begin = files.kept().minimum_index
    cutter = Cutter(begin, size, before_micros, holds, block_entries)
    bundles = range(begin // TILE_WIDTH, size // TILE_WIDTH)
    for entry in (entry for number in bundles for entry in _bundle(files, number)):
        if cutter.plan is not None:
            break
        cutter.take(decode_entry(entry).source)
    if cutter.plan is None:
        raise IntegrityError(f"the log ends before its {size} entries")
    return cutter.plan


def bundle_bytes(files: LogFiles, begin: int, end: int) -> int:
    """What the bundles of entries [begin, end) take on the disk. Blocks."""
    return sum(files.bundle_bytes(number) for number in range(begin // TILE_WIDTH, end // TILE_WIDTH))


async def carry_out(
    files: LogFiles,
    rows: EntryRows,
    begin: int,
    end: int,
    keep_days: int,
    on_progress: OnProgress = lambda _done, _total: None,
) -> Gone:
    """Cut a log from `begin` to `end`, or finish that. Both stand in the log's own entry of it, which is published.

    Raises IntegrityError when the entries are not what their hashes say: nothing is dropped then. Raises
    StoreUnavailableError; what is done stays done.
    """
    await asyncio.to_thread(_publish_kept, files, end, keep_days)
    gone = await asyncio.to_thread(_drop_bundles, files, begin, end, on_progress)
    return Gone(gone, await rows.drop_entries(end))


def _publish_kept(files: LogFiles, end: int, keep_days: int) -> None:
    kept = files.kept()
    if kept.minimum_index < end:
        files.publish_kept(_kept_at(files, kept, end, keep_days))


def _kept_at(files: LogFiles, kept: Kept, end: int, keep_days: int) -> Kept:
    """Where chains and partitions stand before `end`, from entries that are what their hashes say."""
    differences = Differences()
    walk = EntryWalk(differences)
    walk.begin_at(kept)
    for number in range(kept.minimum_index // TILE_WIDTH, end // TILE_WIDTH):
        segment = read_entries(walk.position, list(_bundle(files, number)), bundle_of)
        walk.join(segment)
        if segment.leaves != files.read(TileId(0, number, TILE_WIDTH)):
            differences.add("entries", f"bundle {number} is not what its hashes say")
        for words in differences.first.values():
            raise IntegrityError(f"{words}: nothing was dropped; run `quaestor audit verify`")
    return walk.kept_from_here(keep_days)


def _drop_bundles(files: LogFiles, begin: int, end: int, on_progress: OnProgress) -> int:
    numbers = range(begin // TILE_WIDTH, end // TILE_WIDTH)
    for done, number in enumerate(numbers, 1):
        files.drop_bundle(number)
        on_progress(done, len(numbers))
    return len(numbers)


def _bundle(files: LogFiles, number: int) -> Iterator[bytes]:
    try:
        yield from decode_bundle(files.read(TileId(BUNDLE_LEVEL, number, TILE_WIDTH)))
    except ValueError as error:
        raise IntegrityError(f"bundle {number}: {error}") from error
