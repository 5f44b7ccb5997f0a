"""Records: keys, CloudEvents headers, and what is not ours."""

from __future__ import annotations

import pytest

from schemas.errors import UndecodableError
from schemas.events import BudgetKind, QuarantinedRecord, QuarantineReason
from streams.codec import Codec, LocalSchemas
from streams.log import LogRecord, OutgoingRecord
from streams.partitioner import murmur2, partition_of
from streams.quarantine import fingerprint, quarantined
from streams.records import MisplacedError, event_of, outgoing, traceparent_of
from tests.support.events import NOW_MICROS, alert, attempt, budget

CODEC = Codec(LocalSchemas())


def read(record: OutgoingRecord, **changes: object) -> LogRecord:
    """A record as it would be read."""
    return LogRecord(record.topic, 0, 7, 0, record.key, record.value, record.headers)._replace(**changes)  # type: ignore[arg-type] # a test's own fields


def test_headers_are_cloudevents() -> None:
    """Binary mode: every attribute a header, the value the Avro bytes."""
    record = outgoing(CODEC, budget(BudgetKind.PLACED, "h", "e", actor="gateway/host-1"))

    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "content-type": b"application/avro",
        "ce_type": b"quaestor.budgets.PLACED",
        "ce_source": b"/gateway/host-1",
        "ce_id": b"e",
        "ce_time": b"2023-11-14T22:13:20.000000Z",
    }


def test_a_record_without_kind_has_its_topic_as_type() -> None:
    """Attempts have an outcome, no kind."""
    assert dict(outgoing(CODEC, attempt("e")).headers)["ce_type"] == b"quaestor.attempts"


@pytest.mark.parametrize(("micros", "text"), [(1, b"20.000001Z"), (999_999, b"20.999999Z"), (-1, b"19.999999Z")])
def test_times_keep_their_microseconds(micros: int, text: bytes) -> None:
    """Padded, also just before a second."""
    record = outgoing(CODEC, attempt("e", occurred_at=NOW_MICROS + micros))

    assert dict(record.headers)["ce_time"].endswith(text)


def test_keys_are_those_of_the_topic_table() -> None:
    """Requests by run or request, money by tenant."""
    assert outgoing(CODEC, attempt("e")).key == b"acme/r"
    assert outgoing(CODEC, attempt("e", run_id="run")).key == b"acme/run"
    assert outgoing(CODEC, alert("e")).key == b"acme"


def test_an_event_is_read_back() -> None:
    """With its key checked."""
    event = alert("e")

    assert event == event_of(CODEC, read(outgoing(CODEC, event)))


def test_another_key_is_misplaced() -> None:
    """Whoever partitions differently would break the order."""
    with pytest.raises(MisplacedError):
        event_of(CODEC, read(outgoing(CODEC, alert("e")), key=b"other"))


def test_a_record_without_value_is_undecodable() -> None:
    """There are no tombstones here."""
    with pytest.raises(UndecodableError):
        event_of(CODEC, read(outgoing(CODEC, alert("e")), value=None))


def test_a_traceparent_is_found_or_not() -> None:
    """Among whatever headers there are."""
    assert traceparent_of(outgoing(CODEC, alert("e"), b"00-x").headers) == b"00-x"
    assert traceparent_of(outgoing(CODEC, alert("e")).headers) is None


def test_a_quarantined_record_keeps_the_original_key_and_bytes() -> None:
    """So that it can be put back where it was."""
    record = LogRecord("quaestor.costs", 3, 9, 5, b"key", b"junk", (("h", b"v"),))

    event = quarantined(record, "topic-id", "stream/x@v1", UndecodableError(), None, NOW_MICROS)

    assert outgoing(CODEC, event).key == b"key"
    assert (event.source_partition, event.source_offset, event.value_bytes, event.headers) == (
        3,
        9,
        b"junk",
        {"h": b"v"},
    )
    assert isinstance(event_of(CODEC, read(outgoing(CODEC, event))), QuarantinedRecord)


def test_a_record_too_large_to_wrap_is_named_without_its_bytes() -> None:
    """The event must fit a record itself."""
    record = LogRecord("quaestor.costs", 3, 9, 5, b"key", bytes(999_000), ())

    event = quarantined(record, "topic-id", "stream/x@v1", UndecodableError(), None, NOW_MICROS)

    assert event.value_bytes is None
    assert (event.source_partition, event.source_offset) == (3, 9)


def test_fingerprints_group_what_failed_alike() -> None:
    """Values in the detail do not count, its words do."""
    first, second = "field 5 is '1'", "field 77 is 'abc'"

    assert fingerprint(QuarantineReason.BUG, "t", first) == fingerprint(QuarantineReason.BUG, "t", second)
    assert fingerprint(QuarantineReason.BUG, "t", first) != fingerprint(QuarantineReason.BUG, "t", "another thing")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        # From Apache Kafka's own UtilsTest.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_the_jvm_clients(key: bytes, expected: int) -> None:
    """The vectors that Kafka tests its own with."""
    assert murmur2(key) == expected % (1 << 32)


def test_partitions_are_in_range() -> None:
    """The sign bit is masked, as the clients do."""
    assert {partition_of(b"%d" % number, 6) for number in range(100)} == set(range(6))
