"""Builds receipts out of a log's own public files; the database only says which entries a request has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from processors.audit.entry import Entry, decode_entry
from processors.audit.merkle import NodeReader, inclusion_proof
from processors.audit.nodes import nodes_of_tiles, tiles_for
from processors.audit.proof_file import EXTENSION, ProofFile, write_proof
from processors.audit.tiles import BUNDLE_LEVEL, TILE_WIDTH, decode_bundle, tile_of_node
from processors.audit.trust import Trust
from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.audit.reader import LogSource, read_sound
from sinks.audit.store import EntryPlace

POLL_SECONDS = 0.25
#: Told how many of the request's entries are under the published checkpoint, and how many it has.
OnWait = Callable[[int, int], None]


@dataclass(frozen=True)
class BuiltReceipt:
    """A receipt and what to call it."""

    entry: Entry
    data: bytes

    @property
    def name(self) -> str:
        """A file name that sorts as the log does and says what the entry is."""
        source = self.entry.source
        words = [f"{self.entry.seq:012d}", source.topic.removeprefix("quaestor."), source.kind.lower()]
        return "-".join(word for word in words if word) + EXTENSION


async def published_past(
    log: LogSource, trust: Trust, places: Sequence[EntryPlace], wait_seconds: float, on_wait: OnWait
) -> tuple[str, int]:
    """The published checkpoint and its size, once it covers these entries.

    Waits so long at most; raises StoreUnavailableError when it still does not, NoteError when it is not signed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    while True:
        note = await log.checkpoint()
        size = 0 if note is None else trust.open(note).checkpoint.size
        covered = sum(place.seq < size for place in places)
        if note is not None and covered == len(places):
            return note, size
        on_wait(covered, len(places))
        if loop.time() >= deadline:
            raise StoreUnavailableError(
                f"{covered} of {len(places)} entries are under the published checkpoint ({size} entries) after "
                f"{wait_seconds:g} s: `quaestor status` shows how far the audit log is"
            )
        await asyncio.sleep(POLL_SECONDS)


async def build_receipts(log: LogSource, note: str, size: int, positions: Sequence[int]) -> list[BuiltReceipt]:
    """The receipts of these entries under a checkpoint of `size`; raises IntegrityError for files that are not there.

    Nothing is verified: whoever takes them does that.
    """

    def proofs(node: NodeReader) -> list[list[bytes]]:
        return [inclusion_proof(position, size, node) for position in positions]

    bundles = {position: tile_of_node(0, position, size)[0]._replace(level=BUNDLE_LEVEL) for position in positions}
    tiles = await read_sound(log, [*tiles_for(size, proofs), *dict.fromkeys(bundles.values())])
    return [
        _built(position, tiles[bundles[position]], path, note)
        for position, path in zip(positions, proofs(nodes_of_tiles(size, tiles)), strict=True)
    ]


def _built(position: int, bundle: bytes, path: list[bytes], note: str) -> BuiltReceipt:
    try:
        data = decode_bundle(bundle)[position % TILE_WIDTH]
    except (ValueError, IndexError):
        raise IntegrityError(f"the bundle of entry {position} is damaged; run `quaestor audit verify`") from None
    return BuiltReceipt(decode_entry(data), write_proof(ProofFile(position, tuple(path), note, data)))
