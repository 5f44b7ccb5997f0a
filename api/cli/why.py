"""`quaestor why REQUEST_ID`: a request's whole story, in order, with costs and what the audit log proves of it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.cli.audit_parts import open_trail, seen_in_kafka
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, require_request_id, terminal
from api.settings import Settings, load_settings
from api.why.tell import Story, tell
from processors.audit.marks import Mark, MarkState
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
BAD = "bold red"
MARKS = {
    MarkState.VERIFIED: ("✓", "green"),
    MarkState.INCLUDED: ("included", "yellow"),
    MarkState.PENDING: ("pending", "yellow"),
    MarkState.UNCHECKED: ("unchecked", "yellow"),
    MarkState.GONE: ("gone", "dim"),
    MarkState.MISMATCH: ("differs", BAD),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(why)


def why(
    request_id: Annotated[str, typer.Argument(help="The x-quaestor-request-id of an answer.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell a request's whole story: who asked, where it went and why, what was held, tried, charged and booked.

    Each step has its index in the audit log and a mark. ✓ is verified: that entry names this record, is included under
    the signed checkpoint, commits to the bytes that Kafka has, and Postgres tells the same as those bytes. included:
    the same without the bytes (Kafka away, or no salt secret here). pending: not yet sequenced or published.
    unchecked: the log's key is not here. differs: something contradicts; then the exit code is 1.
    """
    require_request_id(request_id)
    story = read_story(load_settings(data), request_id)
    if not story.steps and not story.missing:
        fail(f"no event of request {request_id} is in Postgres (yet): `quaestor status` shows how far its sink is")
    if as_json:
        print_json(story.as_json())
    else:
        show_story(terminal(), story)
    raise typer.Exit(0 if story.ok else 1)


def read_story(settings: Settings, request_id: str) -> Story:
    """The story of a request; without steps when Postgres knows none. Raises StoreUnavailableError."""

    async def read() -> Story:
        reads = PostgresReads(settings.postgres_dsn)
        try:
            async with open_trail(settings) as trail:
                return await tell(request_id, reads, trail.marker(), seen_in_kafka(settings))
        finally:
            await reads.close()

    return asyncio.run(read())


def show_story(console: Console, story: Story) -> None:
    """Print the story as a table, then what contradicts it."""
    title = f"Request {story.request_id}"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold cyan")
    table.add_column("after", justify="right")
    table.add_column("step")
    table.add_column("what", overflow="fold")
    table.add_column("event", style="dim")
    table.add_column("audit", justify="right")
    for step in story.steps:
        where = f"{step.topic.removeprefix('quaestor.')}/{step.partition}@{step.offset}"
        style = STYLES.get(step.kind, "")
        after = f"{step.after_milliseconds:.1f} ms"
        table.add_row(after, step.kind, Text(step.summary), where, mark_text(step.audit), style=style)
    console.print(table)
    for step in story.steps:
        if not step.ok:
            console.print(Text.assemble((f"{step.kind} differs", BAD), f": {step.audit.detail}"))
    for place in story.missing:
        where = f"{place.topic}/{place.partition}@{place.offset}"
        words = f": entry {place.seq} of the audit log ({where}) has no row in Postgres"
        console.print(Text.assemble(("missing", BAD), words))
    note(_conclusion(story))


def mark_text(mark: Mark) -> Text:
    """Index and mark, in its colour."""
    index = "" if mark.index is None else f"{mark.index} "
    return Text.assemble(index, MARKS[mark.state])


def _conclusion(story: Story) -> Text:
    verified = sum(step.audit.state is MarkState.VERIFIED for step in story.steps)
    if not story.ok:
        return Text("this story and the audit log contradict each other", BAD)
    if verified == len(story.steps):
        return Text("every step is verified against the signed audit log", "green")
    return Text(f"{verified} of {len(story.steps)} steps are verified against the signed audit log")
