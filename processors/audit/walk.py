"""Walks a log's entries in order and finds the first thing that is not as it must be, of each kind.

Trusts nothing but the entries' own bytes: positions, chains and offsets are derived again. The first difference of each
kind is kept, in words; a later one may only follow from it.
"""

from __future__ import annotations

from collections.abc import Callable

from processors.audit.entry import (
    KIND_HEADS,
    LOG_TENANT,
    MAGIC,
    NO_HEAD,
    Entry,
    EntryError,
    Head,
    Source,
    chain_hash,
    decode_entry,
)
from processors.audit.heads import HeadsTree
from processors.audit.kept import Kept, PartitionKey
from processors.audit.merkle import leaf_hash


class Differences:
    """The first difference of each kind."""

    def __init__(self) -> None:
        """None yet."""
        self.first: dict[str, str] = {}

    def add(self, kind: str, words: str) -> None:
        """Keep it, when it is the first of its kind."""
        self.first.setdefault(kind, words)


class EntryWalk:
    """Takes entries one after the other; knows every chain and every partition's position."""

    def __init__(self, differences: Differences, where: Callable[[int], str]) -> None:
        """Start before the first entry; `where` names the file or row that a position's bytes are from."""
        self._differences = differences
        self.where = where
        self.position = 0
        #: Tenant to the head its entries give.
        self.heads: dict[str, Head] = {}
        #: (topic, topic UUID, partition) to the offset after its last entry.
        self.next_offsets: dict[PartitionKey, int] = {}
        #: The heads' tree as of the last heads entry, and the tenants whose chains grew since.
        self.tree = HeadsTree()
        self._grown: set[str] = set()
        self._heads_micros = 0
        #: Whether the last entry may not be the last one under a checkpoint: that is one of heads since version 2.
        self.lacks_heads = False

    def begin_at(self, kept: Kept) -> None:
        """Go on before the first entry of a pruned log, from where its chains and partitions stood there.

        What stood there is shown by what follows: a chain that goes on is compared with its next entry, every other
        one with the next heads entry.
        """
        self.position = kept.minimum_index
        self.heads, self.next_offsets = dict(kept.heads), dict(kept.next_offsets)
        self._grown = set(kept.heads) - {LOG_TENANT}

    def kept_from_here(self, keep_days: int) -> Kept:
        """Where chains and partitions stand after the entries taken: what a log needs that is pruned up to here."""
        return Kept(self.position, keep_days, dict(self.heads), dict(self.next_offsets))

    def take(self, data: bytes) -> tuple[Entry | None, bytes, bytes]:
        """The entry (None when its bytes are none), its leaf hash, and the chain after it."""
        position, self.position = self.position, self.position + 1
        leaf = leaf_hash(data)
        try:
            entry = decode_entry(data)
        except EntryError as error:
            self._differences.add("entries", f"entry {position} ({self.where(position)}): {error}")
            return None, leaf, b""
        if entry.seq != position:
            self._differences.add(
                "entries", f"entry {position} ({self.where(position)}) says that it is entry {entry.seq}"
            )
        chain = chain_hash(entry.prev_chain, leaf)
        self._check_chain(position, entry, chain)
        is_own = entry.source.tenant_id == LOG_TENANT
        self.lacks_heads = not is_own and entry.magic == MAGIC
        if is_own:
            self._check_heads(position, entry.source)
        else:
            self._grown.add(entry.source.tenant_id)
            self._check_offset(position, entry)
        return entry, leaf, chain

    def _check_chain(self, position: int, entry: Entry, chain: bytes) -> None:
        tenant = entry.source.tenant_id
        head = self.heads.get(tenant, NO_HEAD)
        self.heads[tenant] = Head(entry.tseq, chain)
        if entry.tseq != head.tseq + 1:
            self._differences.add(
                "chains", f"entry {position}: {tenant} goes from its entry {head.tseq} to its entry {entry.tseq}"
            )
        if entry.prev_chain != head.chain:
            self._differences.add(
                "chains", f"entry {position}: does not continue the chain of {tenant} after its entry {head.tseq}"
            )

    def _check_heads(self, position: int, source: Source) -> None:
        self.tree.move({tenant: self.heads[tenant] for tenant in self._grown})
        self._grown.clear()
        if source.kind != KIND_HEADS or source.commitment != self.tree.commitment():
            self._differences.add(
                "tenants", f"entry {position}: does not commit to the chains of the {len(self.tree)} tenants before it"
            )
        if source.time_micros < self._heads_micros:
            self._differences.add("clock", f"entry {position}: its time is before that of the heads entry before it")
        self._heads_micros = source.time_micros

    def _check_offset(self, position: int, entry: Entry) -> None:
        source = entry.source
        key = (source.topic, source.topic_id, source.partition)
        expected = self.next_offsets.get(key, source.offset)
        self.next_offsets[key] = source.offset + 1
        if source.offset != expected:
            self._differences.add(
                "offsets",
                f"entry {position}: {source.topic}/{source.partition} goes on at {source.offset}, not {expected}",
            )
