"""`quaestor verify` is told what to check; what it can't do it says before it asks any store."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.cli.verify import parse_scopes, verify
from api.verify.run import SCOPES
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
