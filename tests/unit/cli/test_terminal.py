"""What commands print keeps what is copied or searched in one piece."""

from __future__ import annotations

import pytest

from api.cli.terminal import note, table, terminal

#: Longer than a line of a terminal.
COMMAND = "calls wait for an exchange rate: quaestor rate set USD EUR RATE --dated DAY --source WHO"
#: What somebody may call a thing, and a terminal's library would take for colours.
NAMES = ["[/x]", "[red]team[/red]", "\\[bold]", "[link=x]y[/]"]


def test_ids_in_a_pipe_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A table folds for a terminal, not for grep."""
    cells = ["01a2007d-1a2e-7bbe-970b-573f3847c51c", "key_730daefc87c9", "lim_44c8ed90f66ca4e8"]
    terminal().print(table("Ids", ("request", "key", "limit"), [cells]))

    (line,) = [line for line in capsys.readouterr().out.splitlines() if "key_" in line]
    assert cells == line.strip("│ ").split(" │ ")


def test_a_note_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A command in it can be copied."""
    note(COMMAND)

    assert f"{COMMAND}\n" == capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_spelled(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """In a title, a cell, a line and a note, whatever it would mean as colours."""
    terminal().print(table(name, ("name",), [[name]]))
    terminal().print(name)
    note(name)

    printed = capsys.readouterr()
    assert (3, f"{name}\n") == (printed.out.count(name), printed.err)
