"""Framing and encoding: the bytes are those of fastavro behind the Confluent frame, and come back as the same event."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CodecError, UndecodableError
from schemas.events import EVENT_TYPES, Event
from schemas.topics import TOPICS
from streams.codec import HEADER, MAGIC, Codec, LocalSchemas, parse_schema, schema_text
from streams.encoder import LONG_MAX, LONG_MIN, NUMBERS_MAX, TEXTS_MAX, Numbers, Texts, encode_long, encode_text
from streams.kafka.batches import written
from streams.kafka.loop_recorder import EventWriter
from streams.records import outgoing
from tests.support.avro_values import EXAMPLES, LONGS, values
from tests.support.events import alert, attempt

NAMES = [topic.name for topic in TOPICS]
SCHEMAS = {name: parse_schema(schema_text(name)) for name in NAMES}
#: Made once: making a strategy costs more than drawing from it.
VALUES = {name: values(schema) for name, schema in SCHEMAS.items()}
SOURCE = LocalSchemas()
CODEC = Codec(SOURCE)
#: The year 9999, microseconds.
TIME_MAX = 253_402_300_799_999_999


def event_of(name: str, fields: dict[str, Any]) -> Event:
    """The event with these fields."""
    return msgspec.convert(fields, EVENT_TYPES[name], builtin_types=(bytes,))


def body_of(name: str, fields: dict[str, Any]) -> bytes:
    """What fastavro makes of them."""
    buffer = BytesIO()
    fastavro.schemaless_writer(buffer, SCHEMAS[name], fields)
    return buffer.getvalue()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_encodes_as_fastavro_behind_the_frame(name: str, data: st.DataObject) -> None:
    """A zero byte, four bytes of schema id, and exactly fastavro's body."""
    fields = data.draw(VALUES[name])

    assert CODEC.encode(event_of(name, fields)) == HEADER.pack(MAGIC, SOURCE.id_of(name)) + body_of(name, fields)


@pytest.mark.parametrize("name", [topic.name for topic in TOPICS if topic.key_of is not None])
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_the_gateway_writes_the_record_that_others_write(name: str, data: st.DataObject) -> None:
    """Topic, key, value and headers in one step, or in two."""
    event = event_of(name, data.draw(VALUES[name]) | {"occurred_at": data.draw(st.integers(0, TIME_MAX))})
    traceparent = data.draw(st.none() | st.binary(max_size=60))

    assert written(outgoing(CODEC, event, traceparent)) == EventWriter(CODEC).write(event, traceparent)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_an_event_comes_back(name: str, data: st.DataObject) -> None:
    """Encoding then decoding changes nothing."""
    event = event_of(name, data.draw(VALUES[name]))

    assert event == CODEC.decode_event(name, CODEC.encode(event))


@given(value=LONGS)
def test_numbers_are_written_as_fastavro_does(value: int) -> None:
    """Zigzag and base 128, the shortest form."""
    buffer = BytesIO()
    fastavro.schemaless_writer(buffer, "long", value)

    assert buffer.getvalue() == encode_long(value)


@pytest.mark.parametrize("value", [LONG_MAX + 1, LONG_MIN - 1, 1 << 80, -(1 << 80)])
def test_numbers_beyond_64_bits_are_refused(value: int) -> None:
    """Neither cut nor wrapped."""
    with pytest.raises(OverflowError):
        encode_long(value)


@given(texts=st.lists(st.text(max_size=80), max_size=50))
def test_remembered_texts_are_the_same_bytes(texts: list[str]) -> None:
    """Whether a text was met before or not."""
    known = Texts()

    assert [encode_text(text) for text in texts] == [known.get(text) or known.learn(text) for text in texts]


def test_remembered_texts_are_bounded() -> None:
    """Too many are forgotten at once."""
    known = Texts()
    for number in range(2 * TEXTS_MAX + 5):
        known.learn(str(number))

    assert sum(known.get(str(number)) is not None for number in range(2 * TEXTS_MAX + 5)) <= TEXTS_MAX


@given(numbers=st.lists(LONGS, max_size=50))
def test_remembered_numbers_are_the_same_bytes(numbers: list[int]) -> None:
    """Whether a number was met before or not."""
    known = Numbers()

    assert [encode_long(number) for number in numbers] == [known.get(one) or known.learn(one) for one in numbers]


def test_remembered_numbers_are_bounded() -> None:
    """Too many are forgotten at once."""
    known = Numbers()
    for number in range(2 * NUMBERS_MAX + 5):
        known.learn(number)

    assert sum(known.get(number) is not None for number in range(2 * NUMBERS_MAX + 5)) <= NUMBERS_MAX


@pytest.mark.parametrize(
    "fields",
    [
        {"duration_micros": "1"},
        {"duration_micros": None},
        {"duration_micros": 1.5},
        {"duration_micros": 1 << 63},
        {"outcome": "SUCCEEDED"},
        {"outcome": None},
        {"model": None},
        {"model": 5},
        {"model": "\ud800"},
        {"finish_reason": b"stop"},
    ],
    ids=str,
)
def test_an_event_that_does_not_fit_its_schema_is_refused(fields: dict[str, Any]) -> None:
    """A wrong type or range never becomes bytes."""
    with pytest.raises(CodecError):
        CODEC.encode(attempt("id", **fields))


@given(value=st.binary(max_size=4) | st.binary(min_size=5).filter(lambda value: value[0] != MAGIC))
def test_what_does_not_begin_with_the_frame_is_undecodable(value: bytes) -> None:
    """Too short, or another first byte."""
    with pytest.raises(UndecodableError):
        CODEC.decode("quaestor.alerts", value)


def test_a_record_of_another_topic_is_undecodable() -> None:
    """The schema must be that of the topic."""
    with pytest.raises(UndecodableError):
        CODEC.decode("quaestor.costs", CODEC.encode(alert("id")))


def test_the_schema_id_of_a_frame() -> None:
    """Read without decoding; None where there is no frame."""
    assert CODEC.schema_id(CODEC.encode(alert("id"))) == SOURCE.id_of("quaestor.alerts")
    assert CODEC.schema_id(b"{}") is None
