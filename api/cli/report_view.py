"""The report as text: for a terminal, a pipe, and the file of a nightly run."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.table import Table as Drawn
from rich.text import Text

from api.cli.terminal import COLOURS, bar, table, unfolded
from processors.report.figures import Report
from processors.report.plots import Plot, plots
from processors.report.words import (
    PERCENT,
    Cell,
    Marked,
    Share,
    Table,
    facts,
    overview,
    printable,
    rules,
    standing,
    tables,
    verdict,
)


def show(console: Console, report: Report) -> None:
    """Print the report."""
    for each in _parts(report):
        console.print(each, soft_wrap=False)


def as_text(report: Report) -> str:
    """The report for a file: as printed, without colours."""
    text = StringIO()
    show(unfolded(Console(file=text, highlight=False, color_system=None, force_terminal=False)), report)
    return text.getvalue()


def _parts(report: Report) -> Iterator[RenderableType]:
    yield Text.assemble((f"Report of {report.day}: ", "bold"), _marked(verdict(report)))
    yield Group(*(Text(f"{name}: {printable(text)}") for name, text in facts(report)), Text())
    yield _drawn(overview(report))
    yield _drawn(rules(report))
    for tenant in report.tenants:
        yield Text(f"\n{printable(tenant.tenant_id)}", "bold underline")
        yield from (_plot(plot) for plot in plots(tenant, report) if plot.shape == "columns")
        for each in tables(tenant, report.time_zone):
            yield _drawn(each)
            if each.note:
                yield Text(printable(each.note), "dim")
    yield Text()
    yield _drawn(standing(report))


def _drawn(told: Table) -> Drawn:
    drawn = table(told.title, told.columns, (), numbers=told.numbers)
    for row in told.rows:
        drawn.add_row(*(_cell(cell) for cell in row))
    return drawn


def _cell(cell: Cell) -> Text:
    if isinstance(cell, Share):
        return bar(cell.percent, cell.level)
    return _marked(cell) if isinstance(cell, Marked) else Text(printable(cell))


def _marked(marked: Marked) -> Text:
    return Text(marked.text, COLOURS[marked.level])


def _plot(plot: Plot) -> Drawn:
    """Hours with something in them, each with its bar."""
    highest = max(one.value for one in plot.bars) or 1
    drawn = table(plot.title, ("hour", "", "charged"), (), numbers=(2,))
    for one in plot.bars:
        if one.value:
            drawn.add_row(one.label, bar(PERCENT * max(0, one.value) // highest, one.level), one.text)
    return drawn
