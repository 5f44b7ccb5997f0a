"""What the audit log proves of one record that somebody tells: the mark on each step of `quaestor why`.

`verified`: the entry at the index names the record's place, event and request, is included under the signed root, and
    says of the record, commitment to its bytes and all, what the record in Kafka says of itself.
`included`: the same without the record's bytes (not at hand, an entry of version 1, or no salt secret).
`pending`: not sequenced yet, or not yet under a published checkpoint.
`unchecked`: sequenced, but the log's key is not here to check anything with.
`gone`: retention cut the log behind it; a receipt of before still verifies.
`mismatch`: something differs; the detail says what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from processors.audit.checkpoint import Checkpoint
from processors.audit.commitment import Salts
from processors.audit.entry import MAGIC, Entry, EntryError, Source, decode_entry
from processors.audit.merkle import leaf_hash
from processors.audit.sources import Place, source_of, undecodable
from processors.audit.verify_rfc9162 import verify_inclusion


class MarkState(StrEnum):
    """How far a record is proven."""

    VERIFIED = "verified"
    INCLUDED = "included"
    PENDING = "pending"
    UNCHECKED = "unchecked"
    GONE = "gone"
    MISMATCH = "mismatch"


@dataclass(frozen=True)
class Mark:
    """The mark of one record."""

    state: MarkState
    #: Its position in the log, None before it is sequenced.
    index: int | None = None
    #: What differs, or why no more is proven.
    detail: str = ""


class Claim(NamedTuple):
    """What is told of a record: where it lies in Kafka, and whose it is."""

    topic: str
    partition: int
    offset: int
    event_id: str
    request_id: str


class Seen(NamedTuple):
    """A record as Kafka has it."""

    timestamp_millis: int
    value: bytes | None
    #: None when it can't be decoded.
    fields: Mapping[str, Any] | None


class Included(NamedTuple):
    """An entry's bytes as the log's files have them, and the proof that they are under the root."""

    entry: bytes
    proof: Sequence[bytes]


def mark_of(
    claim: Claim, index: int, found: Included, checkpoint: Checkpoint, seen: Seen | None, salts: Salts | None
) -> Mark:
    """The mark of a record whose entry is under the checkpoint."""
    try:
        entry = decode_entry(found.entry)
    except EntryError as error:
        return _mismatch(index, str(error))
    wrong = _first_wrong(claim, index, entry)
    if wrong is not None:
        return _mismatch(index, wrong)
    if not verify_inclusion(index, checkpoint.size, leaf_hash(found.entry), found.proof, checkpoint.root):
        return _mismatch(index, f"entry {index} is not the one under the signed root")
    if seen is None:
        return Mark(MarkState.INCLUDED, index, "the record's bytes could not be read from Kafka")
    if salts is None or entry.magic != MAGIC:
        return Mark(MarkState.INCLUDED, index, "the commitment to the record's bytes can't be opened here")
    said = source_in_kafka(entry.source, seen, salts)
    if said != entry.source:
        return _mismatch(index, _difference(entry.source, said))
    return Mark(MarkState.VERIFIED, index)


def source_in_kafka(entered: Source, seen: Seen, salts: Salts) -> Source:
    """What an entry of the record would say if it were made from what Kafka has now."""
    place = Place(entered.topic, entered.topic_id, entered.partition, entered.offset, seen.timestamp_millis, seen.value)
    return undecodable(place, salts) if seen.fields is None else source_of(seen.fields, place, salts)


def _first_wrong(claim: Claim, index: int, entry: Entry) -> str | None:
    source = entry.source
    if entry.seq != index:
        return f"entry {index} says that it is entry {entry.seq}"
    if (source.topic, source.partition, source.offset) != claim[:3]:
        return f"entry {index} is of {source.topic}/{source.partition}@{source.offset}"
    if source.event_id != claim.event_id:
        return f"entry {index} is of event {source.event_id or '(none)'}"
    if source.request_id != claim.request_id:
        return f"entry {index} is of request {source.request_id or '(none)'}"
    return None


def _difference(entered: Source, said: Source) -> str:
    name = next(name for name in Source._fields if getattr(entered, name) != getattr(said, name))
    return f"{name} in Kafka is not what was entered: the record was changed, or the entry"


def _mismatch(index: int, detail: str) -> Mark:
    return Mark(MarkState.MISMATCH, index, detail)
