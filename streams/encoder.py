"""Avro encoders compiled from schemas: one Python function per record type, from an event's attributes to bytes.

fastavro walks the schema for every record and wants dicts; the gateway encodes eight records per request, so that walk
was a third of its time. Here the walk happens once, and what it would do is written down as source text and compiled,
as dataclasses and msgspec do. The bytes are those of fastavro (a property test compares); fastavro reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from streams.source import code_of

Encoder = Callable[[Any], bytes]

SEPTET, MORE_FOLLOWS = 0x7F, 0x80
CHUNK_BITS = 14
CHUNK = (1 << CHUNK_BITS) - 1
#: Numbers below these take six and eight bytes.
THREE_CHUNKS, FOUR_CHUNKS = 1 << 3 * CHUNK_BITS, 1 << 4 * CHUNK_BITS
SMALL = CHUNK + 1 >> 1
LONG_MIN, LONG_MAX = -(1 << 63), (1 << 63) - 1
DOUBLE = struct.Struct("<d")


#: Texts remembered, and the longest of them; about a megabyte. Large numbers remembered; half of one.
TEXTS_MAX, TEXT_BYTES_MAX = 4_096, 64
NUMBERS_MAX = 4_096
#: Source text per plain type. Small numbers are most: a table has their bytes.
INTEGER = f"(LAST[v << 1] if 0 <= (v := {{value}}) < {SMALL} else seen(v) or number(v))"
SCALARS = {
    "int": INTEGER,
    "long": INTEGER,
    "string": "(known(s := {value}) or text(s))",
    "bytes": "data({value})",
    "boolean": "(b'\\1' if {value} else b'\\0')",
    "double": "double({value})",
}
#: Fields whose text seldom comes again, so that remembering it costs more than it saves; ids of 36 characters.
UNIQUE = frozenset({"event_id", "causation_id"})
UNIQUE_BYTES = 36
UNIQUE_TEXT = f"(b'H' + t if len(t := {{value}}.encode()) == {UNIQUE_BYTES} else data(t))"


def _varint(value: int) -> bytes:
    """Seven bits a byte, least first, the high bit on all but the last."""
    out = bytearray()
    while value > SEPTET:
        out.append(value & SEPTET | MORE_FOLLOWS)
        value >>= 7
    out.append(value)
    return bytes(out)


#: The last 14 bits of a number, and 14 bits with more to come.
LAST = tuple(_varint(value) for value in range(CHUNK + 1))
MORE = tuple(bytes((value & SEPTET | MORE_FOLLOWS, value >> 7 | MORE_FOLLOWS)) for value in range(CHUNK + 1))


def encode_long(value: int) -> bytes:
    """Zigzag, then base 128; raises OverflowError outside 64 bits."""
    if not LONG_MIN <= value <= LONG_MAX:
        raise OverflowError(f"{value} is no 64-bit integer")
    number = value << 1 ^ value >> 63
    if THREE_CHUNKS <= number < FOUR_CHUNKS:
        # Every time of our age, in microseconds.
        return MORE[number & CHUNK] + MORE[number >> 14 & CHUNK] + MORE[number >> 28 & CHUNK] + LAST[number >> 42]
    out = b""
    while number > CHUNK:
        out += MORE[number & CHUNK]
        number >>= CHUNK_BITS
    return out + LAST[number]


def encode_text(value: str) -> bytes:
    """The length in bytes, then UTF-8."""
    data = value.encode()
    return encode_long(len(data)) + data


class Texts:
    """Encoded texts, remembered: tenants, models and actors come again in every event, ids in those of one request."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._known: dict[str, bytes] = {}
        self.get = self._known.get

    def learn(self, value: str) -> bytes:
        """Encode a text, and remember it if it is short; forgets everything when there is too much to remember."""
        encoded = encode_text(value)
        if len(encoded) <= TEXT_BYTES_MAX:
            if len(self._known) >= TEXTS_MAX:
                self._known.clear()
            self._known[value] = encoded
        return encoded


class Numbers:
    """Encoded large numbers, remembered: the events of a group happened at one time, windows and leases come again."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._known: dict[int, bytes] = {}
        self.get = self._known.get

    def learn(self, value: int) -> bytes:
        """Encode a number, and remember it; forgets everything when there is too much to remember."""
        encoded = encode_long(value)
        if len(self._known) >= NUMBERS_MAX:
            self._known.clear()
        self._known[value] = encoded
        return encoded


def encode_bytes(value: bytes) -> bytes:
    """The length, then the bytes."""
    return encode_long(len(value)) + value


class _Compiler:
    """Writes the source of an encoder; nested records and enums become names it may use."""

    def __init__(self, texts: Texts, numbers: Numbers) -> None:
        self.texts, self.numbers, self.scalars = texts, numbers, SCALARS
        self.names: dict[str, Any] = {
            "known": texts.get,
            "text": texts.learn,
            "seen": numbers.get,
            "number": numbers.learn,
            "LAST": LAST,
            "long": encode_long,
            "data": encode_bytes,
            "double": DOUBLE.pack,
            "join": b"".join,
        }

    def function(self, record: Any) -> Encoder:
        """The encoder of a record schema."""
        parts = "".join(f"        {self.field(field)},\n" for field in record["fields"])
        source = f"def encode(event):\n    return join((\n{parts}    ))\n"
        exec(code_of(source, f"encoder of {record['name']}"), self.names)  # noqa: S102 - our own schemas, as dataclasses does
        encoder: Encoder = self.names["encode"]
        return encoder

    def field(self, field: Any) -> str:
        """Source text that encodes a field of the event."""
        self.scalars = SCALARS | {"string": UNIQUE_TEXT} if field["name"] in UNIQUE else SCALARS
        return self.expression(field["type"], f"event.{field['name']}")

    def expression(self, avro: Any, value: str) -> str:
        """Source text that encodes the value of an expression; raises TypeError for a type the house does not use."""
        if isinstance(avro, list):
            return self._optional(avro, value)
        kind = avro["type"] if isinstance(avro, dict) else avro
        if kind in self.scalars:
            return self.scalars[kind].format(value=value)
        match kind:
            case "enum":
                # Hashing an enum member runs Python code; its plain value does not.
                return f"{self._enum(avro)}[{value}._value_]"
            case "record":
                return f"{self._nested(avro)}({value})"
            case "array":
                item = self.expression(avro["items"], "i")
                return f"(long(len(a)) + join([{item} for i in a]) + b'\\0' if (a := {value}) else b'\\0')"
            case "map":
                entries = (
                    f"join([(known(k) or text(k)) + {self.expression(avro['values'], 'i')} for k, i in m.items()])"
                )
                return f"(long(len(m)) + {entries} + b'\\0' if (m := {value}) else b'\\0')"
        raise TypeError(f"no encoder for {avro!r}")

    def _optional(self, union: list[Any], value: str) -> str:
        (inner,) = [branch for branch in union if branch != "null"]
        null, branch = encode_long(union.index("null")), encode_long(union.index(inner))
        return f"({null!r} if (o := {value}) is None else {branch!r} + {self.expression(inner, 'o')})"

    def _enum(self, avro: Any) -> str:
        name = f"enum_{avro['name'].replace('.', '_')}"
        self.names[name] = {symbol: encode_long(index) for index, symbol in enumerate(avro["symbols"])}
        return name

    def _nested(self, avro: Any) -> str:
        name = f"record_{avro['name'].replace('.', '_')}"
        self.names[name] = compile_encoder(avro, self.texts, self.numbers)
        return name


def compile_encoder(schema: Any, texts: Texts, numbers: Numbers) -> Encoder:
    """The encoder of a record schema as `codec.parse_schema` gives it: an event in, its Avro body out.

    The encoder raises TypeError, AttributeError, KeyError, ValueError or OverflowError for an event that does not fit.
    """
    return _Compiler(texts, numbers).function(schema)
