"""The rules that the registry does not check."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from schemas import history
from schemas.lint import changes_refused, problems_of

BUDGETS = "quaestor.budgets"


NEXT = int(history.current(BUDGETS)["version"]) + 1


def changed(change: Callable[[dict[str, Any]], None], *, version: int = NEXT) -> dict[str, Any]:
    """The budgets schema after a change, as its next version."""
    schema: dict[str, Any] = copy.deepcopy(history.current(BUDGETS))
    change(field_map := {field["name"]: field for field in schema["fields"]} | {"": schema})
    schema["version"] = version
    del field_map
    return schema


def legs(fields: dict[str, Any]) -> dict[str, Any]:
    """The nested record."""
    items: dict[str, Any] = fields["legs"]["type"]["items"]
    return items


def remove(fields: dict[str, Any], name: str) -> None:
    """Take a field away."""
    fields[""]["fields"].remove(fields[name])


def add(fields: dict[str, Any], **field: Any) -> None:
    """Put a field at the end."""
    fields[""]["fields"].append({"doc": "New."} | field)


ALLOWED: dict[str, Callable[[dict[str, Any]], None]] = {
    "a field with a default": lambda f: add(f, name="n", type=["null", "string"], default=None),
    "a symbol at the end of an enum": lambda f: f["kind"]["type"]["symbols"].append("SPLIT"),
    "better documentation": lambda f: f["reason"].update(doc="Better."),
    "a field with a default in a nested record": lambda f: legs(f)["fields"].append(
        {"name": "n", "type": "long", "default": 0, "doc": "New."}
    ),
}
REFUSED: dict[str, Callable[[dict[str, Any]], None]] = {
    "a field without a default": lambda f: add(f, name="n", type="string"),
    "a field removed": lambda f: remove(f, "reason"),
    "a default changed": lambda f: f["attempt_number"].update(default=0),
    "a default removed": lambda f: f["estimated"].pop("default"),
    "a logical type changed": lambda f: f["occurred_at"].update(
        type={"type": "long", "logicalType": "timestamp-millis"}
    ),
    "a number widened": lambda f: f["schema_version"].update(type="long"),
    "text that becomes bytes": lambda f: f["model"].update(type="bytes"),
    "a field that may be null now": lambda f: f["model"].update(type=["null", "string"]),
    "an enum symbol removed": lambda f: f["kind"]["type"]["symbols"].pop(),
    "an enum symbol in the middle": lambda f: f["kind"]["type"]["symbols"].insert(2, "SPLIT"),
    "an enum default changed": lambda f: f["kind"]["type"].update(default="PLACED"),
    "a record renamed": lambda f: f[""].update(name="Budget"),
    "a nested field removed": lambda f: legs(f)["fields"].pop(),
    "a nested type changed": lambda f: legs(f)["fields"][1].update(type="int"),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed_changes(name: str) -> None:
    """It may follow as the next version."""
    assert [] == changes_refused(history.current(BUDGETS), changed(ALLOWED[name]))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_changes(name: str) -> None:
    """It may not follow, whatever its version."""
    assert changes_refused(history.current(BUDGETS), changed(REFUSED[name]))


#: No field is a decimal today; the number of its decimals is nowhere but in its type.
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}


@pytest.mark.parametrize(
    ("after", "is_refused"),
    [
        (PRICE, False),
        (PRICE | {"scale": 4}, True),
        (PRICE | {"precision": 20}, True),
        (PRICE | {"precision": 20, "scale": 4}, True),
        ({name: value for name, value in PRICE.items() if name != "scale"}, True),
    ],
    ids=["as it was", "scale", "precision", "both", "no scale"],
)
@pytest.mark.parametrize("may_be_null", [False, True])
def test_a_decimal_keeps_its_scale_and_its_precision(
    after: dict[str, Any], *, is_refused: bool, may_be_null: bool
) -> None:
    """With another scale the same bytes would be another amount, a hundredfold one, and nobody would notice."""

    def priced(price: dict[str, Any]) -> dict[str, Any]:
        kind = ["null", price] if may_be_null else price
        return changed(lambda fields: add(fields, name="price", type=kind, default=None if may_be_null else ""))

    before = priced(PRICE) | {"version": NEXT - 1}

    assert is_refused == any("price: its type changed" in why for why in changes_refused(before, priced(after)))


def test_a_change_takes_the_next_version() -> None:
    """The same version with another field, or a gap, is refused."""
    change = ALLOWED["a field with a default"]

    assert changes_refused(history.current(BUDGETS), changed(change, version=NEXT - 1))
    assert changes_refused(history.current(BUDGETS), changed(change, version=NEXT + 1))


@pytest.mark.parametrize(
    "field",
    [
        {"name": "x_nano", "type": "double", "default": 0.0, "doc": "Money in floats."},
        {"name": "x_micros", "type": "int", "default": 0, "doc": "A time that overflows."},
        {"name": "x", "type": ["string", "null"], "default": "", "doc": "Null is not first."},
        {"name": "x", "type": ["null", "string"], "doc": "No default."},
        {"name": "x", "type": "string", "default": "", "doc": ""},
        {"name": "x", "type": "string", "default": "", "doc": "Alias.", "aliases": ["y"]},
        {
            "name": "x",
            "type": {"type": "enum", "name": "E", "symbols": ["A"], "doc": "No fallback."},
            "doc": "An enum.",
        },
    ],
    ids=lambda field: field["doc"] or "no doc",
)
def test_fields_written_against_the_rules(field: dict[str, Any]) -> None:
    """Each is named as a problem."""
    assert problems_of(changed(lambda fields: fields[""]["fields"].append(field)))


def test_a_record_begins_with_the_common_fields() -> None:
    """A missing one is named."""
    assert problems_of(changed(lambda fields: remove(fields, "actor")))
