"""Generates schemas/events.py from schemas/avro/*.avsc: `python -m schemas.generate` writes it, `--check` compares.

The .avsc files are the source of truth; the frozen event types are their image in Python, so the two can't drift.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

AVRO = Path(__file__).parent / "avro"
TARGET = Path(__file__).parent / "events.py"
PRIMITIVES = {"string": "str", "long": "int", "int": "int", "double": "float", "boolean": "bool", "bytes": "bytes"}
PREAMBLE = '''\
"""The event types, one per topic. Generated from schemas/avro by `python -m schemas.generate`: edit those files.

Times are integers of microseconds since the Unix epoch (UTC); amounts are integers of nano-units of their currency.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


'''


class Generator:
    """Collects enums, nested records and records in the order in which Python needs them."""

    def __init__(self) -> None:
        """Start with nothing collected."""
        self.blocks: dict[str, str] = {}
        self.records: dict[str, str] = {}

    def type_of(self, avro: Any) -> str:
        """The Python annotation of an Avro type; raises TypeError for a type the house does not use."""
        if isinstance(avro, str):
            return PRIMITIVES[avro]
        if isinstance(avro, list):
            (inner,) = [branch for branch in avro if branch != "null"]
            return f"{self.type_of(inner)} | None"
        match avro["type"]:
            case "enum":
                self.collect(avro["name"], enum_source(avro))
                return str(avro["name"])
            case "record":
                self.collect(avro["name"], self.record_source(avro))
                return str(avro["name"])
            case "array":
                return f"tuple[{self.type_of(avro['items'])}, ...]"
            case "map":
                return f"dict[str, {self.type_of(avro['values'])}]"
            case primitive if primitive in PRIMITIVES:
                return PRIMITIVES[primitive]
        raise TypeError(f"no Python type for {avro!r}")

    def collect(self, name: str, source: str) -> None:
        """Keep one definition; two different ones under a name are refused."""
        if self.blocks.setdefault(name, source) != source:
            raise ValueError(f"{name} is defined in two ways")

    def record_source(self, record: dict[str, Any]) -> str:
        """The Struct of a record, with a doc comment per field."""
        lines = [f"class {record['name']}(msgspec.Struct, frozen=True, kw_only=True):", *docstring(record["doc"]), ""]
        for field in record["fields"]:
            lines += [f"    #: {line}" for line in textwrap.wrap(field["doc"], 113)]
            default = f" = {record['version']}" if field["name"] == "schema_version" else self.default_of(field)
            lines.append(f"    {field['name']}: {self.type_of(field['type'])}{default}")
        return "\n".join(lines) + "\n"

    def default_of(self, field: dict[str, Any]) -> str:
        """The ` = default` part of a field."""
        if "default" not in field:
            return ""
        default, avro = field["default"], field["type"]
        if isinstance(avro, dict) and avro["type"] == "enum":
            return f" = {avro['name']}.{default}"
        if default == {}:
            return " = {}"
        return f' = "{default}"' if isinstance(default, str) else f" = {default!r}"

    def source(self) -> str:
        """The whole module."""
        for path in sorted(AVRO.glob("*.avsc")):
            record = json.loads(path.read_text(encoding="utf-8"))
            self.records[path.name.removesuffix(".avsc")] = record["name"]
            self.collect(record["name"], self.record_source(record))
        union = "\n    | ".join(self.records.values())
        table = "".join(f'    "{topic}": {name},\n' for topic, name in self.records.items())
        return (
            PREAMBLE
            + "\n\n".join(self.blocks.values())
            + f"\n\nEvent = (\n    {union}\n)\n"
            + f"\n#: The event type of each topic.\nEVENT_TYPES: dict[str, type[Event]] = {{\n{table}}}\n"
        )


def docstring(text: str) -> list[str]:
    """A docstring's lines, wrapped."""
    lines = textwrap.wrap(f'"""{text}"""', 116)
    return [f"    {line}" for line in lines]


def enum_source(enum: dict[str, Any]) -> str:
    """The StrEnum of an Avro enum."""
    symbols = [f'    {symbol} = "{symbol}"' for symbol in enum["symbols"]]
    return "\n".join([f"class {enum['name']}(StrEnum):", *docstring(enum["doc"]), "", *symbols]) + "\n"


def main(arguments: list[str]) -> int:
    """Write schemas/events.py, or with --check say whether it is current; returns the exit code."""
    source = Generator().source()
    if "--check" in arguments:
        return 0 if TARGET.read_text(encoding="utf-8") == source else 1
    TARGET.write_text(source, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
