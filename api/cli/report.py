"""`quaestor report`: a day of decisions, charges and ledger, reconciled per tenant."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from api.cli.report_view import as_text, show
from api.cli.terminal import DataOption, JsonOption, fail, note, progress, terminal
from api.cli.times import now_micros
from api.report.files import write_all, write_whole
from api.report.page import page
from api.report.run import make_report
from api.settings import Settings, load_settings
from processors.report.day import Day, day_of
from processors.report.figures import Report
from processors.report.words import verdict
from schemas.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    day: Annotated[str, typer.Option(help="The day: yesterday, today, or YYYY-MM-DD.")] = "yesterday",
    time_zone: Annotated[str, typer.Option(help="Where the day begins and ends: an IANA name.")] = "UTC",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write one page with plots to this file.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write report-<day>.txt, .html and .json of all tenants into this folder.")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reconcile a day per tenant, and say what does not match; exit code 0 only when it is over and all matches."""
    if out is not None and tenant is not None:
        fail("--out writes the report of all tenants: leave --tenant out, or use --html", 2)
    now = now_micros()
    made = _made(load_settings(data), _day(day, time_zone, now), tenant, now, quiet=as_json)
    if html is not None:
        write_whole(html, page(made))
    if out is not None:
        for path in write_all(out, made.day, {"txt": as_text(made), "html": page(made), "json": as_document(made)}):
            note(f"wrote {path}")
    if as_json:
        typer.echo(as_document(made), nl=False)
    elif out is None:
        show(terminal(), made)
    else:
        terminal().print(f"{made.day}: {verdict(made).text}")
    raise typer.Exit(0 if made.ok else 1)


def _day(text: str, time_zone: str, now: int) -> Day:
    """The day a person typed; ends the command when it is none."""
    try:
        return day_of(text, time_zone, now)
    except ConfigurationError as error:
        fail(str(error), 2)


def as_document(made: Report) -> str:
    """The report for programs: the fields of processors.report.figures."""
    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"


def _made(settings: Settings, day: Day, tenant: str | None, now: int, *, quiet: bool) -> Report:
    """Make it with a progress bar on standard error."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task("report", total=None, note="")

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        return asyncio.run(make_report(settings, day, tenant, now, told))
