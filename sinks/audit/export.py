"""Makes a tenant's bundle out of a log's public files, in one pass; the database is not asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from processors.audit.commitment import Salts
from processors.audit.entry import LOG_TENANT, Head, chain_hash, decode_entry, tenant_bytes
from processors.audit.export import Export, verify_export, write_end, write_entry, write_start
from processors.audit.heads import HeadsTree
from processors.audit.merkle import NodeReader, leaf_hash
from processors.audit.nodes import nodes_of_tiles, tiles_for
from processors.audit.segment import read_bundles
from processors.audit.trust import Trust
from schemas.errors import IntegrityError
from sinks.audit.keys import OWNER_ONLY
from sinks.audit.log_walk import OnProgress, bundles, chunks
from sinks.audit.reader import LogSource, read_sound


async def export_tenant(
    log: LogSource, trust: Trust, tenant_id: str, path: Path, salts: Salts | None, on_progress: OnProgress
) -> Export | None:
    """Write the bundle of a tenant under the published checkpoint; None, and no file, when it has no entry.

    The file stands there only once it has been checked as the tenant will; with salts it is for its owner alone. Raises
    IntegrityError for a log that does not give it, NoteError for a checkpoint that is not signed,
    StoreUnavailableError.
    """
    note = await log.checkpoint()
    if note is None:
        return None
    size = trust.open(note).checkpoint.size
    gone = (await log.kept()).minimum_index
    if gone:
        raise IntegrityError(f"the entries below {gone} are gone by retention: no bundle can hold all of a tenant's")
    draft = path.with_name(f".{path.name}.tmp")
    try:
        # Salts are for who may see the records.
        mode = 0o666 if salts is None else OWNER_ONLY
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(write_start(note, tenant_id, has_salts=salts is not None))
            found = await _Exporting(log, tenant_id, size, salts, file).run(on_progress)
        if not found:
            return None
        with draft.open("rb") as file:
            checked = await asyncio.to_thread(verify_export, file.read, trust)
        draft.replace(path)
        return checked
    finally:
        draft.unlink(missing_ok=True)


class _Exporting:
    """One bundle being written."""

    def __init__(self, log: LogSource, tenant_id: str, size: int, salts: Salts | None, file: BinaryIO) -> None:
        self._log, self._tenant_id, self._size, self._salts, self._file = log, tenant_id, size, salts, file
        #: Each tenant's last entry.
        self._last: dict[bytes, bytes] = {}
        #: One past the last entry written.
        self._written = 0

    async def run(self, on_progress: OnProgress) -> bool:
        """Write every entry and the end; False when the tenant has none."""
        for first, end in chunks(0, self._size):
            tiles = bundles(first, end, self._size)
            entries, found = read_bundles(tiles, await self._log.read(tiles), first, end, {})
            if found:
                raise IntegrityError(found[0].words)
            await self._take(first, entries)
            on_progress(end, self._size)
        tree, heads = HeadsTree(), dict(map(_head, self._last.values()))
        heads.pop(LOG_TENANT, None)
        tree.move(heads)
        proof = tree.proof(self._tenant_id)
        if proof is None:
            return False
        self._file.write(write_end(heads[self._tenant_id], proof))
        return True

    async def _take(self, first: int, entries: Sequence[bytes]) -> None:
        wanted = self._tenant_id.encode()
        chosen: list[tuple[int, bytes]] = []
        for position, data in enumerate(entries, first):
            tenant = tenant_bytes(data)
            self._last[tenant] = data
            if tenant == wanted or position == self._size - 1:
                chosen.append((position, data))
        if chosen:
            make = partial(self._pieces, chosen)
            tiles = await read_sound(self._log, tiles_for(self._size, make))
            pieces = await asyncio.to_thread(make, nodes_of_tiles(self._size, tiles))
            self._file.writelines(pieces)
            self._written = chosen[-1][0] + 1

    def _pieces(self, chosen: Sequence[tuple[int, bytes]], node: NodeReader) -> list[bytes]:
        pieces, first = [], self._written
        for position, data in chosen:
            pieces.append(write_entry(first, position, data, self._salt(position, data), node))
            first = position + 1
        return pieces

    def _salt(self, position: int, data: bytes) -> bytes:
        if self._salts is None or position == self._size - 1:
            return b""
        source = decode_entry(data).source
        return self._salts.salt(source.tenant_id, source.topic_id, source.partition, source.offset)


def _head(data: bytes) -> tuple[str, Head]:
    """A tenant, and where its chain stands after its last entry."""
    entry = decode_entry(data)
    return entry.source.tenant_id, Head(entry.tseq, chain_hash(entry.prev_chain, leaf_hash(data)))
