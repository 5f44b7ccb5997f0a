"""`quaestor why REQUEST_ID`: a request's whole story, in order, with costs."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from api.cli.story import Step, steps
from api.cli.terminal import DataOption, JsonOption, fail, print_json, terminal
from api.settings import Settings, load_settings
from schemas.ids import is_uuid
from sinks.postgres.reads import PostgresReads

STYLES = {
    "COMPLETED": "green",
    "FAILED": "red",
    "REFUSED": "red",
    "CHARGE": "yellow",
    "CORRECTION": "yellow",
    "LEDGER": "dim",
    "OVERAGE": "red",
    "EXPIRED": "red",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(why)


def why(
    request_id: Annotated[str, typer.Argument(help="The x-quaestor-request-id of an answer.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell a request's whole story: who asked, where it went and why, what was held, tried, charged and booked."""
    if not is_uuid(request_id):
        fail(f"{request_id!r} is not a request id; answers carry it as x-quaestor-request-id")
    story = read_story(load_settings(data), request_id)
    if not story:
        fail(f"no event of request {request_id} is in Postgres (yet): `quaestor status` shows how far its sink is")
    if as_json:
        print_json({"request_id": request_id, "steps": [step.as_json() for step in story]})
    else:
        show_story(terminal(), request_id, story)


def read_story(settings: Settings, request_id: str) -> list[Step]:
    """The steps of a request; empty when Postgres knows none. Raises StoreUnavailableError."""

    async def read() -> list[Step]:
        reads = PostgresReads(settings.postgres_dsn)
        try:
            return steps(await reads.story(request_id))
        finally:
            await reads.close()

    return asyncio.run(read())


def show_story(console: Console, request_id: str, story: list[Step]) -> None:
    """Print the story as a table."""
    table = Table(title=f"Request {request_id}", title_justify="left", title_style="bold", header_style="bold cyan")
    table.add_column("after", justify="right")
    table.add_column("step")
    table.add_column("what", overflow="fold")
    table.add_column("event", style="dim")
    for step in story:
        where = f"{step.topic.removeprefix('quaestor.')}/{step.partition}@{step.offset}"
        style = STYLES.get(step.kind, "")
        table.add_row(f"{step.after_milliseconds:.1f} ms", step.kind, step.summary, where, style=style)
    console.print(table)
