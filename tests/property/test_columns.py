"""Columns against the compiled decoder: what is called sound says the same, and broken bytes are never sound."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UndecodableError
from schemas.topics import TOPICS, topic_of
from streams.codec import HEADER, MAGIC, Codec, LocalSchemas, parse_schema, schema_text
from streams.columns import Column, ColumnReader, Columns
from tests.support import stories
from tests.support.avro_values import EXAMPLES, values

NAMES = [topic.name for topic in TOPICS]
SCHEMAS = {name: parse_schema(schema_text(name)) for name in NAMES}
#: Made once: making a strategy costs more than drawing from it.
VALUES = {name: values(schema) for name, schema in SCHEMAS.items()}
READERS = {name: ColumnReader(SCHEMAS[name]) for name in NAMES}
SOURCE = LocalSchemas()
CODEC = Codec(SOURCE)


def framed(name: str, fields: dict[str, Any]) -> bytes:
    """The record value fastavro makes of these fields."""
    buffer = BytesIO(HEADER.pack(MAGIC, SOURCE.id_of(name)))
    buffer.seek(HEADER.size)
    fastavro.schemaless_writer(buffer, SCHEMAS[name], fields)
    return buffer.getvalue()


def plain(columns: Columns, column: Column, place: int) -> Any:
    """One value of a column, as the decoder gives it."""
    if column.present is not None and not column.present[place]:
        return None
    value = column.values[place]
    match column.kind:
        case "string" | "bytes":
            assert column.lengths is not None
            found = columns.buffer[value : value + column.lengths[place]]
            return found.decode() if column.kind == "string" else found
        case "enum":
            return column.symbols[value]
        case "boolean":
            return bool(value)
        case "double":
            return float(value)
        case "array" | "map":
            first = int(column.values[:place].sum())
            items = [
                {name: plain(columns, inner, at) for name, inner in column.items.items()}
                for at in range(first, first + int(value))
            ]
            if column.kind == "map":
                return {item["key"]: item["value"] for item in items}
            return [item["item"] if item.keys() == {"item"} else item for item in items]
    return int(value)


def record(columns: Columns, row: int) -> dict[str, Any]:
    """One record of the columns."""
    return {name: plain(columns, column, row) for name, column in columns.fields.items()}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_sound_records_say_what_the_decoder_says(name: str, data: st.DataObject) -> None:
    """Every field of every sound record is the decoder's, also after taking some of the records in another order."""
    given_fields = data.draw(st.lists(VALUES[name], min_size=1, max_size=4))
    given_values = [framed(name, fields) for fields in given_fields]
    columns = READERS[name].read(given_values, given_values[0][: HEADER.size])
    rows = data.draw(st.permutations(range(len(given_values))))
    taken = columns.take(np.array(rows, np.int64))
    for place, row in enumerate(rows):
        if taken.sound[place]:
            assert record(taken, place) == CODEC.decode(name, given_values[row])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_what_the_decoder_refuses_is_not_sound(name: str, data: st.DataObject) -> None:
    """Cut, longer or changed values between whole ones are unsound or doubtful; their neighbours stay as they are."""
    whole = framed(name, data.draw(VALUES[name]))
    place = data.draw(st.integers(HEADER.size, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    broken = [whole[:place], whole + b"\0", bytes(changed), b"", whole[:3]]
    columns = READERS[name].read([whole, *broken, whole], whole[: HEADER.size])
    for row, value in enumerate(broken, 1):
        try:
            fields = CODEC.decode(name, value)
        except UndecodableError:
            assert not columns.sound[row] or columns.doubtful[row]
        else:
            if columns.sound[row]:
                # As texts: a changed double may be no number, which equals nothing.
                assert repr(record(columns, row)) == repr(fields)
    assert columns.sound[0] == columns.sound[-1]


def test_ordinary_records_are_sound_and_not_doubtful(ordinary: dict[str, bytes]) -> None:
    """The records that a gateway makes take the fast way."""
    for name, value in ordinary.items():
        columns = READERS[name].read([value] * 3, value[: HEADER.size])
        assert columns.sound.all(), name
        assert not columns.doubtful.any(), name


def test_texts_beyond_ascii_are_doubtful() -> None:
    """Somebody has to decode them before they are believed."""
    schema = parse_schema(json.dumps({"type": "record", "name": "r", "fields": [{"name": "t", "type": "string"}]}))
    texts = ["plain", "schön", "plain"]
    given_values = [b"ABCDE" + bytes([2 * len(text.encode())]) + text.encode() for text in texts]
    columns = ColumnReader(schema).read(given_values, b"ABCDE")
    assert columns.sound.tolist() == [True, True, True]
    assert columns.doubtful.tolist() == [False, True, False]


@pytest.fixture
def ordinary() -> dict[str, bytes]:
    """One record of each request-scoped topic."""
    return {topic_of(event).name: CODEC.encode(event) for event in stories.request_story(1)}
