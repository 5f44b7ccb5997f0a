"""Record batches: what we write, Kafka's own clients read."""

from __future__ import annotations

import random
from collections.abc import Sequence

import lz4.frame
import pytest
from aiokafka.record.default_records import DefaultRecordBatch

from streams.kafka.batches import COMPRESSED_BYTES_MIN, batch, compressed, written
from streams.log import OutgoingRecord

NOW_MILLIS = 1_700_000_000_123
#: Kafka's clients take no larger ones.
LZ4_BLOCK_BYTES = 64 * 1024


def records(count: int, value_bytes: int) -> list[OutgoingRecord]:
    """Records of this size, with two headers each."""
    return [
        OutgoingRecord("topic", b"key %d" % number, bytes([number % 251]) * value_bytes, (("a", b"1"), ("b", b"")))
        for number in range(count)
    ]


def read(data: bytes) -> DefaultRecordBatch:
    """What another client reads of a batch, its checksum checked."""
    found = DefaultRecordBatch(data)
    assert found.validate_crc()
    return found


def batch_of(given: Sequence[OutgoingRecord]) -> bytes:
    """A batch of them by producer 77, epoch 3, from sequence number 11."""
    return batch([written(record)[2] for record in given], 77, 3, 11, NOW_MILLIS)


@pytest.mark.parametrize(("count", "value_bytes"), [(1, 0), (1, 5), (3, 200), (300, 50), (2, 200_000)])
def test_another_client_reads_what_was_written(count: int, value_bytes: int) -> None:
    """Key, value, headers, time and place of every record."""
    given = records(count, value_bytes)

    found = [(one.offset, one.key, one.value, one.headers, one.timestamp) for one in read(batch_of(given))]

    assert [
        (place, record.key, record.value, list(record.headers), NOW_MILLIS) for place, record in enumerate(given)
    ] == found


def test_a_batch_says_whose_it_is() -> None:
    """Producer, epoch and the first sequence number: what the broker knows a repetition by."""
    found = read(batch_of(records(2, 10)))

    assert (77, 3, 11) == (found.producer_id, found.producer_epoch, found.base_sequence)


@pytest.mark.parametrize(("value_bytes", "kind"), [(1, 0), (COMPRESSED_BYTES_MIN, DefaultRecordBatch.CODEC_LZ4)])
def test_only_what_gains_by_it_is_compressed(value_bytes: int, kind: int) -> None:
    """A small batch goes as it is."""
    assert kind == read(batch_of(records(1, value_bytes))).compression_type


@pytest.mark.parametrize("size", [1, LZ4_BLOCK_BYTES, LZ4_BLOCK_BYTES + 1, 3 * LZ4_BLOCK_BYTES + 7])
def test_what_is_compressed_comes_back(size: int) -> None:
    """In blocks as large as Kafka takes them, also where compressing gains nothing."""
    noise = random.Random(size).randbytes(size)
    for data in (bytes(size), noise):
        assert data == lz4.frame.decompress(compressed(data))
