"""What others wrote reaches no terminal as a command, whichever way a command shows it."""

from __future__ import annotations

import pytest
import typer
from rich.text import Text

from api.cli.terminal import fail, note, table, terminal

HOSTILE = "model\x1b[2J\x9b31m"
SPELLED = "model\\x1b[2J\\x9b31m"


def test_tables_lines_and_texts_spell_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """In a cell, a line and a text of a style."""
    for shown in (table("", ("name",), [(HOSTILE,)]), Text(HOSTILE, "bold"), f"say {HOSTILE}"):
        terminal().print(shown, soft_wrap=True)
        out = capsys.readouterr().out
        assert (SPELLED in out, "\x1b" in out) == (True, False)


def test_notes_and_refusals_spell_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error as well; a refusal may have lines."""
    note("a \x1b(0 line")
    with pytest.raises(typer.Exit):
        fail(f"{HOSTILE}\nsecond line")

    assert capsys.readouterr().err == f"a \\x1b(0 line\nquaestor: {SPELLED}\nsecond line\n"
