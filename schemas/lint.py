"""Rules for schemas that the registry does not check: how one is written, and how one may follow another. Pure.

FULL_TRANSITIVE alone lets through what reads wrongly: another default, another logical type (a hundredfold amount),
text that becomes bytes, a field that disappears from a log kept for ever. Here only two changes are allowed: a new
field with a default, and a new symbol at the end of an enum that has a default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
#: What every record begins with.
COMMON_FIELDS = ("event_id", "occurred_at", "tenant_id", "request_id", "causation_id", "actor", "schema_version")
#: Types a field may have by the end of its name.
TYPES_BY_UNIT = {
    "_nano": "long",
    "_pico": "long",
    "_micros": "long",
    "_bytes": ("long", "bytes", "int"),
    "_tokens": "long",
}
FALLBACK_SYMBOL = "UNKNOWN"


def problems_of(schema: Schema) -> list[str]:
    """What is wrong with how a record is written."""
    names = [field["name"] for field in schema["fields"]]
    problems = []
    if tuple(names[: len(COMMON_FIELDS)]) != COMMON_FIELDS:
        problems.append(f"the first fields are not {', '.join(COMMON_FIELDS)}")
    if not isinstance(schema.get("version"), int) or schema["version"] < 1:
        problems.append("version is not a number from 1 on")
    for path, field in _fields(schema):
        problems += [f"{path}: {problem}" for problem in _field_problems(field)]
    for enum in _enums(schema):
        problems += [f"enum {enum['name']}: {problem}" for problem in _enum_problems(enum)]
    return problems


def _field_problems(field: Schema) -> Iterator[str]:
    if not field.get("doc"):
        yield "has no doc"
    if "aliases" in field:
        yield "has aliases: names do not change"
    for ending, wanted in TYPES_BY_UNIT.items():
        if field["name"].endswith(ending):
            kind = _plain(field["type"])
            if kind not in ((wanted,) if isinstance(wanted, str) else wanted):
                yield f"is {kind}, but its name says {wanted}"
    if isinstance(field["type"], list) and field["type"][0] != "null":
        yield "null is not the first branch"
    if isinstance(field["type"], list) and ("default" not in field or field["default"] is not None):
        yield "may be null, but null is not its default"


def _enum_problems(enum: Schema) -> Iterator[str]:
    if enum.get("default") != FALLBACK_SYMBOL or enum["symbols"][0] != FALLBACK_SYMBOL:
        yield f"its default and first symbol are not {FALLBACK_SYMBOL}"
    if not enum.get("doc"):
        yield "has no doc"


def changes_refused(old: Schema, new: Schema) -> list[str]:
    """Why a schema may not follow another; empty when it may."""
    refused = _record_changes(old, new)
    if old["version"] == new["version"] and _stripped(old) != _stripped(new):
        refused.append(f"version is still {old['version']}: a change takes the next number")
    if old["version"] != new["version"] and new["version"] != old["version"] + 1:
        refused.append(f"version {new['version']} does not follow {old['version']}")
    return refused


def _record_changes(old: Schema, new: Schema) -> list[str]:
    where = str(old["name"])
    if (old["name"], old.get("namespace")) != (new["name"], new.get("namespace")):
        return [f"{where}: the record has another name"]
    after = {field["name"]: field for field in new["fields"]}
    before = {field["name"]: field for field in old["fields"]}
    refused = [f"{where}.{name}: removed" for name in before if name not in after]
    refused += [
        f"{where}.{name}: added without a default"
        for name, field in after.items()
        if name not in before and "default" not in field
    ]
    for name, field in before.items():
        if name in after:
            refused += _field_changes(f"{where}.{name}", field, after[name])
    return refused


def _field_changes(where: str, old: Schema, new: Schema) -> list[str]:
    refused = _type_changes(where, old["type"], new["type"])
    missing = object()
    if old.get("default", missing) != new.get("default", missing):
        refused.append(f"{where}: its default changed")
    return refused


def _type_changes(where: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = zip(old, new, strict=True)
        return [problem for before, after in pairs for problem in _type_changes(where, before, after)]
    if isinstance(old, dict) and isinstance(new, dict) and old["type"] == new["type"]:
        match old["type"]:
            case "enum":
                return _enum_changes(where, old, new)
            case "record":
                return [f"{where}: {problem}" for problem in _record_changes(old, new)]
            case "array":
                return _type_changes(where, old["items"], new["items"])
            case "map":
                return _type_changes(where, old["values"], new["values"])
    return [] if _stripped(old) == _stripped(new) else [f"{where}: its type changed"]


def _enum_changes(where: str, old: Schema, new: Schema) -> list[str]:
    if old["name"] != new["name"] or old.get("default") != new.get("default"):
        return [f"{where}: the enum has another name or default"]
    if new["symbols"][: len(old["symbols"])] != old["symbols"]:
        return [f"{where}: symbols were removed, renamed or moved; new ones go to the end"]
    return []


def _stripped(node: Any) -> Any:
    """Without documentation, which may get better at any time."""
    if isinstance(node, dict):
        return {key: _stripped(value) for key, value in node.items() if key != "doc"}
    return [_stripped(item) for item in node] if isinstance(node, list) else node


def _plain(avro: Any) -> str:
    if isinstance(avro, list):
        return _plain(next(branch for branch in avro if branch != "null"))
    return str(avro["type"] if isinstance(avro, dict) else avro)


def _fields(schema: Schema) -> Iterator[tuple[str, Schema]]:
    for field in schema["fields"]:
        yield f"{schema['name']}.{field['name']}", field
        for inner in _nested(field["type"], "record"):
            yield from _fields(inner)


def _enums(schema: Schema) -> Iterator[Schema]:
    for field in schema["fields"]:
        yield from _nested(field["type"], "enum")
        for inner in _nested(field["type"], "record"):
            yield from _enums(inner)


def _nested(avro: Any, kind: str) -> Iterator[Schema]:
    """Named types directly under a field's type."""
    if isinstance(avro, list):
        for branch in avro:
            yield from _nested(branch, kind)
    elif isinstance(avro, dict):
        if avro["type"] == kind:
            yield avro
        for inner in ("items", "values"):
            if inner in avro:
                yield from _nested(avro[inner], kind)
