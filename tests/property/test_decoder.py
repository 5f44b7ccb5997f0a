"""The compiled decoder against fastavro: the same fields from the same bytes, and no wrong answer from broken bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UndecodableError
from schemas.topics import TOPICS
from streams.codec import HEADER, MAGIC, Codec, LocalSchemas, parse_schema, schema_text
from streams.decoder import read_varint
from streams.encoder import encode_long
from tests.support.avro_values import EXAMPLES, LONGS, values

NAMES = [topic.name for topic in TOPICS]
SCHEMAS = {name: parse_schema(schema_text(name)) for name in NAMES}
#: Made once: making a strategy costs more than drawing from it.
VALUES = {name: values(schema) for name, schema in SCHEMAS.items()}
SOURCE = LocalSchemas()
CODEC = Codec(SOURCE)


def framed(name: str, fields: dict[str, Any]) -> bytes:
    """The record value fastavro makes of these fields."""
    buffer = BytesIO(HEADER.pack(MAGIC, SOURCE.id_of(name)))
    buffer.seek(HEADER.size)
    fastavro.schemaless_writer(buffer, SCHEMAS[name], fields)
    return buffer.getvalue()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_decodes_what_fastavro_writes(name: str, data: st.DataObject) -> None:
    """Any record of any topic comes back field by field."""
    fields = data.draw(VALUES[name])
    assert CODEC.decode(name, framed(name, fields)) == fields


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_cut_or_longer_bytes_are_undecodable(name: str, data: st.DataObject) -> None:
    """A body that ends early or late is never taken for a shorter one."""
    value = framed(name, data.draw(VALUES[name]))
    cut = data.draw(st.integers(HEADER.size, len(value) - 1))
    for broken in (value[:cut], value + b"\0"):
        with pytest.raises(UndecodableError):
            CODEC.decode(name, broken)


@given(body=st.binary(max_size=300), name=st.sampled_from(NAMES))
def test_arbitrary_bytes_end_in_one_kind_of_fault(body: bytes, name: str) -> None:
    """Whatever the bytes are, decoding answers or raises UndecodableError, and nothing else."""
    try:
        CODEC.decode(name, HEADER.pack(MAGIC, SOURCE.id_of(name)) + body)
    except UndecodableError:
        return


@given(value=LONGS)
def test_numbers_of_any_size_come_back(value: int) -> None:
    """Every 64-bit number is read as it was written, whatever follows it."""
    number, end = read_varint(encode_long(value) + b"\xff" * 9, 0)
    assert (number >> 1 ^ -(number & 1), end) == (value, len(encode_long(value)))
