"""Whether what anchors keep is what the log still says: this is what finds a rewritten log."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

from processors.audit.checkpoint import Checkpoint
from processors.audit.key_chain import KeyChain
from processors.audit.merkle import EMPTY_ROOT, consistency_proof
from processors.audit.note import NoteError
from processors.audit.tiles import subtree_hash, tile_of_node
from processors.audit.verify_inner_border import verify_consistency
from processors.parity.checks import Check
from schemas.errors import IntegrityError
from sinks.audit.anchors.seam import Anchor, Anchored
from sinks.audit.anchors.state import AnchorState
from sinks.audit.files import LogFiles


async def check_anchor(
    anchor: Anchor, state: AnchorState, files: LogFiles, keys: KeyChain, published: Callable[[], Checkpoint]
) -> Check:
    """Compare everything an anchor keeps with the log under its published checkpoint, the smallest first.

    Raises StoreUnavailableError when it can't look. `state` is what the keeper remembers: an anchor must not have less.
    """
    try:
        kept = await anchor.kept()
    except (IntegrityError, NoteError) as error:
        return _check(anchor, 0, 0, str(error))
    signed = await asyncio.to_thread(published)  # after the anchor was read: the log goes on meanwhile
    for done, each in enumerate(kept):
        words = await asyncio.to_thread(_difference, each, files, keys, signed)
        if words is not None:
            return _check(anchor, len(kept), done, words)
    last = kept[-1].checkpoint.size if kept else 0
    if last < state.size:
        return _check(
            anchor, len(kept), len(kept), f"it took {state.size} entries and has only {last}: who removed it?"
        )
    return _check(anchor, len(kept), len(kept), None)


def _check(anchor: Anchor, kept: int, sound: int, words: str | None) -> Check:
    return Check(f"anchor {anchor.name}", words is None, kept, sound, words)


def _difference(each: Anchored, files: LogFiles, keys: KeyChain, signed: Checkpoint) -> str | None:
    try:
        old = keys.open_checkpoint(each.note)
    except NoteError as error:
        return f"an anchored checkpoint is not this log's: {error}"
    if old.size > signed.size:
        return f"{old.size} entries were anchored, the log has {signed.size}: the rest was taken away"
    if old.size == 0:
        return None if old.root == EMPTY_ROOT else "the anchored root of no entries is not that of no entries"
    try:
        proof = consistency_proof(old.size, signed.size, lambda level, index: _node(files, level, index, signed.size))
    except IntegrityError as error:
        return f"at {old.size} entries: {error}"
    if not verify_consistency(old.size, signed.size, proof, old.root, signed.root):
        root = base64.b64encode(old.root).decode("ascii")
        return f"at {old.size} entries the root {root} was anchored, the log does not lead there: it was rewritten"
    return None


def _node(files: LogFiles, level: int, index: int, size: int) -> bytes:
    tile, first, height = tile_of_node(level, index, size)
    data = files.read(tile)
    if len(data) != tile.width * len(EMPTY_ROOT):
        raise IntegrityError(f"{tile.path} has {len(data)} bytes")
    return subtree_hash(data, first, height)
