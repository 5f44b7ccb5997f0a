"""Avro decoders compiled from schemas: one Python function per record type, from bytes to the dict fastavro would give.

fastavro walks the schema for every record and asks a file object for every byte: 20 to 35 microseconds for our records
of 20 to 40 fields, most of a sink's time. Here the walk happens once and is written down as source text; small numbers
and short texts, which are nearly all, are read in place. A property test compares with fastavro; bytes that are not
what the schema says raise one of FAULTS, or put the end of the body before or behind the end of the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from streams.source import code_of

#: Bytes and where the body begins; answers the fields and where the body ends.
Decoder = Callable[[bytes, int], tuple[dict[str, Any], int]]
#: What a decoder raises on bytes that are not what the schema says.
FAULTS = (IndexError, ValueError, struct.error, OverflowError, MemoryError)

DOUBLE = struct.Struct("<d")
VARINT_BYTES_MAX = 10
#: An eight-byte number has this bit in all bytes but the last.
EIGHT_MASK, EIGHT_SHAPE = 0x8080808080808080, 0x0080808080808080

#: Source text that reads one plain value from `d` at `p` into `{to}`.
INTEGER = """
n = d[p]; p += 1
if n > 127: n, p = varint(d, p - 1)
{to} = n >> 1 ^ -(n & 1)
"""
#: The length goes on reading in place when it is even (not negative) and fits one byte.
SIZED = """
n = d[p]; p += 1
if n & 129: n, p = length(d, p - 1)
else: n >>= 1
e = p + n
{to} = d[p:e]{decoded}; p = e
"""
INDEX = ("n = d[p]; p += 1", "if n & 129: n, p = length(d, p - 1)", "else: n >>= 1")
SCALARS = {
    "int": INTEGER,
    "long": INTEGER,
    "string": SIZED.replace("{decoded}", ".decode()"),
    "bytes": SIZED.replace("{decoded}", ""),
    "boolean": "{to} = BOOLEANS[d[p]]; p += 1",
    "double": "({to},) = double(d, p); p += 8",
}


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """An unsigned base-128 number and where it ends; raises IndexError past the end, ValueError when it has no end."""
    number = int.from_bytes(data[start : start + 8], "little")
    if number & EIGHT_MASK == EIGHT_SHAPE:
        # Every time of our age, in microseconds: squeeze the eight top bits out, in halves, quarters, eighths.
        number = number & 0x007F007F007F007F | (number & 0x7F007F007F007F00) >> 1
        number = number & 0x00003FFF00003FFF | (number & 0x3FFF00003FFF0000) >> 2
        return number & 0x0FFFFFFF | (number & 0x0FFFFFFF00000000) >> 4, start + 8
    number = 0
    for index in range(VARINT_BYTES_MAX):
        byte = data[start + index]
        number |= (byte & 127) << 7 * index
        if byte < 128:  # noqa: PLR2004 - the continuation bit
            return number, start + index + 1
    raise ValueError("a number has no end")


def read_long(data: bytes, start: int) -> tuple[int, int]:
    """A signed number and where it ends; raises as read_varint does."""
    number, end = read_varint(data, start)
    return number >> 1 ^ -(number & 1), end


def read_length(data: bytes, start: int) -> tuple[int, int]:
    """A length that is not negative and where it ends; raises as read_varint does."""
    number, end = read_varint(data, start)
    if number & 1:
        raise ValueError("a length is negative")
    return number >> 1, end


def read_count(data: bytes, start: int) -> tuple[int, int]:
    """How many items an array's or map's next block has, and where they begin; raises as read_varint does."""
    count, end = read_long(data, start)
    if count < 0:
        _, end = read_long(data, end)
    if abs(count) > len(data):
        raise ValueError("a block has more items than there are bytes")
    return abs(count), end


class _Compiler:
    """Writes the source of a decoder; nested records and enums become names it may use."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {
            "varint": read_varint,
            "length": read_length,
            "count": read_count,
            "double": DOUBLE.unpack_from,
            "BOOLEANS": (False, True),
        }
        self._variables = 0

    def function(self, record: Any) -> Decoder:
        """The decoder of a record schema."""
        lines: list[str] = []
        entries = []
        for field in record["fields"]:
            variable = self._variable()
            lines += self.read(field["type"], variable)
            entries.append(f"{field['name']!r}: {variable}")
        body = "\n".join(f"    {line}" for line in lines)
        source = f"def decode(d, p):\n{body}\n    return {{{', '.join(entries)}}}, p\n"
        exec(code_of(source, f"decoder of {record['name']}"), self.names)  # noqa: S102 - our own schemas, as dataclasses does
        decoder: Decoder = self.names["decode"]
        return decoder

    def read(self, avro: Any, to: str) -> list[str]:
        """Lines that read a value into a variable; raises TypeError for a type the house does not use."""
        if isinstance(avro, list):
            return self._optional(avro, to)
        kind = avro["type"] if isinstance(avro, dict) else avro
        if kind in SCALARS:
            return SCALARS[kind].format(to=to).strip().splitlines()
        match kind:
            case "enum":
                symbols = self._named(tuple(avro["symbols"]))
                return [*INDEX, f"{to} = {symbols}[n]"]
            case "record":
                return [f"{to}, p = {self._named(compile_decoder(avro))}(d, p)"]
            case "array":
                return self._blocks(to, "[]", self.read(avro["items"], "item"), f"{to}.append(item)")
            case "map":
                entry = [*self.read("string", "key"), *self.read(avro["values"], "item")]
                return self._blocks(to, "{}", entry, f"{to}[key] = item")
        raise TypeError(f"no decoder for {avro!r}")

    def _optional(self, union: list[Any], to: str) -> list[str]:
        (inner,) = [branch for branch in union if branch != "null"]
        null, branch = 2 * union.index("null"), 2 * union.index(inner)
        return [
            "n = d[p]; p += 1",
            f"if n == {null}: {to} = None",
            f"elif n == {branch}:",
            *(f"    {line}" for line in self.read(inner, to)),
            "else: raise ValueError('no such branch')",
        ]

    def _blocks(self, to: str, empty: str, entry: list[str], keep: str) -> list[str]:
        return [
            f"{to} = {empty}",
            "left, p = count(d, p)",
            "while left:",
            "    for _ in range(left):",
            *(f"        {line}" for line in [*entry, keep]),
            "    left, p = count(d, p)",
        ]

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _named(self, value: Any) -> str:
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name


def compile_decoder(schema: Any) -> Decoder:
    """The decoder of a record schema as `codec.parse_schema` gives it; raises TypeError for types it does not know."""
    return _Compiler().function(schema)
