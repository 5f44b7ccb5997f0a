"""Marks on a request's records: where each stands in the log, and what the log proves of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from processors.audit.checkpoint import Checkpoint
from processors.audit.commitment import Salts
from processors.audit.kept import Kept
from processors.audit.key_chain import KeyChain
from processors.audit.marks import Claim, Mark, MarkState, Seen, mark_of
from processors.audit.merkle import EMPTY_ROOT
from processors.audit.note import NoteError
from schemas.errors import IntegrityError
from sinks.audit.files import LogFiles
from sinks.audit.store import AuditStore, EntryPlace
from sinks.audit.tree import PublishedTree
from streams.log import Partition
from streams.pick import At

#: Before the first checkpoint.
NOTHING = Checkpoint("", 0, EMPTY_ROOT)


class Standing(NamedTuple):
    """Where a request's records stand in the log, sequenced or not."""

    #: Read before the places: a record below its cursor that has no place has no entry at all.
    cursors: Mapping[Partition, int]
    places: Mapping[At, EntryPlace]


class Marker:
    """Marks records of one log."""

    def __init__(self, store: AuditStore, files: LogFiles, keys: KeyChain | None, salts: Salts | None = None) -> None:
        """Over an open store. Without the log's keys nothing can be checked, without salts no commitment."""
        self._store = store
        self._files = files
        self._keys = keys
        self._salts = salts

    async def standing(self, request_id: str) -> Standing:
        """Where the records of a request stand; raises StoreUnavailableError."""
        cursors = await self._store.cursors()
        places = await self._store.of_request(request_id)
        return Standing(cursors, {(Partition(each.topic, each.partition), each.offset): each for each in places})

    async def marks(self, claims: Sequence[Claim], standing: Standing, seen: Mapping[At, Seen]) -> list[Mark]:
        """The mark of each record of one request, in order; `seen` holds what Kafka has of them, as far as known."""
        return await asyncio.to_thread(self._marks, claims, standing, seen)

    def _marks(self, claims: Sequence[Claim], standing: Standing, seen: Mapping[At, Seen]) -> list[Mark]:
        if self._keys is None:
            return [_unchecked(standing.places.get(_at(claim))) for claim in claims]
        note = self._files.checkpoint()
        try:
            checkpoint = NOTHING if note is None else self._keys.open_checkpoint(note)
            kept = self._files.kept()
        except (NoteError, IntegrityError) as error:
            return [Mark(MarkState.MISMATCH, None, f"the published checkpoint: {error}") for _ in claims]
        tree = PublishedTree(self._files, checkpoint)
        return [
            _gone(claim, kept, standing) or self._mark(claim, tree, standing, seen.get(_at(claim))) for claim in claims
        ]

    def _mark(self, claim: Claim, tree: PublishedTree, standing: Standing, seen: Seen | None) -> Mark:
        place = standing.places.get(_at(claim))
        if place is None and standing.cursors.get(Partition(claim.topic, claim.partition), 0) > claim.offset:
            return Mark(MarkState.MISMATCH, None, "the audit log has passed this record and has no entry of it")
        if place is None or place.seq >= tree.checkpoint.size:
            return _pending(place)
        try:
            found = tree.included(place.seq)
        except IntegrityError as error:
            return Mark(MarkState.MISMATCH, place.seq, str(error))
        return mark_of(claim, place.seq, found, tree.checkpoint, seen, self._salts)


def _gone(claim: Claim, kept: Kept, standing: Standing) -> Mark | None:
    place = standing.places.get(_at(claim))
    # The row alone is not believed: a changed position would make a mismatch look like retention.
    if not kept.gave_up(*claim[:3]) or (place is not None and place.seq >= kept.minimum_index):
        return None
    index = None if place is None else place.seq
    return Mark(MarkState.GONE, index, f"retention gave up the entries below {kept.minimum_index}")


def _at(claim: Claim) -> At:
    return Partition(claim.topic, claim.partition), claim.offset


def _pending(place: EntryPlace | None) -> Mark:
    if place is None:
        return Mark(MarkState.PENDING, None, "not sequenced yet")
    return Mark(MarkState.PENDING, place.seq, "not under a published checkpoint yet")


def _unchecked(place: EntryPlace | None) -> Mark:
    return Mark(MarkState.UNCHECKED, place.seq if place else None, "the log's key is not here")
