"""`quaestor schemas`: what needs no registry."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from api.cli.main import application
from schemas import history
from schemas.describe import rows_of, type_text

RUNNER = CliRunner()


def test_check_says_that_all_is_in_order() -> None:
    """Exit code 0, and JSON for programs."""
    done = RUNNER.invoke(application(["schemas"]), ["schemas", "check", "--local", "--json"])

    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"ok": True, "problems": []}


def test_check_names_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1."""
    monkeypatch.setattr(history, "problems", lambda: ["quaestor.costs: a field was removed"])

    done = RUNNER.invoke(application(["schemas"]), ["schemas", "check", "--local"])

    assert done.exit_code == 1
    assert "a field was removed" in done.stdout


def test_show_gives_the_schema_itself() -> None:
    """As it is registered."""
    done = RUNNER.invoke(application(["schemas"]), ["schemas", "show", "costs", "--json"])

    assert json.loads(done.stdout) == history.current("quaestor.costs")


@pytest.mark.parametrize("arguments", [["nope"], ["costs", "--version", "99"]], ids=str)
def test_show_of_what_is_not_there_ends_with_a_line(arguments: list[str]) -> None:
    """Exit code 2."""
    assert RUNNER.invoke(application(["schemas"]), ["schemas", "show", *arguments]).exit_code == 2


def test_nested_fields_are_shown_behind_theirs() -> None:
    """A leg's amount is `legs[].amount_nano`."""
    assert "legs[].amount_nano" in [name for name, *_ in rows_of(history.current("quaestor.budgets"))]


@pytest.mark.parametrize(
    ("avro", "text"),
    [
        ("string", "string"),
        (["null", "string"], "string or null"),
        ({"type": "long", "logicalType": "timestamp-micros"}, "long (timestamp-micros)"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "A | B"),
        ({"type": "array", "items": {"type": "record", "name": "R", "fields": []}}, "list of R"),
        ({"type": "map", "values": "bytes"}, "map of bytes"),
    ],
    ids=str,
)
def test_types_in_words(avro: object, text: str) -> None:
    """As people read them."""
    assert text == type_text(avro)
