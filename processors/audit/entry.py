"""The bytes of an audit entry, version 2, and the chain that runs through one tenant's entries.

An entry commits to a Kafka record (topic UUID, partition, offset, salted SHA-256 of its value bytes) and carries a few
public fields. Its place in the log (`seq`), in its tenant's chain (`tseq`, from 1) and the chain before it
(`prev_chain`) stand inside, so the tree commits to the chain and both agree or verification fails.
docs/reference/audit-format.md has the table.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from schemas.errors import IntegrityError

MAGIC = b"audit/v2\n"
#: Entries without a salt in their commitment, of before version 2: they are read, none is written.
MAGIC_UNSALTED = b"audit/v1\n"
CHAIN_TAG = b"chain/v1\0"
#: The chain before a tenant's first entry.
CHAIN_START = bytes(32)
#: `kind` of a record whose value could not be read; its tenant is `_system`.
KIND_UNDECODABLE = "UNDECODABLE"
#: `kind` of an entry that commits to where every tenant's chain stands (processors/audit/heads.py).
KIND_HEADS = "HEADS"
#: The chain of what the log says of itself; no record of Kafka is entered under this name.
LOG_TENANT = "_log"
#: magic, seq, tseq, prev_chain, partition, offset, time_micros, schema_id, commitment, has amount, amount_nano.
_FIXED = struct.Struct(">9sQQ32sIQqI32s?q")
#: Where the mark of an amount stands.
_PRICED_AT = _FIXED.size - 9
_LENGTH = struct.Struct(">H")
_TEXTS = 7
#: Tenant, topic, topic UUID, currency and kind: many entries have them in common.
_TEXTS_SHARED = 5
#: What an entry of the log's own has after its fixed fields.
_OWN = _LENGTH.pack(len(LOG_TENANT)) + LOG_TENANT.encode()
TEXTS_CACHED_MAX = 10_000


class EntryError(IntegrityError):
    """The bytes are not an audit entry of a known version in canonical form."""


class Source(NamedTuple):
    """A record as the sequencer takes it. Texts are empty where there is none."""

    tenant_id: str
    topic: str
    #: The topic's Kafka UUID, as Kafka writes it.
    topic_id: str
    partition: int
    offset: int
    #: occurred_at; the record's own timestamp when it can't be decoded.
    time_micros: int
    #: Registry id from the value's frame; 0 when it has none.
    schema_id: int
    commitment: bytes
    amount_nano: int | None
    currency: str
    event_id: str
    request_id: str
    kind: str


class Entry(NamedTuple):
    """An entry read back."""

    seq: int
    tseq: int
    prev_chain: bytes
    source: Source
    magic: bytes = MAGIC


#: magic, seq, tseq, prev_chain, partition, offset, time_micros, commitment, and the five texts.
Scanned = tuple[bytes, int, int, bytes, int, int, int, bytes, list[str]]


class Head(NamedTuple):
    """Where a tenant's chain stands."""

    tseq: int
    chain: bytes


class Sealed(NamedTuple):
    """An entry with its hashes, as it is stored."""

    seq: int
    tseq: int
    chain: bytes
    leaf: bytes
    entry: bytes
    source: Source


NO_HEAD = Head(0, CHAIN_START)


def chain_hash(prev_chain: bytes, leaf: bytes) -> bytes:
    """The chain after an entry with this leaf hash."""
    return sha256(CHAIN_TAG + prev_chain + leaf).digest()


def encode_entry(entry: Entry) -> bytes:
    """The canonical bytes; raises ValueError when a number or text is out of its range."""
    return _encode(entry.seq, entry.tseq, entry.prev_chain, entry.source, entry.magic)


def _encode(seq: int, tseq: int, prev_chain: bytes, source: Source, magic: bytes = MAGIC) -> bytes:
    (tenant, topic, topic_id, part, offset, micros, schema, commit, amount, currency, event_id, request_id, kind) = (
        source
    )
    priced = amount is not None
    try:
        fixed = _FIXED.pack(magic, seq, tseq, prev_chain, part, offset, micros, schema, commit, priced, amount or 0)
        return fixed + _texts_shared(tenant, topic, topic_id, currency, kind) + _text(event_id) + _text(request_id)
    except (struct.error, UnicodeEncodeError) as error:
        raise ValueError(f"the record at {topic}/{part}@{offset} does not fit an entry: {error}") from error


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return _LENGTH.pack(len(encoded)) + encoded


@lru_cache(maxsize=TEXTS_CACHED_MAX)
def _texts_shared(*texts: str) -> bytes:
    """The texts that many entries have in common."""
    return b"".join(map(_text, texts))


def decode_entry(data: bytes) -> Entry:
    """The entry of its bytes; raises EntryError when they are not exactly what encoding it gives."""
    if len(data) < _FIXED.size or not data.startswith((MAGIC, MAGIC_UNSALTED)):
        raise EntryError("the bytes do not begin as an entry of a known version")
    (magic, seq, tseq, prev_chain, partition, offset, micros, schema_id, commit, priced, amount) = _FIXED.unpack_from(
        data
    )
    tenant, topic, topic_id, currency, kind, event_id, request_id = _texts(data, _FIXED.size, _TEXTS)
    if data[_PRICED_AT] > 1 or (amount and not priced):
        raise EntryError("an amount without its mark")
    return Entry(
        seq,
        tseq,
        prev_chain,
        Source(
            tenant, topic, topic_id, partition, offset, micros, schema_id, commit,
            amount if priced else None, currency, event_id, request_id, kind,
        ),
        magic,
    )  # fmt: skip


def _texts(data: bytes, position: int, count: int) -> list[str]:
    texts = []
    try:
        for _ in range(count):
            first = position + 2
            position = first + (data[first - 2] << 8 | data[first - 1])
            texts.append(data[first:position].decode("utf-8"))
    except (IndexError, UnicodeDecodeError):
        raise EntryError("a text of the entry can't be read") from None
    if position != len(data):
        raise EntryError("the entry's lengths do not meet its end")
    return texts


class EntryScan:
    """Reads what a walk needs of very many entries: takes and refuses what `decode_entry` does, a few times as fast."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._shared = lru_cache(maxsize=TEXTS_CACHED_MAX)(lambda data: _texts(data, 0, _TEXTS_SHARED))

    def scan(self, data: bytes) -> Scanned:
        """What an entry says; raises EntryError as `decode_entry` does."""
        try:
            magic, seq, tseq, prev_chain, partition, offset, micros, _, commitment, priced, amount = _FIXED.unpack_from(
                data
            )
            at = _FIXED.size
            for _text in range(_TEXTS_SHARED):
                at += 2 + (data[at] << 8 | data[at + 1])
            texts, ids = self._shared(data[_FIXED.size : at]), data[at:]
            at += 2 + (data[at] << 8 | data[at + 1])
            at += 2 + (data[at] << 8 | data[at + 1])
        except (struct.error, IndexError, EntryError):
            decode_entry(data)
            raise
        is_known = magic == MAGIC or magic == MAGIC_UNSALTED  # noqa: PLR1714 - twice as fast as a tuple
        if not is_known or at != len(data) or data[_PRICED_AT] > 1 or (amount and not priced) or not ids.isascii():
            decode_entry(data)
        return magic, seq, tseq, prev_chain, partition, offset, micros, commitment, texts


def tenant_bytes(data: bytes) -> bytes:
    """The tenant of an entry, as its bytes; nothing else is looked at."""
    first = _FIXED.size + 2
    return data[first : first + (data[first - 2] << 8 | data[first - 1])]


def is_own(data: bytes) -> bool:
    """Whether these are the bytes of an entry of the log's own: one of heads, the only ones there are."""
    return data.startswith(_OWN, _FIXED.size)


def heads_source(commitment: bytes, time_micros: int) -> Source:
    """The source of a heads entry: it commits to the heads' tree, and to no record."""
    return Source(LOG_TENANT, "", "", 0, 0, time_micros, 0, commitment, None, "", "", "", KIND_HEADS)


def seal(sources: list[Source], next_seq: int, heads: dict[str, Head]) -> list[Sealed]:
    """Entries for records in order, from `next_seq` on; moves `heads` (tenant to head) along."""
    sealed: list[Sealed] = []
    for seq, source in enumerate(sources, next_seq):
        tseq, prev_chain = heads.get(source.tenant_id, NO_HEAD)
        entry = _encode(seq, tseq + 1, prev_chain, source)
        leaf = sha256(b"\0" + entry).digest()
        chain = sha256(CHAIN_TAG + prev_chain + leaf).digest()
        heads[source.tenant_id] = Head(tseq + 1, chain)
        sealed.append(Sealed(seq, tseq + 1, chain, leaf, entry, source))
    return sealed
