"""What commands share: options, tables, progress, JSON, and one-line errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from schemas.ids import is_uuid

BAR_CHARACTERS = 10
#: Characters of a line in a file or pipe: ids stay whole, for grep.
FILE_WIDTH = 160
COLOURS = {"plain": "cyan", "good": "green", "warning": "yellow", "bad": "red"}
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Data directory of the running product (QUAESTOR_DATA, default .quaestor).", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class _Terminal(Console):
    """A console whose texts command nothing: what others wrote stands in tables and lines as it is spelled."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Console does, without control characters but those that it makes itself."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def terminal() -> Console:
    """Standard output; colours only where a terminal (or FORCE_COLOR) asks for them."""
    return unfolded(_Terminal(highlight=False, markup=False))


def visible(text: str) -> str:
    """The text with every character spelled that a terminal would not show; lines stay lines."""
    return _spelled(text, but="\n")


def _spelled(text: str, but: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in but else ascii(each)[1:-1] for each in text)


def unfolded(console: Console) -> Console:
    """The console, wide enough for whole ids where nobody's terminal bounds it."""
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    return console


def progress(*, quiet: bool = False) -> Progress:
    """A progress bar on standard error, so that standard output stays clean for pipes."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[int] = ()) -> Table:
    """A table; the columns whose positions stand in `numbers` are aligned right. A cell with colours is a Text."""
    made = Table(title=Text(visible(title), "bold"), title_justify="left", header_style="bold cyan")
    for position, column in enumerate(columns):
        made.add_column(column, justify="right" if position in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(visible(str(cell))) for cell in row))
    return made


def require_request_id(text: str) -> None:
    """End the command unless the text is the id of a request."""
    if not is_uuid(text):
        fail(f"{text!r} is not a request id; answers carry it as x-quaestor-request-id")


def plain(text: object) -> str:
    """What others wrote, on one line: its line breaks are spelled too."""
    return _spelled(str(text))


def agreement(*, ok: bool) -> Text:
    """The first cell of a check's row."""
    return Text("ok", "green") if ok else Text("differs", "red")


def bar(percent: int, level: str) -> Text:
    """So much of a bar, in the colour of its level; more than the whole is the whole."""
    filled = min(BAR_CHARACTERS, BAR_CHARACTERS * percent // 100)
    return Text(f"{'█' * filled}{'░' * (BAR_CHARACTERS - filled)}", COLOURS[level], no_wrap=True)


def note(message: str | Text) -> None:
    """One line of news on standard error."""
    _Terminal(stderr=True, highlight=False, markup=False).print(message, soft_wrap=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """End with one line on standard error."""
    sys.stderr.write(f"quaestor: {visible(message)}\n")
    raise typer.Exit(code)
