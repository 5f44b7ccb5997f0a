"""Schemas in words: fields, types, defaults and meanings, for the command line and the reference pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def rows_of(schema: Any, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """A line per field, nested records' fields behind the field that holds them."""
    for field in schema["fields"]:
        default = json.dumps(field["default"]) if "default" in field else ""
        yield f"{prefix}{field['name']}", type_text(field["type"]), default, field["doc"]
        for nested in _records(field["type"]):
            yield from rows_of(nested, f"{prefix}{field['name']}[].")


def type_text(avro: Any) -> str:
    """A type as people read it: `long (timestamp-micros)`, `string or null`, `PLACED | COMMITTED`."""
    if isinstance(avro, list):
        return " or ".join(type_text(branch) for branch in avro if branch != "null") + " or null"
    if isinstance(avro, str):
        return avro
    match avro["type"]:
        case "enum":
            return " | ".join(avro["symbols"])
        case "record":
            return str(avro["name"])
        case "array":
            return f"list of {type_text(avro['items'])}"
        case "map":
            return f"map of {type_text(avro['values'])}"
    return f"{avro['type']} ({avro['logicalType']})" if "logicalType" in avro else str(avro["type"])


def _records(avro: Any) -> Iterator[Any]:
    if isinstance(avro, list):
        for branch in avro:
            yield from _records(branch)
    elif isinstance(avro, dict):
        if avro["type"] == "record":
            yield avro
        elif avro["type"] == "array":
            yield from _records(avro["items"])
