"""Kafka's record batches (format 2): records of one partition under one checksum, as KIP-98 lays them down.

A record's bytes up to its place in the batch are made when it is handed over; the rest when its batch is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import lz4.frame
from aiokafka.record.util import calc_crc32c

from streams.encoder import LAST, SMALL, encode_long
from streams.log import OutgoingRecord

#: A batch takes records up to this, before compression; a larger record is alone in its own.
BATCH_BYTES_MAX = 64 * 1024
#: What gains nothing by it is not compressed.
COMPRESSED_BYTES_MIN = 256
#: Offset, length, leader epoch, format, checksum; the checksum is of what follows it.
FRAME = struct.Struct(">qiibI")
#: Attributes, last offset, first and last time, producer, its epoch, first sequence number, records.
HEAD = struct.Struct(">hiqqqhii")
#: Of FRAME, what the length does not count.
UNCOUNTED_BYTES = 12
FORMAT, NO_EPOCH = 2, -1
NOT_COMPRESSED, LZ4 = 0, 3
#: Attributes and time of a record: none, and that of its batch.
PLAIN = b"\0\0"


#: A record written down: its topic, its key, and as it stands in a batch from its key on.
Written = tuple[str, bytes, bytes]


def written(record: OutgoingRecord) -> Written:
    """A record, written down."""
    topic, key, value, headers = record
    pieces = [written_header(name, value) for name, value in headers]
    return topic, key, b"".join((short(len(key)), key, short(len(value)), value, short(len(pieces)), *pieces))


def written_header(name: str, value: bytes) -> bytes:
    """A header, written down."""
    encoded = name.encode()
    return b"".join((short(len(encoded)), encoded, short(len(value)), value))


def batch(bodies: Sequence[bytes], producer_id: int, epoch: int, sequence: int, now_millis: int) -> bytes:
    """A batch of records as `Written` has them; `sequence` is the first one's."""
    pieces: list[bytes] = []
    for place, body in enumerate(bodies):
        at = short(place)
        pieces += (short(len(PLAIN) + len(at) + len(body)), PLAIN, at, body)
    records, attributes = b"".join(pieces), NOT_COMPRESSED
    if len(records) >= COMPRESSED_BYTES_MIN:
        records, attributes = compressed(records), LZ4
    last = len(bodies) - 1
    head = HEAD.pack(attributes, last, now_millis, now_millis, producer_id, epoch, sequence, len(bodies))
    checked = head + records
    length = FRAME.size - UNCOUNTED_BYTES + len(checked)
    return FRAME.pack(0, length, NO_EPOCH, FORMAT, calc_crc32c(checked)) + checked


def compressed(data: bytes) -> bytes:
    """An LZ4 frame as Kafka reads it: of independent blocks of 64 KiB."""
    framed: bytes = lz4.frame.compress(
        data, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False, store_size=False
    )
    return framed


def short(value: int) -> bytes:
    """A number as Kafka writes it; most are small."""
    return LAST[value << 1] if value < SMALL else encode_long(value)
