"""Avro values in the Confluent wire format: a zero byte, the schema id (4 bytes, big-endian), the Avro body.

Logical types are stripped before parsing, here and nowhere else: times stay integers of microseconds and ids stay text,
which halves the cost of both directions (measured: 56-129 k/s with uuid and timestamp types, 120-230 k/s without).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import fastavro
import msgspec

from schemas.errors import CodecError, SchemaUnknownError, UndecodableError
from schemas.events import EVENT_TYPES, Event
from schemas.topics import TOPIC_BY_TYPE
from streams.decoder import FAULTS, Decoder, compile_decoder
from streams.encoder import Encoder, Numbers, Texts, compile_encoder

if TYPE_CHECKING:
    from streams.columns import ColumnReader, Columns

AVRO_FOLDER = Path(__file__).parent.parent / "schemas" / "avro"
MAGIC = 0
HEADER = struct.Struct(">bI")
SCHEMAS_CACHED_MAX = 1_000
#: What a compiled encoder raises for an event with a field of the wrong type or range.
MISFITS = (AttributeError, KeyError, OverflowError, TypeError, ValueError, struct.error)


class SchemaSource(Protocol):
    """Where schema texts and ids come from: the registry, or `LocalSchemas`."""

    def schema_text(self, schema_id: int) -> str:
        """The schema of an id; raises SchemaUnknownError, or LogUnavailableError when nobody can be asked."""

    def id_of(self, topic: str) -> int:
        """The id of our schema of this topic; raises SchemaUnknownError or LogUnavailableError."""


class LocalSchemas:
    """A SchemaSource without a registry: ids count from 1 over the topics in alphabetical order."""

    def schema_text(self, schema_id: int) -> str:
        """The schema text of an id; raises SchemaUnknownError."""
        topics = sorted(EVENT_TYPES)
        if not 1 <= schema_id <= len(topics):
            raise SchemaUnknownError(schema_id)
        return schema_text(topics[schema_id - 1])

    def id_of(self, topic: str) -> int:
        """The id of a topic's schema; raises KeyError for a topic that is not ours."""
        return {name: number for number, name in enumerate(sorted(EVENT_TYPES), 1)}[topic]


@lru_cache(maxsize=len(EVENT_TYPES))
def schema_text(topic: str) -> str:
    """The .avsc text of a topic's record."""
    return (AVRO_FOLDER / f"{topic}.avsc").read_text(encoding="utf-8")


def parse_schema(text: str) -> Any:
    """A schema parsed for fastavro, without its logical types."""
    return fastavro.parse_schema(_without_logical_types(json.loads(text)))


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_logical_types(value) for key, value in node.items() if key not in {"logicalType", "doc"}}
    if isinstance(node, list):
        return [_without_logical_types(item) for item in node]
    return node


class Codec:
    """Encodes and decodes events; caches every parsed schema it meets, up to a limit."""

    def __init__(self, source: SchemaSource) -> None:
        """Nothing is asked of the source before it is needed."""
        self._source = source
        self._local = {topic: parse_schema(schema_text(topic)) for topic in EVENT_TYPES}
        texts, numbers = Texts(), Numbers()
        self._encoders = {topic: compile_encoder(schema, texts, numbers) for topic, schema in self._local.items()}
        self._frames: dict[str, bytes] = {}
        self._readers: dict[str, ColumnReader] = {}
        self._writers: dict[tuple[str, int], tuple[Decoder | None, Any, Any]] = {}

    def prepare(self, topics: Iterable[str] = tuple(EVENT_TYPES)) -> None:
        """Ask for every schema id now, so that no encoding waits for the registry later; raises as the source does."""
        for topic in topics:
            self._frames[topic] = HEADER.pack(MAGIC, self._source.id_of(topic))

    def encode(self, event: Event) -> bytes:
        """The record value of an event; raises CodecError when it does not fit its schema.

        Also raises what the source raises when the schema's id is not known yet.
        """
        topic = TOPIC_BY_TYPE[type(event)].name
        frame, encode = self.encoder(topic)
        try:
            return frame + encode(event)
        except MISFITS as error:
            raise misfit(topic, error) from error

    def encoder(self, topic: str) -> tuple[bytes, Encoder]:
        """What the values of a topic begin with, and what makes the rest of an event or raises MISFITS.

        Raises what the source raises when the schema's id is not known yet.
        """
        frame = self._frames.get(topic)
        if frame is None:
            frame = self._frames[topic] = HEADER.pack(MAGIC, self._source.id_of(topic))
        return frame, self._encoders[topic]

    def decode(self, topic: str, value: bytes) -> dict[str, Any]:
        """The fields of a record value as this release's schema reads them.

        Raises UndecodableError when the bytes are not what their schema says, SchemaUnknownError when nobody knows the
        schema, and LogUnavailableError when the registry can't be asked: wait then, never quarantine.
        """
        if len(value) < HEADER.size or value[0] != MAGIC:
            raise UndecodableError("the value does not begin with the Confluent frame")
        (_, schema_id) = HEADER.unpack_from(value)
        decode, writer, reader = self._writers.get((topic, schema_id)) or self._learn(topic, schema_id)
        if decode is not None:
            return _decoded(decode, topic, schema_id, value)
        buffer = BytesIO(value)
        buffer.seek(HEADER.size)
        try:
            fields = fastavro.schemaless_reader(buffer, writer, reader)
        except Exception as error:  # fastavro raises whatever Python raises on bad bytes
            reason = f"the body is not {topic} under schema {schema_id}: {type(error).__name__}"
            raise UndecodableError(reason) from error
        if buffer.tell() != len(value):
            raise UndecodableError(f"{len(value) - buffer.tell()} bytes follow the body")
        return cast("dict[str, Any]", fields)

    def columns(self, topic: str, values: Sequence[bytes]) -> Columns | None:
        """The columns of record values; those that are not sound, or doubtful, are for `decode` to judge.

        None when the first value's schema is not this release's: then all of them are. Raises as decode does, but for
        the first value only, and never for its body.
        """
        schema_id = self.schema_id(values[0]) if values else None
        if schema_id is None:
            return None
        decode, _, _ = self._writers.get((topic, schema_id)) or self._learn(topic, schema_id)
        if decode is None:
            return None
        reader = self._readers.get(topic)
        if reader is None:
            from streams.columns import ColumnReader  # noqa: PLC0415 - numpy, for those alone who read many records

            reader = self._readers[topic] = ColumnReader(self._local[topic])
        return reader.read(values, values[0][: HEADER.size])

    def decode_event(self, topic: str, value: bytes) -> Event:
        """The event of a record value; raises as decode does, and UndecodableError when a field has the wrong type."""
        fields = self.decode(topic, value)
        try:
            return msgspec.convert(fields, EVENT_TYPES[topic], builtin_types=(bytes,))
        except (msgspec.ValidationError, KeyError) as error:
            raise UndecodableError(f"the body is not a {topic} event: {error}") from error

    def schema_id(self, value: bytes) -> int | None:
        """The schema id of a frame, or None when there is no frame."""
        if len(value) < HEADER.size or value[0] != MAGIC:
            return None
        return int(HEADER.unpack_from(value)[1])

    def _learn(self, topic: str, schema_id: int) -> tuple[Decoder | None, Any, Any]:
        writer = parse_schema(self._source.schema_text(schema_id))
        local = self._local[topic]
        if _name(writer) != _name(local):
            raise UndecodableError(f"schema {schema_id} is {_name(writer)}, not {_name(local)}")
        if len(self._writers) >= SCHEMAS_CACHED_MAX:
            self._writers.clear()
        # fastavro resolves where the writer's schema is another than ours; where it is ours, compiled code decodes.
        decode = compile_decoder(local) if writer == local else None
        known = self._writers[topic, schema_id] = (decode, writer, local)
        return known


def misfit(topic: str, error: Exception) -> CodecError:
    """The fault for an event that its encoder did not take."""
    return CodecError(f"the event does not fit {topic}: {error}")


def _decoded(decode: Decoder, topic: str, schema_id: int, value: bytes) -> dict[str, Any]:
    try:
        fields, end = decode(value, HEADER.size)
    except FAULTS as error:
        reason = f"the body is not {topic} under schema {schema_id}: {type(error).__name__}"
        raise UndecodableError(reason) from error
    if end != len(value):
        raise UndecodableError(f"the body ends {abs(len(value) - end)} bytes {'early' if end < len(value) else 'late'}")
    return fields


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema["name"])
