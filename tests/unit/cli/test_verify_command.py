"""`quaestor verify` is told what to check, says what it can't do before it asks any store, and how it ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from api.cli import verify as command
from api.cli.verify import parse_scopes, read_answers, verify
from api.verify.run import SCOPES
from processors.parity.checks import Check
from schemas.errors import ConfigurationError


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["budgets", "ledger"], {"budgets", "ledger"}),
        (["audit", "audit"], {"audit"}),
        (["all"], set(SCOPES)),
        (["ledger", "all"], set(SCOPES)),
    ],
)
def test_scopes_are_named_together(texts: list[str], expected: set[str]) -> None:
    """Several in one run, and all of them by one word."""
    assert expected == parse_scopes(texts)


def test_an_unknown_scope_is_refused_with_the_ones_there_are() -> None:
    """Also beside one that is known."""
    with pytest.raises(ConfigurationError, match="'everything'; choose parity, budgets, ledger, audit, all"):
        parse_scopes(["audit", "everything"])


def test_answers_without_parity_are_refused(tmp_path: Path) -> None:
    """A green result would read as if the client's answers had been compared."""
    with pytest.raises(ConfigurationError, match="parity"):
        verify(["budgets", "ledger"], answers=tmp_path / "answers.jsonl")


def test_an_answers_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """By name, with what to name instead."""
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"request_id": "\xff"}')

    with pytest.raises(ConfigurationError, match=r"answers.jsonl is not UTF-8 text: name the file that"):
        read_answers(path)


def verified(monkeypatch: pytest.MonkeyPatch, *checks: Check, arguments: tuple[str, ...] = ()) -> Result:
    """What the command says of checks with these results."""
    monkeypatch.setattr(command, "run_verification", lambda *_, **__: list(checks))
    app = typer.Typer()
    command.register(app)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("other", [True, False])
def test_one_difference_is_told_by_the_exit_code(monkeypatch: pytest.MonkeyPatch, other: bool) -> None:
    """Whatever else agrees; scripts read the same from --json."""
    checks = Check("sums", other, 1, 1), Check("holds", ok=False, expected=2, actual=1, first_difference="hold 7")
    shown = verified(monkeypatch, *checks)
    told = verified(monkeypatch, *checks, arguments=("budgets", "ledger", "--json"))

    assert (1, 1) == (shown.exit_code, told.exit_code)
    assert "hold 7" in shown.stdout
    assert (False, [other, False]) == (
        json.loads(told.stdout)["ok"],
        [check["ok"] for check in json.loads(told.stdout)["checks"]],
    )


def test_agreement_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says how much was asked."""
    result = verified(monkeypatch, Check("sums", ok=True, expected=1, actual=1))

    assert (0, "1 check, nothing differs\n") == (result.exit_code, result.stderr)


def test_an_empty_log_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that differs in nothing is no proof of anything."""
    result = verified(monkeypatch, Check("requests in the log", ok=True, expected=0, actual=0))

    assert (0, True) == (result.exit_code, "the log is empty" in result.stderr)
