"""`quaestor audit hold add | list | release`: legal holds, against retention and erasure alike."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any

import typer

from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.cli.times import time_of
from api.settings import Settings, load_settings
from api.times import time_text
from processors import control
from processors.control import ControlState, LegalHold
from schemas.topics import REQUESTS
from sinks.postgres.reads import PostgresReads

ID_BYTES = 6


def register(audit: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Legal holds: what must stay.", no_args_is_help=True)
    group.command("add")(add)
    group.command("list")(list_holds)
    group.command("release")(release)
    audit.add_typer(group, name="hold")


def add(
    tenant: Annotated[str, typer.Option(help="Whose records.")],
    reason: Annotated[str, typer.Option(help="The case it is for; kept in the log, so no name of a person.")],
    request: Annotated[str | None, typer.Option(help="Only this request.")] = None,
    subject_handle: Annotated[str | None, typer.Option(help="Only this end user, by the handle in events.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Only from this time on: 2026-11-21.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only before this time.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep records whatever retention and erasure say, until the hold is released."""
    if request is not None and subject_handle is not None:
        fail("a request has one end user: say --request or --subject-handle", 2)
    settings = load_settings(data)
    hold = LegalHold(
        hold_id=f"hold_{secrets.token_hex(ID_BYTES)}",
        tenant_id=tenant,
        request_id=request or "",
        subject_handle=subject_handle if request is None else asyncio.run(_subject_of(settings, request)),
        since=None if since is None else time_of(since, "--from"),
        until=None if until is None else time_of(until, "--to"),
        reason=reason,
    )
    with control_session(settings) as session:
        session.change(lambda state, origin: control.add_hold(state, hold, origin), reason)
        gone = _gone(session.state)
    if as_json:
        print_json({"hold": _row(hold), "gone_before": gone})
        return
    note(f"{hold.hold_id} stands")
    for words in gone:
        note(f"gone before it: {words}")


def list_holds(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the holds in force."""
    with control_session(load_settings(data)) as session:
        holds = [session.state.holds[hold_id] for hold_id in sorted(session.state.holds)]
    if as_json:
        print_json({"holds": [_row(hold) for hold in holds]})
        return
    cells = [(hold.hold_id, hold.tenant_id, _covers(hold), time_text(hold.created_at), hold.reason) for hold in holds]
    terminal().print(table("Legal holds", ("hold", "tenant", "covers", "since", "reason"), cells))


def release(
    hold_id: Annotated[str, typer.Argument(help="The hold, as `list` shows it.")],
    reason: ReasonOption = None,
    data: DataOption = None,
) -> None:
    """End a hold: retention and erasure go by their own rules again."""
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.release_hold(state, hold_id, origin), reason)
    note(f"{hold_id} is released")


async def _subject_of(settings: Settings, request_id: str) -> str | None:
    """The request's end user; empty without one, None when the request is not known: then anybody's erasure waits."""
    reads = PostgresReads(settings.postgres_dsn)
    try:
        story = await reads.story(request_id)
    finally:
        await reads.close()
    known = [event.fields["subject_handle"] or "" for event in story if event.topic == REQUESTS.name]
    return max(known) if known else None


def _gone(state: ControlState) -> list[str]:
    """What retention gave up before."""
    cuts = [each for each in state.retention.values() if each.cut is not None]
    return [
        f"entries below {each.kept_from}" if each.name == "audit" else f"events before {time_text(each.kept_from)}"
        for each in cuts
    ]


def _covers(hold: LegalHold) -> str:
    if hold.request_id:
        return f"request {hold.request_id}"
    whose = "everything" if hold.subject_handle is None else f"subject {hold.subject_handle}"
    since = "" if hold.since is None else f" from {time_text(hold.since)}"
    return whose + since + ("" if hold.until is None else f" to {time_text(hold.until)}")


def _row(hold: LegalHold) -> dict[str, Any]:
    return {
        "id": hold.hold_id,
        "tenant": hold.tenant_id,
        "request": hold.request_id or None,
        "subject_handle": hold.subject_handle,
        "from": hold.since,
        "to": hold.until,
        "reason": hold.reason,
        "created_at": hold.created_at,
    }
