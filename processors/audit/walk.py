"""Walks a log's entries in order and finds the first thing that is not as it must be, of each kind.

Trusts nothing but the entries' own bytes: positions, chains and offsets are derived again. The first difference of each
kind is kept, in words; a later one may only follow from it.
"""

from __future__ import annotations

from processors.audit.entry import KIND_HEADS, LOG_TENANT, NO_HEAD, Head
from processors.audit.heads import HeadsTree
from processors.audit.kept import Kept, PartitionKey
from processors.audit.segment import (
    Claim,
    Difference,
    Segment,
    chain_differences,
    offset_difference,
    version_difference,
)


class Differences:
    """The first difference of each kind."""

    def __init__(self) -> None:
        """None yet."""
        self.first: dict[str, str] = {}

    def add(self, kind: str, words: str) -> None:
        """Keep it, when it is the first of its kind."""
        self.first.setdefault(kind, words)


class EntryWalk:
    """Joins runs of entries, one after the other; knows every chain and every partition's position."""

    def __init__(self, differences: Differences) -> None:
        """Start before the first entry."""
        self._differences = differences
        self.position = 0
        #: Tenant to the head its entries give.
        self.heads: dict[str, Head] = {}
        #: (topic, topic UUID, partition) to the offset after its last entry.
        self.next_offsets: dict[PartitionKey, int] = {}
        #: The heads' tree as of the last heads entry, and the tenants whose chains grew since.
        self.tree = HeadsTree()
        self._grown: dict[str, Head] = {}
        self._heads_micros = 0
        #: Whether the last entry may not be the last one under a checkpoint: that is one of heads since version 2.
        self.lacks_heads = False
        #: Whether an entry says that retention cut this log.
        self.tells_of_cut = False
        #: Whether an entry was of today's version: none of an earlier one follows.
        self._is_salted = False

    def begin_at(self, kept: Kept) -> None:
        """Go on before the first entry of a pruned log, from where its chains and partitions stood there.

        What stood there is shown by what follows: a chain that goes on is compared with its next entry, every other
        one with the next heads entry.
        """
        self.position = kept.minimum_index
        self.heads, self.next_offsets = dict(kept.heads), dict(kept.next_offsets)
        self._grown = {tenant: head for tenant, head in kept.heads.items() if tenant != LOG_TENANT}

    def kept_from_here(self, keep_days: int) -> Kept:
        """Where chains and partitions stand after the entries taken: what a log needs that is pruned up to here."""
        return Kept(self.position, keep_days, dict(self.heads), dict(self.next_offsets))

    def join(self, segment: Segment) -> None:
        """Take the run that begins where the last one ended; raises ValueError for another."""
        if segment.first != self.position:
            raise ValueError(f"the walk is at {self.position}, the run begins at {segment.first}")
        found = [*segment.found, *self._chains(segment), *self._offsets(segment), *self._claims(segment)]
        if self._is_salted and segment.unsalted is not None:
            found.append(version_difference(segment.unsalted))
        for each in sorted(found, key=lambda difference: difference.position):
            self._differences.add(each.kind, each.words)
        self.heads |= segment.heads
        self.next_offsets |= segment.next_offsets
        self.position += segment.count
        self.tells_of_cut = self.tells_of_cut or segment.tells_of_cut
        self._is_salted = self._is_salted or segment.is_salted
        if segment.count:
            self.lacks_heads = segment.lacks_heads

    def _chains(self, segment: Segment) -> list[Difference]:
        found: list[Difference] = []
        for tenant, (position, tseq, prev_chain) in segment.starts.items():
            head = self.heads.get(tenant, NO_HEAD)
            found += chain_differences(position, tenant, head, tseq, prev_chain)
        return found

    def _offsets(self, segment: Segment) -> list[Difference]:
        return [
            offset_difference(position, key, offset, self.next_offsets[key])
            for key, (position, offset) in segment.offsets.items()
            if self.next_offsets.get(key, offset) != offset
        ]

    def _claims(self, segment: Segment) -> list[Difference]:
        found: list[Difference] = []
        for claim in segment.claims:
            self.tree.move(self._grown | claim.grown)
            self._grown = {}
            found += self._claim_differences(claim)
            self._heads_micros = claim.time_micros
        self._grown |= segment.grown
        return found

    def _claim_differences(self, claim: Claim) -> list[Difference]:
        found: list[Difference] = []
        position = claim.position
        if claim.kind != KIND_HEADS or claim.commitment != self.tree.commitment():
            words = f"entry {position}: does not commit to the chains of the {len(self.tree)} tenants before it"
            found.append(Difference(position, "tenants", words))
        if claim.time_micros < self._heads_micros:
            words = f"entry {position}: its time is before that of the heads entry before it"
            found.append(Difference(position, "clock", words))
        return found
